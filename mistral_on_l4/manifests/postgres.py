"""PostgreSQL for the model registry: one server, one volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mistral_on_l4.manifests.jobs import from_secret, value
from mistral_on_l4.manifests.metadata import SKIP_AWAIT, labels, manifest, metadata, selector
from mistral_on_l4.manifests.security import PodUserIds, container_security, pod_security
from mistral_on_l4.manifests.volumes import single_server

NAME = "model-registry-db"
PORT = 5432
USER = "model_registry"
DATABASE = "model_registry"
_TAGS = labels(NAME, "database")
_SELECTOR = selector(NAME, "database")
# Uid and gid of postgres in the image's Alpine variant.
_UID = 70


def service(namespace: str) -> dict[str, Any]:
    """It is ready when it has endpoints, and so waits for the pods that are declared after it: do not await it."""
    spec = {"selector": _SELECTOR, "ports": [{"name": "postgresql", "port": PORT}]}
    return manifest("v1", "Service", metadata(NAME, namespace, _TAGS, SKIP_AWAIT), spec=spec)


def network_policy(namespace: str, clients: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Only the registry's server talks to its database. clients: labels of its pods, where they are not the stack's own."""
    server = {"podSelector": {"matchLabels": dict(clients or {"app.kubernetes.io/component": "model-registry"})}}
    spec = {
        "podSelector": {"matchLabels": _SELECTOR},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [server], "ports": [{"protocol": "TCP", "port": PORT}]}],
    }
    return manifest("networking.k8s.io/v1", "NetworkPolicy", metadata(NAME, namespace, _TAGS), spec=spec)


def stateful_set(
    namespace: str,
    image: str,
    secret: str,
    claim: Any,
    pull_secret: str | None = None,
    user_ids: PodUserIds = "fixed",
) -> dict[str, Any]:
    """claim: name of the one that the database is on."""
    ready = {"exec": {"command": ["pg_isready", "-U", USER, "-d", DATABASE]}, "timeoutSeconds": 5}
    container = {
        "name": "postgres",
        "image": image,
        "env": [
            value("POSTGRES_USER", USER),
            value("POSTGRES_DB", DATABASE),
            from_secret("POSTGRES_PASSWORD", secret, "password"),
            # The mount's own folder holds lost+found, which initdb refuses.
            value("PGDATA", "/var/lib/postgresql/data/pgdata"),
        ],
        "ports": [{"name": "postgresql", "containerPort": PORT}],
        "startupProbe": {**ready, "periodSeconds": 2, "failureThreshold": 120},
        "readinessProbe": {**ready, "periodSeconds": 5},
        "livenessProbe": {**ready, "periodSeconds": 15, "failureThreshold": 4},
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "securityContext": container_security(user_ids, {"runAsUser": _UID}),
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/postgresql/data"},
            {"name": "run", "mountPath": "/var/run/postgresql"},
        ],
    }
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "securityContext": pod_security(user_ids, {"runAsUser": _UID, "runAsGroup": _UID, "fsGroup": _UID}),
        "containers": [container],
        "volumes": [{"name": "run", "emptyDir": {"sizeLimit": "16Mi"}}],
    }
    if pull_secret:
        pod["imagePullSecrets"] = [{"name": pull_secret}]
    return single_server(NAME, namespace, _TAGS, _SELECTOR, pod, claim)
