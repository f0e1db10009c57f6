"""What a running stack looks like from outside: its services, why one is not ready, and how to reach them.

Reads the Kubernetes API only, so it works on every platform for anyone who may read the stack's namespaces.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mistral_on_l4.cluster.client import ApiError, KubeClient, Object
from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.manifests.metadata import PREDICTED_TPOT_ANNOTATION, PREDICTED_TTFT_ANNOTATION
from mistral_on_l4.manifests.serving import API_KEY_SECRET, API_VERSION, CONTAINER

if TYPE_CHECKING:
    from mistral_on_l4.config.settings import Settings

# What ties a service to its entry in the registry.
_LINK = "modelregistry.opendatahub.io"
# Waiting reasons of a container that say it will not start by itself.
_TROUBLE = {
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "NoLocalProgram",
    "InvalidImageName",
}


@dataclass(frozen=True)
class ServiceState:
    """One InferenceService as it is.

    gpus: limit of its newest pod; predicted_ttft_ms, predicted_tpot_ms: of the plan, None without a GPU, for which the plan is;
    problem: why it is not ready, or None; ours: whether a stack of this project has made it; conditions: KServe's, type -> status;
    model_id, version_id: of its entry in the model registry, None without a link; image: of its newest pod's model container.
    """

    name: str
    ready: bool
    gpus: int
    pod: str | None
    node: str | None
    restarts: int
    predicted_ttft_ms: float | None
    predicted_tpot_ms: float | None
    problem: str | None
    ours: bool = True
    conditions: Mapping[str, str] = field(default_factory=dict)
    model_id: str | None = None
    version_id: str | None = None
    image: str | None = None


def services(client: KubeClient, namespace: str) -> list[ServiceState]:
    """Every InferenceService of a namespace, by name. Raises ApiError; a cluster without KServe has none."""
    try:
        items = client.list(API_VERSION, "InferenceService", namespace)["items"]
    except ApiError as error:
        if error.status == 404:
            return []
        raise
    pods = client.list("v1", "Pod", namespace, label_selector="serving.kserve.io/inferenceservice")["items"]
    return [_state(item, pods) for item in sorted(items, key=lambda item: str(item["metadata"]["name"]))]


def in_stack_order(states: Sequence[ServiceState], settings: Settings) -> list[ServiceState]:
    """As the configuration lists them, so that the same service stands first everywhere; others after."""
    order = {service.name: index for index, service in enumerate(settings.services)}
    return sorted(states, key=lambda state: (order.get(state.name, len(order)), state.name))


def _state(item: Object, pods: list[Object]) -> ServiceState:
    meta = item["metadata"]
    annotations = meta.get("annotations") or {}
    # Labels or annotations, by platform.
    link = {**annotations, **(meta.get("labels") or {})}
    mine = [pod for pod in pods if pod["metadata"]["labels"].get("serving.kserve.io/inferenceservice") == meta["name"]]
    pod = max(mine, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    ready = condition(item, "Ready") == "True"
    gpus = _gpus(pod) if pod else 0
    return ServiceState(
        name=meta["name"],
        ready=ready,
        gpus=gpus,
        pod=pod["metadata"]["name"] if pod else None,
        node=pod["spec"].get("nodeName") if pod else None,
        restarts=sum(status.get("restartCount", 0) for status in _statuses(pod)) if pod else 0,
        predicted_ttft_ms=_number(annotations.get(PREDICTED_TTFT_ANNOTATION)) if gpus else None,
        predicted_tpot_ms=_number(annotations.get(PREDICTED_TPOT_ANNOTATION)) if gpus else None,
        problem=None if ready else (pod_problem(pod) if pod else None) or _service_problem(item),
        ours=(meta.get("labels") or {}).get("app.kubernetes.io/part-of") == PROJECT,
        conditions={entry["type"]: entry["status"] for entry in (item.get("status") or {}).get("conditions") or []},
        model_id=link.get(f"{_LINK}/registered-model-id"),
        version_id=link.get(f"{_LINK}/model-version-id"),
        image=_image(pod) if pod else None,
    )


def condition(item: Mapping[str, Any], kind: str) -> str | None:
    """Status ("True", "False", "Unknown") of a condition of an object, or None if it has none of that type."""
    for entry in (item.get("status") or {}).get("conditions") or []:
        if entry["type"] == kind:
            return str(entry["status"])
    return None


def pod_problem(pod: Mapping[str, Any]) -> str | None:
    """Why a pod does not serve, in one line: cannot be placed, cannot start, keeps failing, or is still loading."""
    for entry in (pod.get("status") or {}).get("conditions") or []:
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            return f"cannot be placed: {entry.get('message', entry.get('reason', ''))}"
    for status in _statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _TROUBLE:
            ended = (status.get("lastState") or {}).get("terminated") or {}
            last = _last_line(ended.get("message"))
            return f"container {status['name']}: {waiting['reason']}" + (
                f": {last}" if last else f" ({waiting.get('message', '')})"
            )
        ended = (status.get("state") or {}).get("terminated") or {}
        if ended and ended.get("exitCode"):
            return f"container {status['name']} ended with exit code {ended['exitCode']}: {_last_line(ended.get('message'))}"
    for status in _statuses(pod):
        if not status.get("ready") and (status.get("state") or {}).get("running"):
            return f"container {status['name']} is running and not ready yet"
    return None


def _service_problem(item: Mapping[str, Any]) -> str:
    status = item.get("status") or {}
    failure = (status.get("modelStatus") or {}).get("lastFailureInfo") or {}
    if failure.get("message"):
        return f"{failure.get('reason', 'failed')}: {failure['message']}"
    for entry in status.get("conditions") or []:
        if entry["status"] != "True" and entry.get("message"):
            return f"{entry['type']}: {entry['message']}"
    return "its Deployment is not available yet"


def _statuses(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _image(pod: Mapping[str, Any]) -> str | None:
    return next((each.get("image") for each in pod["spec"]["containers"] if each.get("name") == CONTAINER), None)


def _gpus(pod: Mapping[str, Any]) -> int:
    return sum(
        int((container.get("resources") or {}).get("limits", {}).get("nvidia.com/gpu", 0))
        for container in pod["spec"]["containers"]
    )


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _last_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def api_key(client: KubeClient, namespace: str) -> str | None:
    """The key that clients of the services send, or None where the stack asks for none."""
    try:
        secret = client.get("v1", "Secret", API_KEY_SECRET, namespace)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return base64.b64decode(secret["data"]["api-key"]).decode()


def service_address(client: KubeClient, name: str, namespace: str, port_shift: int = 0) -> str:
    """Base URL of a Service by its cluster address, which on the local cluster is an address of this machine.

    port_shift is added to ports below 1024 where they could not be bound without root.
    """
    service = client.get("v1", "Service", name, namespace)
    port = int(service["spec"]["ports"][0]["port"])
    return f"http://{service['spec']['clusterIP']}:{port + port_shift if port < 1024 else port}"
