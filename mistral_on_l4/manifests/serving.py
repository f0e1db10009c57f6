"""ServingRuntime and InferenceService of vLLM on KServe in Standard (raw Deployment) mode."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mistral_on_l4.config.names import CLIENT_LABEL
from mistral_on_l4.manifests.jobs import from_secret, value
from mistral_on_l4.manifests.metadata import (
    KEYS_ANNOTATION,
    MANAGER_LABELS,
    PREDICTED_TPOT_ANNOTATION,
    PREDICTED_TTFT_ANNOTATION,
    REVISION_ANNOTATION,
    SKIP_AWAIT,
    WEIGHTS_ANNOTATION,
    fingerprint,
    manifest,
    metadata,
)
from mistral_on_l4.manifests.security import PodUserIds, container_security, pod_security

API_VERSION = "serving.kserve.io/v1beta1"
RUNTIME_API_VERSION = "serving.kserve.io/v1alpha1"
RUNTIME = "vllm-mistral-runtime"
# As KServe calls a model's own container.
CONTAINER = "kserve-container"
PORT = 8080
# Of the Service that KServe makes for a predictor in Standard mode.
SERVICE_PORT = 80
API_KEY_SECRET = "vllm-api-key"
HOME = "/home/vllm"
_UID = 2000

# KServe keeps Ready=True while an update progresses (kserve#4626), and its observedGeneration is the Deployment's, so
# `condition=Ready` could pass too early or hang; these two read the status itself.
WAIT_FOR_READY = json.dumps(
    [
        'jsonpath={.status.conditions[?(@.type=="Ready")].status}=True',
        "jsonpath={.status.modelStatus.transitionStatus}=UpToDate",
    ]
)

# NCCL takes shared host memory from CUDA since 2.24, which fails between cards that do not reach each other's memory, such as the
# four L4 of a g6.12xlarge ("transport/shm.cc ... Cuda failure 217", NVIDIA/nccl#1838); vLLM before 0.11 turned it off itself.
_PEERLESS_ENV = {"NCCL_CUMEM_HOST_ENABLE": "0"}

# vLLM and what it calls write caches below the home folder; an arbitrary user has none, so each gets a place of its own.
_CACHE_ENV = {
    "HOME": HOME,
    "USER": "vllm",
    "LOGNAME": "vllm",
    "TMPDIR": "/tmp",
    "HF_HOME": f"{HOME}/hf",
    "XDG_CACHE_HOME": f"{HOME}/.cache",
    "VLLM_CACHE_ROOT": f"{HOME}/.cache/vllm",
    "VLLM_CONFIG_ROOT": f"{HOME}/.config/vllm",
    "TRITON_CACHE_DIR": f"{HOME}/.cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{HOME}/.cache/inductor",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Placement:
    """Where pods of a pool may run."""

    node_selector: Mapping[str, str]
    tolerations: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class ServiceSpec:
    """An InferenceService as the plan wants it.

    weights: what lies under storage_path, as repository@revision; args: vLLM's, after the runtime's own; requests, limits: of the
    model container; startup_seconds: how long the model may take to load before the pod is restarted; predicted_ttft_ms,
    predicted_tpot_ms: the plan's figures for one user; peerless: whether it runs on several GPUs that talk through the host's
    memory; key_mark: changes with the API key, an Output, None without a key; storage_key: name of the store's credentials; links:
    labels or annotations (by the platform) that tie the service to its registry entry, values may be Outputs; platform_labels,
    platform_annotations: by which the platform treats it as one of its own.
    """

    name: str
    namespace: str
    storage_path: str
    weights: str
    args: Sequence[str]
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    placement: Placement
    startup_seconds: int
    ready_seconds: int
    predicted_ttft_ms: float
    predicted_tpot_ms: float
    key_mark: Any
    peerless: bool = False
    deployment_mode: str = "Standard"
    storage_key: str = "minio"
    link_labels: Mapping[str, Any] = field(default_factory=dict)
    link_annotations: Mapping[str, Any] = field(default_factory=dict)
    platform_labels: Mapping[str, str] = field(default_factory=dict)
    platform_annotations: Mapping[str, str] = field(default_factory=dict)
    pull_secret: str | None = None
    user_ids: PodUserIds = "fixed"


def serving_runtime(
    namespace: str,
    image: str,
    shm_size: str,
    user_ids: PodUserIds = "fixed",
    marks: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """The runtime that all services share; what differs between them is in their own arguments. marks: labels and annotations by
    which the platform knows it.
    """
    container = {
        "name": CONTAINER,
        "image": image,
        "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "args": [f"--port={PORT}", "--model=/mnt/models", "--served-model-name={{.Name}}"],
        "env": [value(name, text) for name, text in _CACHE_ENV.items()],
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        # vLLM writes no message of its own: why it ended is at the end of its log, and status, check and `up` repeat it from here.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # The root filesystem stays writable: with a read-only one NVIDIA's CDI hook fails and the container is never made.
        "securityContext": container_security(user_ids, {"runAsUser": _UID, "runAsGroup": 0}),
        "volumeMounts": [
            {"name": "home", "mountPath": HOME},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    spec = {
        "annotations": {"prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"},
        "multiModel": False,
        "supportedModelFormats": [{"name": "vLLM", "autoSelect": False}],
        "containers": [container],
        "volumes": [
            {"name": "home", "emptyDir": {"sizeLimit": "20Gi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}},
            # Tensor-parallel workers talk through shared memory; the container default of 64 MiB ends in a bus error.
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm_size}},
        ],
    }
    own = marks or {}
    meta = metadata(RUNTIME, namespace, {**MANAGER_LABELS, **own.get("labels", {})}, own.get("annotations"))
    return manifest(RUNTIME_API_VERSION, "ServingRuntime", meta, spec=spec)


def inference_service(spec: ServiceSpec, runtime: Mapping[str, Any]) -> dict[str, Any]:
    """The InferenceService on a ServingRuntime. Its revision annotation reaches the pods, and changes whenever they must; the
    links, which only `pulumi up` knows, are not in it yet.
    """

    def probe(**timing: int) -> dict[str, Any]:
        return {"httpGet": {"path": "/health", "port": PORT, "scheme": "HTTP"}, "timeoutSeconds": 5, **timing}

    model: dict[str, Any] = {
        "modelFormat": {"name": "vLLM"},
        "runtime": RUNTIME,
        # The path ends with "/": S3 lists by plain prefix.
        "storage": {"key": spec.storage_key, "path": spec.storage_path},
        "args": list(spec.args),
        "resources": {"requests": dict(spec.requests), "limits": dict(spec.limits)},
        "startupProbe": probe(periodSeconds=2, failureThreshold=max(1, spec.startup_seconds // 2)),
        "readinessProbe": probe(periodSeconds=5, failureThreshold=3),
        "livenessProbe": probe(periodSeconds=15, failureThreshold=4),
    }
    env = [] if spec.key_mark is None else [from_secret("VLLM_API_KEY", API_KEY_SECRET, "api-key")]
    if spec.peerless:
        env += [value(name, text) for name, text in _PEERLESS_ENV.items()]
    if env:
        model["env"] = env
    predictor: dict[str, Any] = {
        "minReplicas": 1,
        "maxReplicas": 1,
        # There is no spare GPU for a second pod beside the first.
        "deploymentStrategy": {"type": "Recreate"},
        "nodeSelector": dict(spec.placement.node_selector),
        "tolerations": [dict(toleration) for toleration in spec.placement.tolerations],
        "securityContext": pod_security(spec.user_ids, {"fsGroup": _UID}),
        "model": model,
    }
    if spec.pull_secret:
        predictor["imagePullSecrets"] = [{"name": spec.pull_secret}]
    body = {"predictor": predictor}
    annotations: dict[str, Any] = {
        "serving.kserve.io/deploymentMode": spec.deployment_mode,
        # An autoscaler by CPU would scale GPU pods that are only loading.
        "serving.kserve.io/autoscalerClass": "none",
        PREDICTED_TTFT_ANNOTATION: f"{spec.predicted_ttft_ms:.0f}",
        PREDICTED_TPOT_ANNOTATION: f"{spec.predicted_tpot_ms:.0f}",
        "pulumi.com/waitFor": WAIT_FOR_READY,
        "pulumi.com/timeoutSeconds": str(spec.ready_seconds),
        WEIGHTS_ANNOTATION: spec.weights,
        **spec.platform_annotations,
    }
    # KServe copies annotations to the pods, so a changed one makes new pods as much as a changed argument does.
    revision = fingerprint(body, annotations, runtime)
    annotations |= {REVISION_ANNOTATION: revision, **spec.link_annotations}
    if spec.key_mark is not None:
        annotations[KEYS_ANNOTATION] = spec.key_mark
    tags = {**MANAGER_LABELS, **spec.platform_labels, **spec.link_labels}
    return manifest(API_VERSION, "InferenceService", metadata(spec.name, spec.namespace, tags, annotations), spec=body)


def revision_of(service: Mapping[str, Any]) -> Any:
    """The revision that inference_service() gave it, or what was put in its place."""
    return service["metadata"]["annotations"][REVISION_ANNOTATION]


def client_service_name(service: str, kind: Literal["predictor", "internal"]) -> str:
    """Of the Service that clients inside the cluster call, on port 80: KServe's own, or client_service()'s."""
    return f"{service}-{kind}"


def client_service(service: str, namespace: str) -> dict[str, Any]:
    """For a platform whose KServe makes a headless Service, or one whose port is its proxy's. It is ready when the pods are."""
    spec = {
        "selector": {"serving.kserve.io/inferenceservice": service, "component": "predictor"},
        "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": PORT}],
    }
    meta = metadata(client_service_name(service, "internal"), namespace, annotations=SKIP_AWAIT)
    return manifest("v1", "Service", meta, spec=spec)


def network_policy(services: Sequence[str], namespace: str) -> dict[str, Any]:
    """Only pods that say they are clients reach the services: vLLM's key guards /v1 alone, /invocations stays open."""
    spec = {
        "podSelector": {
            "matchExpressions": [{"key": "serving.kserve.io/inferenceservice", "operator": "In", "values": list(services)}]
        },
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {CLIENT_LABEL: "true"}}}],
                "ports": [{"protocol": "TCP", "port": PORT}],
            }
        ],
    }
    return manifest("networking.k8s.io/v1", "NetworkPolicy", metadata("inference-clients", namespace), spec=spec)
