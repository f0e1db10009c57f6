"""TLS of the object store: a certificate authority of the stack's own, kept by cert-manager in the store's namespace."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core.v1 import ConfigMap, Secret

from mistral_on_l4.manifests import object_store
from mistral_on_l4.manifests.metadata import metadata

TLS_SECRET = "minio-tls"
CA_SECRET = "minio-ca"
# What KServe's storage initializer mounts, and the key that it reads there.
CA_CONFIG_MAP = "minio-ca"
CA_KEY = "cabundle.crt"
_API = "cert-manager.io/v1"
_WAIT = {"pulumi.com/waitFor": "condition=Ready"}
_YEAR = "8760h"
# Its copies in other namespaces are made by `pulumi up`, so it must outlive every time between two of them.
_TEN_YEARS = "87600h"


@dataclass(frozen=True)
class StoreCertificateArgs:
    """namespace: of the store; job_namespaces: where jobs trust it by a Secret; service_namespace: where KServe does."""

    namespace: str
    job_namespaces: Sequence[str]
    service_namespace: str


class StoreCertificate(pulumi.ComponentResource):
    """`ready`: the store can start, and everything that talks to it knows whom to trust.

    Only the store's namespace holds the key; the others get the authority's certificate alone.
    """

    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: StoreCertificateArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """opts.depends_on: cert-manager, and the namespaces."""
        super().__init__("mistral-on-l4:storage:StoreCertificate", name, None, opts)
        self._namespace = args.namespace
        child = pulumi.ResourceOptions(parent=self)
        root = self._object(f"{name}-self-signed", "Issuer", "minio-self-signed", {"selfSigned": {}})
        authority = self._object(
            f"{name}-authority",
            "Certificate",
            CA_SECRET,
            {
                "isCA": True,
                "commonName": f"object store of {args.namespace}",
                "secretName": CA_SECRET,
                "duration": _TEN_YEARS,
                "privateKey": {"algorithm": "ECDSA", "size": 256},
                "issuerRef": {"name": "minio-self-signed", "kind": "Issuer"},
            },
            root,
        )
        issuer = self._object(f"{name}-issuer", "Issuer", CA_SECRET, {"ca": {"secretName": CA_SECRET}}, authority)
        host = f"{object_store.NAME}.{args.namespace}.svc"
        certificate = self._object(
            f"{name}-certificate",
            "Certificate",
            TLS_SECRET,
            {
                "secretName": TLS_SECRET,
                "duration": _YEAR,
                # localhost: `demo weights` comes by a port-forward.
                "dnsNames": [
                    host,
                    f"{host}.cluster.local",
                    f"{object_store.NAME}.{args.namespace}",
                    object_store.NAME,
                    "localhost",
                ],
                "usages": ["server auth", "digital signature", "key encipherment"],
                "privateKey": {"algorithm": "ECDSA", "size": 256},
                "issuerRef": {"name": CA_SECRET, "kind": "Issuer"},
            },
            issuer,
        )
        # Its id is an Output of the certificate's: read only once that is there, and not at all in a first preview.
        issued = Secret.get(f"{name}-issued", certificate.id.apply(lambda _: f"{args.namespace}/{TLS_SECRET}"), opts=child)
        authority_text = issued.data.apply(lambda data: base64.b64decode(data["ca.crt"]).decode() if data else "")
        self.ready = [certificate]
        for namespace in args.job_namespaces:
            self.ready.append(
                Secret(
                    f"{name}-{namespace}",
                    metadata=metadata(TLS_SECRET, namespace),
                    string_data={"ca.crt": authority_text},
                    opts=child,
                )
            )
        self.ready.append(
            ConfigMap(
                f"{name}-{args.service_namespace}",
                metadata=metadata(CA_CONFIG_MAP, args.service_namespace),
                # A certificate is public; that it came out of a Secret does not make it one.
                data={CA_KEY: pulumi.Output.unsecret(authority_text)},
                opts=child,
            )
        )
        self.register_outputs({})

    def _object(self, name: str, kind: str, object_name: str, spec: dict[str, Any], *after: pulumi.Resource) -> CustomResource:
        return CustomResource(
            name,
            api_version=_API,
            kind=kind,
            metadata=metadata(object_name, self._namespace, annotations=_WAIT),
            spec=spec,
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(after)),
        )
