"""Software of a rehearsed EKS cluster that the stack waits for: cert-manager, KServe's controller, the EBS driver.

Certificates are real ones, signed here; volumes are folders of this machine with an entry in the account, which only comes and goes
while the add-on aws-ebs-csi-driver is there, as with the real driver. KServe's controller is the real one, a process beside the
chart's Deployment: it starts when its kinds are there, and the Deployment gets the certificate that it waits for when it serves.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from embedded import kserve
from embedded.cluster import ClusterError, restart
from embedded.home import LocalHome
from embedded.plugins.aws.ledger import Entry, Ledger, new_id
from mistral_on_l4.cluster.client import ApiError, KubeClient, Object, UnknownKind
from mistral_on_l4.cluster.live import condition

_log = logging.getLogger(__name__)
EBS = "ebs.csi.aws.com"
_PERIOD_SECONDS = 0.5
# Detaching and deleting a volume takes the real driver up to a minute. Here it is longer than what a destroy does between claims
# and driver (13 seconds): who does not wait for volumes leaves them behind.
_DELETION_SECONDS = 20.0
_CERTIFICATES = "cert-manager.io/v1"
_INFERENCE_SERVICES = "inferenceservices.serving.kserve.io"


class Controllers:
    """These controllers on threads of their own, for as long as a rehearsal lasts."""

    def __init__(self, home: LocalHome, ledger: Ledger) -> None:
        self._home, self._ledger = home, ledger
        self._stop = threading.Event()
        self._released: dict[str, float] = {}
        # The definition, by its uid, of the kinds that KServe's controller serves.
        self._served = ""
        self._threads = [
            threading.Thread(target=self._loop, args=(act,), name=act.__name__, daemon=True)
            for act in (self.issue_certificates, self.run_kserve, self.provision_volumes, self.remove_volumes)
        ]

    def __enter__(self) -> Controllers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10.0)

    def _loop(self, act: Callable[[KubeClient], None]) -> None:
        client = KubeClient.from_kubeconfig(self._home.kubeconfig)
        while not self._stop.wait(_PERIOD_SECONDS):
            try:
                act(client)
            except (ApiError, ClusterError, OSError) as error:
                _log.info("%s: %s", act.__name__, error)

    # -- KServe --------------------------------------------------------------------------------------------------------

    def run_kserve(self, client: KubeClient) -> None:
        """Starts KServe's controller for kinds that are new: without them it has ended, and it never looks for them again."""
        uid = self._kinds(client)
        if uid and uid != self._served:
            restart(self._home, "kserve-manager")
            self._served = uid

    def _kinds(self, client: KubeClient) -> str:
        """uid of the definition of InferenceServices, "" while it is not served."""
        try:
            definition = client.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", _INFERENCE_SERVICES)
        except ApiError as error:
            if error.status == 404:
                return ""
            raise
        return str(definition["metadata"]["uid"]) if condition(definition, "Established") == "True" else ""

    # -- volumes -------------------------------------------------------------------------------------------------------

    def _driver_lives(self) -> bool:
        with self._ledger.open() as account:
            return any(found.name == "aws-ebs-csi-driver" and found.status == "ACTIVE" for found in account.of("addon"))

    def provision_volumes(self, client: KubeClient) -> None:
        """A volume for every claim of an EBS class whose pod has a node."""
        classes = {
            found["metadata"]["name"]: found.get("parameters") or {}
            for found in client.list("storage.k8s.io/v1", "StorageClass")["items"]
            if found["provisioner"] == EBS
        }
        for claim in client.list("v1", "PersistentVolumeClaim")["items"] if classes else []:
            meta, spec = claim["metadata"], claim["spec"]
            chosen = (meta.get("annotations") or {}).get("volume.kubernetes.io/selected-node")
            if spec.get("storageClassName") not in classes or spec.get("volumeName") or not chosen or meta.get("deletionTimestamp"):
                continue
            if self._driver_lives():
                self._provision(client, claim, classes[spec["storageClassName"]])

    def _provision(self, client: KubeClient, claim: Object, parameters: dict[str, str]) -> None:
        folder = self._home.volumes / f"pvc-{claim['metadata']['uid']}"
        folder.mkdir(mode=0o777, parents=True, exist_ok=True)
        folder.chmod(0o777)
        tags = dict(text.partition("=")[::2] for key, text in parameters.items() if key.startswith("tagSpecification_"))
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": folder.name, "annotations": {"pv.kubernetes.io/provisioned-by": EBS}},
            "spec": {
                "accessModes": claim["spec"]["accessModes"],
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    **{key: claim["metadata"][key] for key in ("name", "namespace", "uid")},
                },
                "hostPath": {"path": str(folder), "type": "Directory"},
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": claim["spec"]["storageClassName"],
                "volumeMode": "Filesystem",
            },
        }
        try:
            client.create(volume)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return
        with self._ledger.open() as account:
            entry = Entry(new_id("vol"), "volume", folder.name, data={"tags": tags}, status="ACTIVE", ours=False)
            account.note("created", account.add(entry))

    def remove_volumes(self, client: KubeClient) -> None:
        """Volumes whose claim is gone, some time later, while the driver is there to do it."""
        from embedded.agent import sandbox

        for volume in client.list("v1", "PersistentVolume")["items"]:
            meta = volume["metadata"]
            ours = (meta.get("annotations") or {}).get("pv.kubernetes.io/provisioned-by") == EBS
            if not ours or (volume.get("status") or {}).get("phase") not in ("Released", "Failed") or not self._driver_lives():
                continue
            if time.monotonic() - self._released.setdefault(meta["uid"], time.monotonic()) < _DELETION_SECONDS:
                continue
            path = self._home.volumes / meta["name"]
            if path.exists():
                sandbox.remove(path)
            client.delete("v1", "PersistentVolume", meta["name"], propagation="Background")
            with self._ledger.open() as account:
                if entry := account.find("volume", meta["name"]):
                    account.note("deleted", entry)
                    account.remove(entry.id)

    # -- certificates --------------------------------------------------------------------------------------------------

    def issue_certificates(self, client: KubeClient) -> None:
        """Issuers that can sign become ready, and every certificate gets its Secret."""
        try:
            issuers = client.list(_CERTIFICATES, "Issuer")["items"]
            certificates = client.list(_CERTIFICATES, "Certificate")["items"]
        except UnknownKind:
            # The kinds may come later.
            return
        for issuer in issuers:
            if condition(issuer, "Ready") != "True" and _authority(client, issuer) is not None:
                _ready(client, issuer)
        for certificate in certificates:
            meta = certificate["metadata"]
            if condition(certificate, "Ready") == "True" or not self._may_be_issued(client, meta):
                continue
            issuer = next(
                (
                    found
                    for found in issuers
                    if (found["metadata"]["namespace"], found["metadata"]["name"])
                    == (meta["namespace"], certificate["spec"]["issuerRef"]["name"])
                ),
                None,
            )
            authority = _authority(client, issuer) if issuer is not None else None
            if authority is not None:
                client.apply(_issued(certificate, authority), "cert-manager", force=True)
                _ready(client, certificate)

    def _may_be_issued(self, client: KubeClient, meta: Object) -> bool:
        """KServe's own, which its chart waits for, only once its controller serves."""
        return meta["namespace"] != kserve.NAMESPACE or (bool(self._served) and self._served == self._kinds(client))


# (certificate, key) of who signs, in PEM; two empty ones for "itself".
Authority = tuple[bytes, bytes]


def _authority(client: KubeClient, issuer: Object) -> Authority | None:
    """None while the Secret of a CA issuer is not there."""
    if "selfSigned" in issuer["spec"]:
        return b"", b""
    try:
        secret = client.get("v1", "Secret", issuer["spec"]["ca"]["secretName"], issuer["metadata"]["namespace"])
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return base64.b64decode(secret["data"]["tls.crt"]), base64.b64decode(secret["data"]["tls.key"])


def _ready(client: KubeClient, obj: Object) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = {
        "type": "Ready",
        "status": "True",
        "reason": "Issued",
        "message": "by the rehearsal's stand-in",
        "lastTransitionTime": now,
    }
    generation = obj["metadata"].get("generation", 1)
    client.replace({**obj, "status": {"conditions": [{**found, "observedGeneration": generation}]}}, subresource="status")


def _issued(certificate: Object, authority: Authority) -> Object:
    """The Secret of a certificate, as cert-manager writes it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    spec = certificate["spec"]
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[str] = spec.get("dnsNames") or []
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (spec.get("commonName") or names[0])[:64])])
    signer: Any = serialization.load_pem_private_key(authority[1], None) if authority[1] else key
    issuer = x509.load_pem_x509_certificate(authority[0]).subject if authority[0] else subject
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(bool(spec.get("isCA")), None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    if spec.get("isCA"):
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    signed = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    data = {"tls.crt": signed, "tls.key": private, "ca.crt": authority[0] or signed}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": spec["secretName"], "namespace": certificate["metadata"]["namespace"]},
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(text).decode() for name, text in data.items()},
    }
