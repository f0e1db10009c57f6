"""Why the pods behind an object do not come up, in their own words: for those who hear of a timeout alone."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mistral_on_l4.cluster.client import ApiError, KubeClient, Object
from mistral_on_l4.cluster.live import pod_problem

# Lines of a container's log, and characters of each, that are repeated.
_LINES, _WIDTH = 12, 300
# A shorter text would be struck out of words that have nothing to do with it.
_SHORTEST_SECRET = 6
_HIDDEN = "[secret]"


def selector_of(kind: str, inputs: Mapping[str, Any]) -> str | None:
    """Label selector of the pods behind an object; None for kinds without any. inputs: the object's body."""
    name = (inputs.get("metadata") or {}).get("name")
    if kind == "Job" and name:
        return f"job-name={name}"
    if kind == "InferenceService" and name:
        return f"serving.kserve.io/inferenceservice={name}"
    if kind in ("Deployment", "StatefulSet"):
        labels = ((inputs.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
        return ",".join(f"{key}={text}" for key, text in sorted(labels.items())) or None
    return None


def last_words(client: KubeClient, namespace: str, selector: str) -> list[str]:
    """What the newest pod says: one line of why, then the end of the log of the container that is in the way. Raises ApiError.

    Values of Secrets that the pod reads are struck out. Nothing is returned for a pod that is well.
    """
    pods = client.list("v1", "Pod", namespace, label_selector=selector)["items"]
    pod = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    if pod is None:
        return ["none of its pods is there"]
    name, container = pod["metadata"]["name"], _in_the_way(pod)
    problem = pod_problem(pod)
    if problem is None and container is None:
        return []
    said = [f"pod {name}: {problem or (pod.get('status') or {}).get('phase', 'Unknown')}"]
    if container is not None:
        log = _end_of_log(client, pod, container)
        said += [f"the last lines of container {container['name']}:", *(f"  {line}" for line in log)] if log else []
    secrets = sorted(_secrets(client, pod), key=len, reverse=True)
    return [_without(line, secrets) for line in said]


def _in_the_way(pod: Object) -> Mapping[str, Any] | None:
    """The status of the first container that failed, or runs and is not ready."""
    status = pod.get("status") or {}
    for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = entry.get("state") or {}
        if (state.get("terminated") or {}).get("exitCode") or (entry.get("lastState") or {}).get("terminated"):
            return dict(entry)
        if state.get("running") and not entry.get("ready"):
            return dict(entry)
    return None


def _end_of_log(client: KubeClient, pod: Object, container: Mapping[str, Any]) -> Sequence[str]:
    """Of the run that ended, where one did; what the container left as its message where the log is gone."""
    meta, ended = pod["metadata"], (container.get("lastState") or {}).get("terminated")
    waiting = "waiting" in (container.get("state") or {})
    params = {"container": container["name"], "tailLines": str(_LINES), **({"previous": "true"} if ended and waiting else {})}
    try:
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
        text = str(client.request("GET", path, params=params).get("text", ""))
    except ApiError:
        text = ""
    message = ((container.get("state") or {}).get("terminated") or ended or {}).get("message") or ""
    lines = [line.rstrip() for line in (text or message).splitlines() if line.strip()]
    return [line if len(line) <= _WIDTH else f"{line[:_WIDTH]} (cut)" for line in lines[-_LINES:]]


def _secrets(client: KubeClient, pod: Object) -> Iterator[str]:
    """Values of every Secret that the pod's containers read, as far as they may be read."""
    names = set()
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        names |= {(entry.get("secretRef") or {}).get("name") for entry in container.get("envFrom") or []}
        sources = [entry.get("valueFrom") or {} for entry in container.get("env") or []]
        names |= {(source.get("secretKeyRef") or {}).get("name") for source in sources}
    for volume in pod["spec"].get("volumes") or []:
        names.add((volume.get("secret") or {}).get("secretName"))
        projected = (volume.get("projected") or {}).get("sources") or []
        names |= {(source.get("secret") or {}).get("name") for source in projected}
    for name in names - {None}:
        try:
            data = client.get("v1", "Secret", str(name), pod["metadata"]["namespace"]).get("data") or {}
        except ApiError:
            continue
        for text in data.values():
            yield from _readings(text)


def _readings(encoded: str) -> Iterator[str]:
    """A Secret's value as it is kept and as it is used, line by line."""
    yield encoded
    try:
        plain = base64.b64decode(encoded).decode()
    except (binascii.Error, UnicodeDecodeError):
        return
    yield plain.strip()
    yield from (line.strip() for line in plain.splitlines())


def _without(line: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            line = line.replace(secret, _HIDDEN)
    return line
