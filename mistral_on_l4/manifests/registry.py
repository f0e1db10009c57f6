"""The model registry's server, its internal Service and who may reach it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mistral_on_l4.manifests.metadata import labels, manifest, metadata, selector
from mistral_on_l4.manifests.security import PodUserIds, container_security, pod_security

PORT = 8080
API = "/api/model_registry/v1alpha3"
# Of the user "nonroot" in the server's distroless image.
_UID = 65532


def service_name(registry: str) -> str:
    return f"{registry}-internal"


def url(registry: str, namespace: str) -> str:
    return f"http://{service_name(registry)}.{namespace}.svc:{PORT}"


def service(registry: str, namespace: str, pods: Mapping[str, str] | None = None) -> dict[str, Any]:
    """pods: labels of the server's, where they are not the stack's own."""
    spec = {
        "selector": dict(pods or selector(registry, "model-registry")),
        "ports": [{"name": "http-api", "port": PORT, "targetPort": PORT if pods else "http-api"}],
    }
    meta = metadata(service_name(registry), namespace, labels(registry, "model-registry"))
    return manifest("v1", "Service", meta, spec=spec)


def deployment(
    registry: str,
    namespace: str,
    image: str,
    env: Sequence[Mapping[str, Any]],
    data_claim: Any = None,
    pull_secret: str | None = None,
    user_ids: PodUserIds = "fixed",
) -> dict[str, Any]:
    """`env` says where the data are; `data_claim` is mounted at /data when the server keeps a file."""
    tags = labels(registry, "model-registry")
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]
    if data_claim is not None:
        mounts.append({"name": "data", "mountPath": "/data"})
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": data_claim}})

    def probe(path: str, **timing: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": "http-api"}, "timeoutSeconds": 5, **timing}

    container = {
        "name": "rest",
        "image": image,
        "command": ["/model-registry"],
        "args": [
            "proxy",
            "--hostname=0.0.0.0",
            f"--port={PORT}",
            "--datastore-type=embedmd",
            "--embedmd-database-type=postgres",
        ],
        "env": [dict(entry) for entry in env],
        "ports": [{"name": "http-api", "containerPort": PORT}],
        # The server listens at once and answers 503 until its database is migrated, which can take minutes on a cold volume.
        "startupProbe": probe("/readyz/isDirty", periodSeconds=1, failureThreshold=300),
        "readinessProbe": probe("/readyz/health", periodSeconds=5, failureThreshold=3),
        "livenessProbe": probe("/readyz/isDirty", periodSeconds=15, failureThreshold=4),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "securityContext": container_security(user_ids, {"runAsUser": _UID}, read_only=True),
        "volumeMounts": mounts,
    }
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "securityContext": pod_security(user_ids, {"runAsUser": _UID, "runAsGroup": _UID, "fsGroup": _UID}),
        "containers": [container],
        "volumes": volumes,
    }
    if pull_secret:
        pod["imagePullSecrets"] = [{"name": pull_secret}]
    spec = {
        "replicas": 1,
        # A ReadWriteOnce volume cannot follow a rolling update to another node.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": selector(registry, "model-registry")},
        "template": {"metadata": {"labels": tags}, "spec": pod},
    }
    return manifest("apps/v1", "Deployment", metadata(registry, namespace, tags), spec=spec)


def network_policy(
    registry: str, namespace: str, client_namespaces: Sequence[str], pods: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Registry pods are reached on the API's port, from their own namespace and the named ones. pods: as for service()."""
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in client_namespaces]
    spec = {
        "podSelector": {"matchLabels": dict(pods or selector(registry, "model-registry"))},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}, *peers], "ports": [{"protocol": "TCP", "port": PORT}]}],
    }
    meta = metadata(f"{registry}-internal-access", namespace)
    return manifest("networking.k8s.io/v1", "NetworkPolicy", meta, spec=spec)
