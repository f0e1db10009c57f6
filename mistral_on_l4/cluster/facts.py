"""What a running stack says of itself that the catalogue had to assume: docs/first-run.md, with this run's values.

Reads logs, events and nodes, and asks each service's pod for its GPUs. Nothing secret is read.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mistral_on_l4.cluster.client import ApiError, Object
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.config.names import POOL_LABEL

_EXEC_SECONDS = 30.0
_GPU = "name,driver_version,pcie.link.gen.current,pcie.link.width.current,memory.total"
# Of vLLM's log, what the plan predicts. Versions word some of it differently.
_ENGINE_LINES = re.compile(
    r"(Loading weights took .*|Model loading took .*|torch\.compile takes .*|init engine .*|GPU KV cache size: .*"
    r"|Maximum concurrency for .*|vLLM API server version .*)"
)
_PULLED = re.compile(r'Successfully pulled image "(?P<image>[^"]+)" in (?P<time>\S+).*?(?:Image size: (?P<bytes>\d+) bytes)?\.?$')


@dataclass(frozen=True)
class Fact:
    """what: is told; value: as this run has it, None where it says nothing; place: in the catalogue that takes it."""

    what: str
    value: str | None
    place: str


def facts(connection: Connection) -> Iterator[Fact]:
    """Raises ApiError where the cluster does not answer."""
    client, spaces = connection.client, connection.settings.namespaces
    yield from _nodes(client.list("v1", "Node")["items"])
    yield from _pulls(connection)
    for pod in client.list("v1", "Pod", spaces.object_store, label_selector="app.kubernetes.io/name=seed-weights")["items"]:
        said = [line for line in _log(connection, pod, "", tail=3) if line.startswith("done: ")]
        yield Fact(f"seeding, {pod['metadata']['name']}", said[-1] if said else None, "rates.hub_mbs")
    selector = "serving.kserve.io/inferenceservice"
    for pod in client.list("v1", "Pod", spaces.services, label_selector=selector)["items"]:
        yield from _service(connection, pod)


def _nodes(nodes: list[Object]) -> Iterator[Fact]:
    for node in nodes:
        meta, info = node["metadata"], (node.get("status") or {}).get("nodeInfo") or {}
        labels = meta.get("labels") or {}
        if POOL_LABEL in labels:
            ready = [entry for entry in node["status"].get("conditions") or [] if entry["type"] == "Ready"]
            seconds = _between(meta["creationTimestamp"], ready[0].get("lastTransitionTime")) if ready else None
            kind = labels.get("node.kubernetes.io/instance-type", "?")
            where = labels.get("topology.kubernetes.io/zone", "?")
            after = "not ready" if seconds is None else f"ready {seconds:.0f} s after it joined"
            value = f"{kind} in {where}, {info.get('osImage', '?')}, {after}"
            yield Fact(f"node {meta['name']}", value, "rates.node_minutes")


def _pulls(connection: Connection) -> Iterator[Fact]:
    """Pulls that the events still know of: they are kept for an hour."""
    for event in connection.client.list("v1", "Event", connection.settings.namespaces.services)["items"]:
        found = _PULLED.match(event.get("message") or "") if event.get("reason") == "Pulled" else None
        if found:
            size = f"{int(found['bytes']) / 1e9:.1f} GB in " if found["bytes"] else ""
            yield Fact(f"pull of {found['image']}", f"{size}{found['time']}", "rates.image_gbs, unpacked_gb")


def _service(connection: Connection, pod: Object) -> Iterator[Fact]:
    name = pod["metadata"]["labels"]["serving.kserve.io/inferenceservice"]
    times = [line.partition(" ")[0] for line in _log(connection, pod, "storage-initializer", timestamps=True)]
    seconds = _between(times[0], times[-1]) if len(times) > 1 else None
    yield Fact(f"{name}: download", None if seconds is None else f"{seconds:.0f} s", "rates.download_core_mbs")
    lines = [found[0] for line in _log(connection, pod, "kserve-container") if (found := _ENGINE_LINES.search(line))]
    for line in lines:
        yield Fact(f"{name}: engine", line, "rates.start_minutes, visible_gib")
    if not lines:
        yield Fact(f"{name}: engine", None, "rates.start_minutes, visible_gib")
    gpus = _asked(connection, pod, "nvidia-smi", f"--query-gpu={_GPU}", "--format=csv,noheader")
    for number, line in enumerate(gpus or []):
        yield Fact(f"{name}: GPU {number} ({_GPU})", line, "gpus.yaml, AMI_DRIVERS")
    if not gpus:
        yield Fact(f"{name}: GPUs", None, "gpus.yaml, AMI_DRIVERS")


def _log(connection: Connection, pod: Object, container: str, tail: int | None = None, timestamps: bool = False) -> list[str]:
    meta = pod["metadata"]
    params = {**({"container": container} if container else {}), **({"tailLines": str(tail)} if tail else {})}
    params |= {"timestamps": "true"} if timestamps else {}
    try:
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
        return str(connection.client.request("GET", path, params=params).get("text", "")).splitlines()
    except ApiError:
        return []


def _asked(connection: Connection, pod: Object, *command: str) -> list[str] | None:
    """Lines that a command in a service's container prints; None where it cannot run."""
    meta = pod["metadata"]
    where = ["exec", meta["name"], "-n", meta["namespace"], "-c", "kserve-container"]
    kubectl, environment = connection.kubectl([*where, "--", *command])
    try:
        done = subprocess.run(
            kubectl, env={**os.environ, **environment}, capture_output=True, text=True, timeout=_EXEC_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _between(first: Any, last: Any) -> float | None:
    """Seconds between two times of the API, or None if one is none."""
    try:
        begun, ended = (datetime.fromisoformat(re.sub(r"\.\d+", "", str(text)).replace("Z", "+00:00")) for text in (first, last))
    except ValueError:
        return None
    return (ended - begun).total_seconds()
