"""Rules for what must answer once the stack is up: the path and port that a probe asks, the name that a client asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pulumi_policy import Severity

from policies.pods import LONG_RUNNING, Container, environment_of
from policies.reading import UNKNOWN, at, items
from policies.rule import Resource, Stack, StackFinding, stack_rule
from policies.served import Served, ServedStack, is_vllm
from policies.workloads import ours

_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
# The Service that KServe makes of a predictor, as clients inside the cluster call it.
_PREDICTOR = re.compile(r"https?://([a-z0-9-]+)-predictor\.")


@dataclass(frozen=True)
class _Server:
    """What answers a container's probes.

    paths: those that tell its health without a token, empty if they are not known; ports: number by name, listens: the number
    that its arguments set; both None if unknown.
    """

    name: str = ""
    paths: tuple[str, ...] = ()
    ports: Mapping[str, Any] | None = None
    listens: int | None = None


# vLLM 0.11, entrypoints/openai/api_server.py: /ping is /health for SageMaker, and what lies below /v1 wants the key.
_VLLM = _Server("vLLM", ("/health", "/ping"))
# By the end of the image's name, which a mirror keeps.
_KNOWN = {
    "vllm/vllm-openai": _VLLM,
    # cmd/healthcheck-router.go of the release in mistral_on_l4/config/images.py.
    "minio/minio": _Server("MinIO", tuple(f"/minio/health/{what}" for what in ("live", "ready", "cluster", "cluster/read"))),
    # cmd/proxy.go of kubeflow/model-registry 0.3.
    "model-registry/server": _Server("the model registry", ("/readyz/isDirty", "/readyz/health")),
}


@stack_rule(
    "probes-ask-what-answers",
    why="A probe on a path or port where nobody answers keeps its pod from being ready or restarts it for ever, at a GPU's price.",
    fix="let the probe ask a health path of that server, on a port that the container names or the server's arguments set",
    severity=Severity.HIGH,
)
def probes_ask_what_answers(stack: Stack) -> Iterator[StackFinding]:
    engines = {served.urn: served for served in ServedStack(stack).services}
    for resource in stack.of(*LONG_RUNNING):
        pod = ours(resource)
        for container in pod.containers if pod else ():
            spec, server = _probed(resource, container, engines.get(resource.urn))
            for probe in _PROBES:
                for what in _unanswered(at(spec, probe), server):
                    yield f"{resource.label}: {probe} of container {container.name} asks {what}", resource.urn


def _probed(resource: Resource, container: Container, engine: Served | None) -> tuple[Mapping[str, Any], _Server]:
    """A container with its probes, and the server that they ask."""
    if container.whole:
        return container.spec, replace(_server_of(at(container.spec, "image")), ports=_ports(container.spec))
    server = _VLLM if is_vllm(resource) else _Server()
    if engine is None or engine.container is None:
        return container.spec, server
    return engine.container, replace(server, ports=_ports(engine.container), listens=engine.port if server is _VLLM else None)


def _server_of(image: Any) -> _Server:
    if not isinstance(image, str):
        return _Server()
    registry, _, last = image.partition("@")[0].rpartition("/")
    name = f"/{registry}/{last.partition(':')[0]}"
    return next((server for ending, server in _KNOWN.items() if name.endswith(f"/{ending}")), _Server())


def _ports(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    declared = items(container, "ports")
    if at(container, "ports") is UNKNOWN or any(at(port, "name") is UNKNOWN for port in declared):
        return None
    return {str(at(port, "name")): at(port, "containerPort") for port in declared if at(port, "name") is not None}


def _unanswered(probe: Any, server: _Server) -> Iterator[str]:
    for kind in ("httpGet", "tcpSocket"):
        port = at(probe, kind, "port")
        if isinstance(port, str) and not port.isdigit() and server.ports is not None:
            if port not in server.ports:
                yield f"port {port!r}, and the container names {', '.join(server.ports) or 'none'}"
            port = server.ports.get(port)
        if isinstance(port, (int, str)) and str(port).isdigit() and server.listens not in (None, int(port)):
            yield f"port {port}, and {server.name} listens on {server.listens}"
    asked = at(probe, "httpGet", "path")
    if at(probe, "httpGet") is None or asked is UNKNOWN or not server.paths:
        return
    path = "/" + str(asked or "").partition("?")[0].removeprefix("/")
    if path not in server.paths:
        yield f"{path}, and {server.name} tells its health at {' or '.join(server.paths)}"


@stack_rule(
    "services-answer-to-their-name",
    why="vLLM answers 404 to a name that it was not given, and the check Job and `demo chat` ask every service by its own name.",
    fix="give the runtime --served-model-name={{.Name}} (more names may follow it), and let clients ask for one of those",
    severity=Severity.HIGH,
)
def services_answer_to_their_name(stack: Stack) -> Iterator[StackFinding]:
    vllm = {service.urn for service in stack.of("InferenceService") if is_vllm(service)}
    known = {served.name: served for served in ServedStack(stack).services if served.urn in vllm and served.names is not None}
    for name, served in known.items():
        if name not in (served.names or ()):
            yield f"InferenceService {name}: answers to {_called(served)} and not to its own name", served.urn
    for job in stack.of("Job"):
        told = dict(environment_of(job))
        address, model = told.get("SERVICE_URL"), told.get("SERVICE_NAME")
        if not isinstance(address, str) or not isinstance(model, str) or not (found := _PREDICTOR.match(address)):
            continue
        asked = known.get(found[1])
        if asked is not None and model not in (asked.name, *(asked.names or ())):
            yield f"{job.label}: asks {asked.name} for model {model!r}, which answers to {_called(asked)}", job.urn


def _called(served: Served) -> str:
    return " and ".join(map(repr, served.names or ())) or "the path of its weights"


POLICIES = (probes_ask_what_answers, services_answer_to_their_name)
