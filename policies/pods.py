"""Pods and containers inside the kinds that carry them, KServe's among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policies.reading import UNKNOWN, at, items, mapping
from policies.rule import Resource

_TEMPLATED = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")
_RUNTIMES = ("ServingRuntime", "ClusterServingRuntime")
# What the field says in full lies in two objects of KServe: a runtime brings the container, a service places and sizes it.
LONG_RUNNING = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "InferenceService")
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Container:
    """A container of a pod. whole: False where another object brings the rest of it, so that what is missing proves nothing."""

    name: str
    spec: Mapping[str, Any]
    init: bool = False
    whole: bool = True


@dataclass(frozen=True)
class Pod:
    """A pod as an object declares it. `spec` holds the pod's own fields (securityContext, nodeSelector, volumes...)."""

    spec: Mapping[str, Any]
    containers: tuple[Container, ...]
    whole: bool = True

    @property
    def gpus(self) -> int:
        """GPUs that its containers ask for together."""
        return sum(gpus(container.spec) for container in self.containers)


def gpus(container: Mapping[str, Any]) -> int:
    """GPUs that a container asks for; 0 when that is unknown."""
    found = at(container, "resources", "limits", GPU) or at(container, "resources", "requests", GPU)
    return int(found) if isinstance(found, (int, str)) and str(found).isdigit() else 0


def pod_of(resource: Resource) -> Pod | None:
    """The pod that a Kubernetes object makes; None if it makes none, or if nothing of it is known yet."""
    if not resource.is_kubernetes:
        return None
    kind, props = resource.kind, resource.props
    if kind in _TEMPLATED:
        return _pod(mapping(props, "spec", "template", "spec"))
    if kind == "CronJob":
        return _pod(mapping(props, "spec", "jobTemplate", "spec", "template", "spec"))
    if kind == "Pod":
        return _pod(mapping(props, "spec"))
    if kind in _RUNTIMES:
        spec = mapping(props, "spec")
        return None if at(props, "spec") is UNKNOWN else Pod(spec, tuple(_containers(spec)), whole=False)
    if kind == "InferenceService":
        predictor = mapping(props, "spec", "predictor")
        if at(props, "spec", "predictor") is UNKNOWN:
            return None
        containers = list(_containers(predictor))
        if model := mapping(predictor, "model"):
            containers.append(Container("kserve-container", model, whole=False))
        return Pod(predictor, tuple(containers), whole=False)
    return None


def environment_of(resource: Resource) -> Iterator[tuple[str, Any]]:
    """(name, value) of what the containers of an object are told in plain text, UNKNOWN among the values."""
    pod = pod_of(resource)
    for container in pod.containers if pod else ():
        for entry in items(container.spec, "env"):
            if (name := at(entry, "name")) is not None and at(entry, "value") is not None:
                yield str(name), at(entry, "value")


def is_runtime(resource: Resource) -> bool:
    return resource.kind in _RUNTIMES


def _pod(spec: Mapping[str, Any]) -> Pod | None:
    return Pod(spec, tuple(_containers(spec))) if spec else None


def _containers(spec: Mapping[str, Any]) -> Iterator[Container]:
    for field, init in (("initContainers", True), ("containers", False)):
        for container in items(spec, field):
            if isinstance(container, Mapping):
                yield Container(str(container.get("name", "?")), container, init)


def effective(pod: Pod, container: Container, field: str) -> Any:
    """A security setting as the container gets it: its own, else the pod's; None if neither says it."""
    own = at(container.spec, "securityContext", field)
    if own is not None:
        return own
    return at(pod.spec, "securityContext", field)


def known(value: Any) -> bool:
    return value is not UNKNOWN
