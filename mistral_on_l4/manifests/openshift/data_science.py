"""Objects of OpenShift AI: its components, hardware profiles, the store as a connection, the model registry, and what makes an
InferenceService one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mistral_on_l4.config.names import GPU_RESOURCE, GPU_TOLERATION, POOL_LABEL, STACK_LABEL
from mistral_on_l4.manifests import postgres
from mistral_on_l4.manifests.metadata import MANAGER_LABELS, manifest, metadata
from mistral_on_l4.manifests.openshift import names

# From the first components to the last pods of OpenShift AI.
READY_SECONDS = 1800
# A long answer outlasts the router's default of 30 seconds.
ROUTE_TIMEOUT = "600s"
# What the operator's pods of a registry carry, beside the registry's name as `app`.
REGISTRY_COMPONENT = "model-registry"
RBAC_PROXY_PORT = 8443


def wanted_components(registries_namespace: str) -> dict[str, Any]:
    """What the stack needs of the DataScienceCluster, and nothing else of it."""
    return {
        "kserve": {"managementState": "Managed"},
        "modelregistry": {"managementState": "Managed", "registriesNamespace": registries_namespace},
    }


def data_science_cluster(registries_namespace: str, stack: str | None) -> dict[str, Any]:
    """The whole object, or, without `stack`, the fields that are added to somebody else's."""
    spec: dict[str, Any] = {"components": wanted_components(registries_namespace)}
    if stack is not None:
        spec["components"] |= {"dashboard": {"managementState": "Managed"}}
    waits = {"pulumi.com/waitFor": "jsonpath={.status.phase}=Ready", "pulumi.com/timeoutSeconds": str(READY_SECONDS)}
    labels = {**MANAGER_LABELS, STACK_LABEL: stack} if stack is not None else {}
    meta: dict[str, Any] = {"name": names.DATA_SCIENCE_CLUSTER, "annotations": waits}
    if labels:
        meta["labels"] = labels
    return manifest(names.DATA_SCIENCE_CLUSTER_API, "DataScienceCluster", meta, spec=spec)


def profile_name(pool: str) -> str:
    return f"nvidia-{pool}"


@dataclass(frozen=True)
class PoolMachine:
    """What one machine of a pool has for pods."""

    gpus: int
    vcpus: int
    memory_gib: int


def hardware_profile(pool: str, stack: str, machine: PoolMachine) -> dict[str, Any]:
    """Of type Node: OpenShift AI puts node selector and toleration on the services that name it."""
    cpus, memory = max(1, machine.vcpus - 2), max(4, machine.memory_gib * 9 // 10)

    def identifier(name: str, title: str, kind: str, least: Any, most: Any, usual: Any) -> dict[str, Any]:
        counts = {"minCount": least, "maxCount": most, "defaultCount": usual}
        return {"identifier": name, "displayName": title, "resourceType": kind, **counts}

    spec = {
        "identifiers": [
            identifier("cpu", "CPU", "CPU", 1, cpus, max(1, cpus // 2)),
            identifier("memory", "Memory", "Memory", "4Gi", f"{memory}Gi", f"{max(4, memory // 2)}Gi"),
            identifier(GPU_RESOURCE, "NVIDIA GPU", "Accelerator", 1, machine.gpus, machine.gpus),
        ],
        "scheduling": {
            "type": "Node",
            "node": {"nodeSelector": {POOL_LABEL: pool}, "tolerations": [dict(GPU_TOLERATION)]},
        },
    }
    labels = {**MANAGER_LABELS, STACK_LABEL: stack, "app.opendatahub.io/hardwareprofile": "true"}
    annotations = {
        "opendatahub.io/display-name": f"NVIDIA GPUs of pool {pool}",
        "opendatahub.io/description": f"{machine.gpus} GPU on nodes of pool {pool}",
        "opendatahub.io/disabled": "false",
    }
    meta = metadata(profile_name(pool), names.APPLICATIONS_NAMESPACE, labels, annotations)
    return manifest(names.HARDWARE_PROFILE_API, "HardwareProfile", meta, spec=spec)


def connection_metadata(name: str, namespace: str) -> dict[str, Any]:
    """Of the Secret from which OpenShift AI writes the entry of its own name into storage-config."""
    labels = {**MANAGER_LABELS, "opendatahub.io/dashboard": "true", "opendatahub.io/managed": "true"}
    annotations = {
        # The first is what feeds `type` of the entry; the others are the dashboard's and the webhook's.
        "opendatahub.io/connection-type": "s3",
        "opendatahub.io/connection-type-ref": "s3",
        "opendatahub.io/connection-type-protocol": "s3",
        "openshift.io/display-name": "MinIO",
    }
    return metadata(name, namespace, labels, annotations)


def model_registry(registry: str, namespace: str, stack: str, secret: str) -> dict[str, Any]:
    """Served by the operator's own pods, behind a proxy that asks for a token. secret: with the database's `password`."""
    spec = {
        "grpc": {"port": 9090},
        "rest": {"port": 8080, "serviceRoute": "disabled"},
        "kubeRBACProxy": {"port": RBAC_PROXY_PORT, "routePort": 443, "serviceRoute": "enabled"},
        "postgres": {
            "host": f"{postgres.NAME}.{namespace}.svc.cluster.local",
            "port": postgres.PORT,
            "database": postgres.DATABASE,
            "username": postgres.USER,
            "sslMode": "disable",
            "passwordSecret": {"name": secret, "key": "password"},
        },
    }
    waits = {"pulumi.com/waitFor": "condition=Available", "pulumi.com/timeoutSeconds": "900"}
    meta = metadata(registry, namespace, {**MANAGER_LABELS, STACK_LABEL: stack}, waits)
    return manifest(names.MODEL_REGISTRY_API, "ModelRegistry", meta, spec=spec)


def registry_selector(registry: str) -> dict[str, str]:
    return {"app": registry, "component": REGISTRY_COMPONENT}


def service_labels(exposed: bool, queue: str | None) -> dict[str, str]:
    """Of an InferenceService: the dashboard shows it, and the model controller gives it a Route."""
    labels = {"opendatahub.io/dashboard": "true", "opendatahub.io/genai-asset": "true"}
    if exposed:
        labels[names.EXPOSED_LABEL] = "exposed"
    if queue:
        labels[names.QUEUE_LABEL] = queue
    return labels


def service_annotations(title: str, pool: str, connection: str, guarded: bool) -> dict[str, str]:
    return {
        "openshift.io/display-name": title,
        "opendatahub.io/model-type": "generative",
        "opendatahub.io/genai-use-case": "chat",
        names.PROFILE_ANNOTATION: profile_name(pool),
        names.PROFILE_NAMESPACE_ANNOTATION: names.APPLICATIONS_NAMESPACE,
        names.CONNECTIONS_ANNOTATION: connection,
        names.AUTH_ANNOTATION: "true" if guarded else "false",
        names.ROUTE_TIMEOUT_ANNOTATION: ROUTE_TIMEOUT,
    }


def runtime_marks(version: str) -> Mapping[str, Mapping[str, str]]:
    """Labels and annotations of the ServingRuntime by which the dashboard knows it."""
    return {
        "labels": {"opendatahub.io/dashboard": "true"},
        "annotations": {
            "openshift.io/display-name": f"vLLM {version} for Mistral on NVIDIA L4",
            "opendatahub.io/recommended-accelerators": f'["{GPU_RESOURCE}"]',
            "opendatahub.io/apiProtocol": "REST",
            "opendatahub.io/runtime-version": version,
            "opendatahub.io/serving-runtime-scope": "namespace",
        },
    }


def route_network_policy(service: str, namespace: str) -> dict[str, Any]:
    """Lets the router in, to the port of the proxy that asks for a token, and to no other."""
    router = {"namespaceSelector": {"matchLabels": {"network.openshift.io/policy-group": "ingress"}}}
    spec = {
        "podSelector": {"matchLabels": {"serving.kserve.io/inferenceservice": service}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [router], "ports": [{"protocol": "TCP", "port": RBAC_PROXY_PORT}]}],
    }
    return manifest("networking.k8s.io/v1", "NetworkPolicy", metadata(f"{service}-route", namespace), spec=spec)
