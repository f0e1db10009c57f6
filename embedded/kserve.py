"""KServe in the local cluster: its definitions, configuration and webhooks as objects, its controller as a process beside it."""

from __future__ import annotations

import base64
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from embedded import crds
from embedded.control_plane import START_SECONDS, Component, http_ok
from embedded.home import CHECKOUT, STORAGE_CLASS, STORAGE_PROVISIONER, ClusterInfo, LocalHome
from mistral_on_l4.cluster.client import ApiError, KubeClient, UnknownKind
from mistral_on_l4.files import write_whole

FIELD_MANAGER = "mistral-on-l4"
NAMESPACE = "kserve"
CONFIG_MAP = "inferenceservice-config"
APPLIED = "mistral-on-l4-applied"
STORAGE_INITIALIZER_IMAGE = "docker.io/kserve/storage-initializer:v0.20.0"
ESTABLISHED_SECONDS = 60.0
SERVING = "serving.kserve.io"


class ObjectsFailed(Exception):
    """An object that the cluster needs was refused, or did not become usable. One line."""


def inferenceservice_config() -> dict[str, str]:
    """The controller's configuration, by section. Only what this stack uses; sources: KServe 0.20's Go types of each section."""
    sections: dict[str, dict[str, Any]] = {
        # Plain Deployments and Services: there is no Knative here.
        "deploy": {"defaultDeploymentMode": "Standard"},
        # ingressGateway has to be named even though no ingress of any kind is made.
        "ingress": {
            "ingressGateway": f"{NAMESPACE}/no-gateway",
            "ingressDomain": "cluster.local",
            "domainTemplate": "{{ .Name }}.{{ .Namespace }}.{{ .IngressDomain }}",
            "urlScheme": "http",
            "disableIstioVirtualHost": True,
            "disableIngressCreation": True,
        },
        "storageInitializer": {
            "image": STORAGE_INITIALIZER_IMAGE,
            "cpuRequest": "100m",
            "cpuLimit": "1",
            "memoryRequest": "100Mi",
            "memoryLimit": "1Gi",
        },
        # A name of Secret keys that pods read is a contract with storage-config; access keys of a Secret annotated for S3.
        "credentials": {
            "storageSpecSecretName": "storage-config",
            "storageSecretNameAnnotation": f"{SERVING}/storageSecretName",
            "s3": {"s3AccessKeyIDName": "AWS_ACCESS_KEY_ID", "s3SecretAccessKeyName": "AWS_SECRET_ACCESS_KEY"},
            "gcs": {"gcsCredentialFileName": "gcloud-application-credentials.json"},
        },
        # The pod webhook reads the quantities even for pods that get neither.
        "agent": {
            "image": "kserve/agent:v0.20.0",
            "cpuRequest": "100m",
            "cpuLimit": "1",
            "memoryRequest": "100Mi",
            "memoryLimit": "1Gi",
        },
        "logger": {
            "image": "kserve/agent:v0.20.0",
            "defaultUrl": "http://default-broker",
            "cpuRequest": "100m",
            "cpuLimit": "1",
            "memoryRequest": "100Mi",
            "memoryLimit": "1Gi",
        },
        "batcher": {
            "image": "kserve/agent:v0.20.0",
            "cpuRequest": "1",
            "cpuLimit": "1",
            "memoryRequest": "1Gi",
            "memoryLimit": "1Gi",
        },
        "metricsAggregator": {"enableMetricAggregation": "false", "enablePrometheusScraping": "false"},
        "service": {"serviceClusterIPNone": False},
        "security": {"autoMountServiceAccountToken": True},
        "localModel": {"enabled": False},
    }
    return {name: json.dumps(values, indent=2) for name, values in sections.items()}


def objects(home: LocalHome, cluster: ClusterInfo) -> list[dict[str, Any]]:
    """What the cluster holds before anybody's stack comes: the storage class, KServe's namespace, configuration and webhooks."""
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": STORAGE_PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        },
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"control-plane": "kserve-controller-manager"}},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG_MAP, "namespace": NAMESPACE},
            "data": inferenceservice_config(),
        },
        *_webhooks(home, cluster),
    ]


def _webhooks(home: LocalHome, cluster: ClusterInfo) -> list[dict[str, Any]]:
    authority = base64.b64encode((home.pki / "ca.crt").read_bytes()).decode()

    def webhook(
        name: str, path: str, group: str, version: str, resource: str, operations: list[str], **more: Any
    ) -> dict[str, Any]:
        return {
            "name": f"{name}.mistral-on-l4.local",
            "clientConfig": {
                "url": f"https://127.0.0.1:{cluster.ports['kserve-webhook']}/{path}",
                "caBundle": authority,
            },
            "rules": [
                {"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": operations, "scope": "*"}
            ],
            "admissionReviewVersions": ["v1", "v1beta1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 10,
            **more,
        }

    def validator(version: str, resource: str, kind: str, operations: list[str]) -> dict[str, Any]:
        path = f"validate-serving-kserve-io-{version}-{kind}"
        return webhook(kind, path, SERVING, version, resource, operations)

    write = ["CREATE", "UPDATE"]
    pods_of_services = {
        "objectSelector": {"matchExpressions": [{"key": f"{SERVING}/inferenceservice", "operator": "Exists"}]},
        "namespaceSelector": {"matchExpressions": [{"key": "control-plane", "operator": "DoesNotExist"}]},
        "reinvocationPolicy": "IfNeeded",
    }
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "kserve"},
            "webhooks": [
                webhook(
                    "inferenceservice-defaults",
                    "mutate-serving-kserve-io-v1beta1-inferenceservice",
                    SERVING,
                    "v1beta1",
                    "inferenceservices",
                    write,
                ),
                webhook("pods", "mutate-pods", "", "v1", "pods", ["CREATE"], **pods_of_services),
            ],
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "kserve"},
            "webhooks": [
                validator("v1beta1", "inferenceservices", "inferenceservice", [*write, "DELETE"]),
                validator("v1alpha1", "trainedmodels", "trainedmodel", [*write, "DELETE"]),
                validator("v1alpha1", "inferencegraphs", "inferencegraph", [*write, "DELETE"]),
                validator("v1alpha1", "servingruntimes", "servingruntime", write),
                validator("v1alpha1", "clusterservingruntimes", "clusterservingruntime", write),
            ],
        },
    ]


def ensure_objects(home: LocalHome, cluster: ClusterInfo, definitions: Path, client: KubeClient) -> None:
    """Brings the cluster's own objects to what they should be, and returns once KServe's kinds can be used.

    What was applied is remembered in a ConfigMap by its digest, so that a start of an unchanged cluster writes nothing.
    Raises ObjectsFailed.
    """
    wanted = objects(home, cluster)
    digest = crds.contents_digest(definitions, wanted)
    try:
        if _applied(client) != digest:
            for file in sorted(definitions.glob("*.json")):
                _put_definition(client, json.loads(file.read_text()))
            for item in wanted:
                _apply(client, item)
        _await_kinds(client, definitions)
        record = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": APPLIED, "namespace": NAMESPACE},
            "data": {"digest": digest},
        }
        if _applied(client) != digest:
            client.apply(record, FIELD_MANAGER, force=True)
    except ApiError as error:
        raise ObjectsFailed(f"the cluster's own objects could not be written: {error}") from None


def _applied(client: KubeClient) -> str | None:
    try:
        digest = client.get("v1", "ConfigMap", APPLIED, NAMESPACE).get("data", {}).get("digest")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return str(digest)


def _apply(client: KubeClient, item: dict[str, Any]) -> None:
    try:
        client.apply(item, FIELD_MANAGER, force=True)
    except ApiError as error:
        # A storage class' fields are fixed once it exists; ours are no others than before unless somebody replaced it.
        if item["kind"] == "StorageClass" and error.status == 422:
            client.delete(item["apiVersion"], item["kind"], item["metadata"]["name"])
            client.apply(item, FIELD_MANAGER, force=True)
            return
        raise


def _put_definition(client: KubeClient, definition: dict[str, Any]) -> None:
    """Creates or replaces a definition. Server-side apply would keep owners of its ten thousands of fields."""
    name = definition["metadata"]["name"]
    try:
        client.create(definition)
        return
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    present = client.get(definition["apiVersion"], definition["kind"], name)
    definition["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"]
    client.replace(definition)


def _await_kinds(client: KubeClient, definitions: Path) -> None:
    """Established is not enough: the controller ends with "no matches for kind" until discovery lists its kinds."""
    deadline = time.monotonic() + ESTABLISHED_SECONDS
    for file in sorted(definitions.glob("*.json")):
        spec = json.loads(file.read_text())["spec"]
        versions = [version["name"] for version in spec["versions"] if version["served"]]
        for version in versions:
            while True:
                try:
                    client.resource_type(f"{spec['group']}/{version}", spec["names"]["kind"])
                    break
                except UnknownKind:
                    if time.monotonic() > deadline:
                        kind = spec["names"]["kind"]
                        raise ObjectsFailed(
                            f"the API server does not serve {kind} ({spec['group']}/{version}) {ESTABLISHED_SECONDS:.0f} s "
                            f"after its definition was written: kubectl describe crd {file.stem}"
                        ) from None
                    time.sleep(0.05)


def manager(home: LocalHome, cluster: ClusterInfo) -> Component:
    """The controller. It takes its webhook certificate from a fixed place below the temporary folder."""
    temporary = home.run / "kserve"
    certificates = temporary / "k8s-webhook-server" / "serving-certs"
    for source, target in (("webhook.crt", "tls.crt"), ("webhook.key", "tls.key")):
        data = (home.pki / source).read_bytes()
        if not (certificates / target).exists() or (certificates / target).read_bytes() != data:
            write_whole(certificates / target, data)
    ports = cluster.ports
    here = [f"127.0.0.1:{ports[name]}" for name in ("kserve-webhook", "kserve-health", "kserve-metrics")]
    # Its webhook server listens on every address and cannot be told otherwise, so it gets a network of its own.
    command = (
        sys.executable,
        "-S",
        "-m",
        "embedded.confined",
        *(f"--listen={address}" for address in here),
        f"--reach=127.0.0.1:{cluster.api_server_port}",
        "--",
        cluster.tools["kserve-manager"],
        f"--metrics-addr=127.0.0.1:{ports['kserve-metrics']}",
        f"--health-probe-addr=127.0.0.1:{ports['kserve-health']}",
        f"--webhook-port={ports['kserve-webhook']}",
        "--leader-elect=false",
        "--zap-log-level=info",
    )
    env = {"TMPDIR": str(temporary), "KUBECONFIG": str(home.kubeconfig), "POD_NAMESPACE": NAMESPACE}
    # Its ready check connects to the webhooks' own port.
    return Component("kserve-manager", command, lambda: http_ok(ports["kserve-health"], "/readyz"), START_SECONDS, env, CHECKOUT)


def remove_certificates(home: LocalHome) -> None:
    shutil.rmtree(home.run / "kserve", ignore_errors=True)
