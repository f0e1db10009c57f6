"""A pod's status as kubelet would write it, from the states of its containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedded.agent.containers import Container, timestamp
from mistral_on_l4.cluster.client import Object

_OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
HOST_IP = "127.0.0.1"


def phase(containers: Sequence[Container], policy: str) -> str:
    """Pending, Running, Succeeded or Failed."""
    inits = [each for each in containers if each.init]
    mains = [each for each in containers if not each.init]
    if any(each.terminated and not each.succeeded and not each.restarts_after(1, policy) for each in inits):
        return "Failed"
    if any(not (each.started if each.sidecar else each.succeeded) for each in inits) and not any(c.launched for c in mains):
        return "Pending"
    if any(not each.launched for each in mains):
        return "Pending"
    if all(each.terminated and not each.restarts_after(each.terminated["exitCode"], policy) for each in mains):
        return "Succeeded" if all(each.succeeded for each in mains) else "Failed"
    return "Running"


def build(
    pod: Object,
    containers: Sequence[Container],
    pod_ip: str,
    sandbox_up: bool,
    known: dict[str, dict[str, Any]],
    now: float,
    failed: tuple[str, str] | None = None,
) -> Object:
    """The whole status. `known`: conditions by type as last written, updated here; failed: (reason, message) that ends the pod."""
    spec, old = pod["spec"], pod.get("status") or {}
    current = "Failed" if failed else phase(containers, spec.get("restartPolicy", "Always"))
    conditions = _conditions(pod, containers, current, sandbox_up, known, now)
    status: Object = {
        "phase": current,
        "conditions": conditions,
        "hostIP": HOST_IP,
        "hostIPs": [{"ip": HOST_IP}],
        "startTime": old.get("startTime") or timestamp(now),
        "containerStatuses": [each.status() for each in containers if not each.init],
        "reason": failed[0] if failed else None,
        "message": failed[1] if failed else None,
    }
    if any(each.init for each in containers):
        status["initContainerStatuses"] = [each.status() for each in containers if each.init]
    if pod_ip:
        status["podIP"] = pod_ip
        status["podIPs"] = [{"ip": pod_ip}]
    return status


def _conditions(
    pod: Object, containers: Sequence[Container], current: str, sandbox_up: bool, known: dict[str, dict[str, Any]], now: float
) -> list[dict[str, Any]]:
    ended = current in ("Succeeded", "Failed")
    incomplete = [each.name for each in containers if each.init and not (each.started if each.sidecar else each.succeeded)]
    begun = any(each.launched for each in containers if not each.init)
    mains = [each for each in containers if not each.init or each.sidecar]
    unready = [each.name for each in mains if not each.ready]
    others = {each["type"]: each for each in (pod.get("status") or {}).get("conditions") or [] if each["type"] not in _OURS}

    def say(kind: str, true: bool, reason: str = "", message: str = "") -> None:
        words = {"reason": reason, "message": message} if not true else {}
        said = {"type": kind, "status": "True" if true else "False"} | {key: text for key, text in words.items() if text}
        before = known.get(kind)
        moved = before is None or before["status"] != said["status"]
        said["lastTransitionTime"] = timestamp(now) if moved or before is None else before["lastTransitionTime"]
        known[kind] = said

    say("PodReadyToStartContainers", sandbox_up)
    if current == "Succeeded" or not incomplete or begun:
        say("Initialized", True)
    else:
        say("Initialized", False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]")
    done = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(current, "")
    not_ready = f"containers with unready status: [{' '.join(unready)}]"
    ready = not ended and not unready
    say("ContainersReady", ready, done or "ContainersNotReady", "" if done else not_ready)
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    closed = [gate for gate in gates if others.get(gate, {}).get("status") != "True"]
    if ready and closed:
        say("Ready", False, "ReadinessGatesNotReady", f'the status of pod readiness gate {closed[0]!r} is not "True"')
    else:
        say("Ready", ready, done or "ContainersNotReady", "" if done else not_ready)
    say("PodScheduled", True)
    return [known[kind] for kind in _OURS] + list(others.values())


def restore_conditions(status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Conditions of ours by type, as the API server has them."""
    return {each["type"]: each for each in status.get("conditions") or [] if each["type"] in _OURS}
