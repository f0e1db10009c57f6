"""When an object counts as ready, kind by kind, judged from the object and what belongs to it. Pure; waiting is elsewhere.

The rules are pulumi-kubernetes's (its provider/pkg/await), less the kinds that no local cluster can make ready.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedded.plugins.kubernetes.objects import SKIP_AWAIT, WAIT_FOR, Unsupported, annotations_of, is_true
from embedded.plugins.kubernetes.wait_for import parse
from mistral_on_l4.cluster.live import condition, pod_problem

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """ready; or what is missing; or, if waiting cannot help, why it failed."""

    ready: bool = False
    missing: str = ""
    failed: str | None = None


@dataclass(frozen=True)
class Related:
    """What else a rule may look at. pods: those that the object selects, newest last; endpoint_slices: a Service's."""

    pods: Sequence[Object] = ()
    endpoint_slices: Sequence[Object] = ()
    claim_waits_for_pod: bool = False


@dataclass(frozen=True)
class Rule:
    """How to judge an object, and which other objects that takes. pod_labels: labels of its pods, None if it has none."""

    judge: Callable[[Object, Related], Verdict]
    pod_labels: Callable[[Object], Mapping[str, str] | None] = field(default=lambda _: None)
    endpoint_slices: bool = False


READY = Verdict(ready=True)

# Reasons of a waiting container that no amount of waiting mends: there is no such image, or no program for it.
_HOPELESS = {"NoLocalProgram", "InvalidImageName"}


def rule_for(inputs: Object) -> Rule | None:
    """The rule for an object, from its annotations or its kind; None if it is ready as soon as it exists.

    Raises BadCondition for a waitFor that is not understood, Unsupported for kinds that a local cluster never makes ready.
    """
    if is_true(inputs, SKIP_AWAIT):
        return None
    group = str(inputs["apiVersion"]).rpartition("/")[0]
    known = _RULES.get((group, str(inputs["kind"])))
    if text := annotations_of(inputs).get(WAIT_FOR):
        expectations = parse(text)

        def judge(obj: Object, related: Related) -> Verdict:  # noqa: ARG001
            missing = [what for expectation in expectations if (what := expectation.missing(obj))]
            return Verdict(ready=not missing, missing="; ".join(missing))

        return Rule(judge, known.pod_labels if known else _inference_service_labels)
    if (group, str(inputs["kind"])) == ("networking.k8s.io", "Ingress"):
        raise Unsupported("awaiting an Ingress (there is no controller; pulumi.com/skipAwait creates it all the same)")
    return known


def hopeless(pod: Object) -> str | None:
    """Why a pod will never run, or None."""
    status = pod.get("status") or {}
    for found in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (found.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            return f"pod {pod['metadata']['name']}: container {found['name']}: {waiting['reason']}: {waiting.get('message', '')}"
    return None


def trouble(pods: Sequence[Object]) -> str | None:
    """The most telling line about pods that do not run: `pod X: why`, of the newest that has a problem."""
    for pod in reversed(pods):
        if problem := pod_problem(pod):
            return f"pod {pod['metadata']['name']}: {problem}"
        if (pod.get("status") or {}).get("phase") == "Pending":
            return f"pod {pod['metadata']['name']} is Pending"
    return None


# -- kinds -----------------------------------------------------------------------------------------------------------------


def _observed(obj: Object) -> bool:
    """Whether the status is about the spec as it is now."""
    observed = (obj.get("status") or {}).get("observedGeneration")
    return observed is not None and int(observed) >= int(obj["metadata"].get("generation", 0))


def _reason(obj: Object, kind: str) -> tuple[str, str]:
    for found in (obj.get("status") or {}).get("conditions") or []:
        if found["type"] == kind:
            return str(found.get("reason", "")), str(found.get("message", ""))
    return "", ""


def _deployment(obj: Object, related: Related) -> Verdict:  # noqa: ARG001
    if not _observed(obj):
        return Verdict(missing="its controller has not seen it yet")
    status, wanted = obj["status"], obj["spec"].get("replicas", 1)
    reason, message = _reason(obj, "Progressing")
    if reason == "ProgressDeadlineExceeded":
        return Verdict(failed=f"ProgressDeadlineExceeded: {message}")
    updated, available, total = (status.get(key, 0) for key in ("updatedReplicas", "availableReplicas", "replicas"))
    if updated < wanted:
        return Verdict(missing=f"{updated} of {wanted} replicas are up to date")
    if available < wanted:
        return Verdict(missing=f"{available} of {wanted} replicas are available")
    if total > updated:
        return Verdict(missing=f"{total - updated} old replicas are still there")
    if wanted and condition(obj, "Available") != "True":
        return Verdict(missing="it is not Available")
    return READY


def _stateful_set(obj: Object, related: Related) -> Verdict:  # noqa: ARG001
    if not _observed(obj):
        return Verdict(missing="its controller has not seen it yet")
    status, spec = obj["status"], obj["spec"]
    wanted = spec.get("replicas", 1)
    strategy = spec.get("updateStrategy") or {}
    if status.get("readyReplicas", 0) < wanted:
        return Verdict(missing=f"{status.get('readyReplicas', 0)} of {wanted} replicas are ready")
    if strategy.get("type", "RollingUpdate") == "OnDelete":
        return READY
    partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
    updated = status.get("updatedReplicas", 0)
    if status.get("updateRevision") != status.get("currentRevision") and updated < wanted - partition:
        return Verdict(missing=f"{updated} of {wanted - partition} replicas are up to date")
    return READY


def _daemon_set(obj: Object, related: Related) -> Verdict:  # noqa: ARG001
    if not _observed(obj):
        return Verdict(missing="its controller has not seen it yet")
    status = obj["status"]
    wanted = status.get("desiredNumberScheduled", 0)
    ready = min(status.get("numberReady", 0), status.get("updatedNumberScheduled", 0))
    return READY if ready >= wanted else Verdict(missing=f"{ready} of {wanted} pods are ready")


def _job(obj: Object, related: Related) -> Verdict:  # noqa: ARG001
    if condition(obj, "Failed") == "True":
        return Verdict(failed=": ".join(part for part in _reason(obj, "Failed") if part) or "the Job failed")
    if condition(obj, "Complete") == "True":
        return READY
    status = obj.get("status") or {}
    done, wanted = status.get("succeeded", 0), obj["spec"].get("completions", 1)
    tries = f", {status['failed']} failed so far" if status.get("failed") else ""
    return Verdict(missing=f"{done} of {wanted} pods have completed{tries}")


def _pod(obj: Object, related: Related) -> Verdict:  # noqa: ARG001
    phase = (obj.get("status") or {}).get("phase", "Pending")
    if phase == "Failed":
        return Verdict(failed=pod_problem(obj) or str((obj.get("status") or {}).get("message") or "the pod failed"))
    if phase == "Succeeded" or condition(obj, "Ready") == "True":
        return READY
    return Verdict(missing=pod_problem(obj) or f"it is {phase}")


def _claim(obj: Object, related: Related) -> Verdict:
    phase = (obj.get("status") or {}).get("phase", "Pending")
    if phase == "Lost":
        return Verdict(failed="the claim has lost its volume")
    if phase == "Bound" or related.claim_waits_for_pod:
        return READY
    return Verdict(missing=f"it is {phase}")


def _volume(obj: Object, related: Related) -> Verdict:  # noqa: ARG001
    phase = (obj.get("status") or {}).get("phase", "Pending")
    return READY if phase in ("Available", "Bound") else Verdict(missing=f"it is {phase}")


def _service(obj: Object, related: Related) -> Verdict:
    spec = obj.get("spec") or {}
    if spec.get("type") == "LoadBalancer":
        raise Unsupported("awaiting a Service of type LoadBalancer (there is none; pulumi.com/skipAwait creates it all the same)")
    if spec.get("type") == "ExternalName" or not spec.get("selector"):
        return READY
    if spec.get("clusterIP") == "None" and not related.pods:
        # A headless Service often has to exist before the pods that need its name.
        return READY
    for found in related.endpoint_slices:
        if any((endpoint.get("conditions") or {}).get("ready") is not False for endpoint in found.get("endpoints") or []):
            return READY
    return Verdict(missing="no ready pod is behind it")


def _namespace(obj: Object, related: Related) -> Verdict:  # noqa: ARG001
    phase = (obj.get("status") or {}).get("phase", "")
    return READY if phase == "Active" else Verdict(missing=f"it is {phase or 'new'}")


def _definition(obj: Object, related: Related) -> Verdict:  # noqa: ARG001
    if condition(obj, "NamesAccepted") == "False":
        return Verdict(failed=": ".join(part for part in _reason(obj, "NamesAccepted") if part))
    return READY if condition(obj, "Established") == "True" else Verdict(missing="it is not Established")


def _selector_labels(obj: Object) -> Mapping[str, str] | None:
    return ((obj.get("spec") or {}).get("selector") or {}).get("matchLabels")


def _service_labels(obj: Object) -> Mapping[str, str] | None:
    return (obj.get("spec") or {}).get("selector")


def _own_name(obj: Object) -> Mapping[str, str] | None:
    """A pod is its own pod; there is no label for that, so the waiter treats this key as the name."""
    return {"metadata.name": str(obj["metadata"]["name"])}


def _inference_service_labels(obj: Object) -> Mapping[str, str] | None:
    if obj.get("kind") != "InferenceService":
        return None
    return {"serving.kserve.io/inferenceservice": str(obj["metadata"]["name"])}


_RULES: Mapping[tuple[str, str], Rule] = {
    ("apps", "Deployment"): Rule(_deployment, _selector_labels),
    ("apps", "StatefulSet"): Rule(_stateful_set, _selector_labels),
    ("apps", "DaemonSet"): Rule(_daemon_set, _selector_labels),
    ("batch", "Job"): Rule(_job, _selector_labels),
    ("", "Pod"): Rule(_pod, _own_name),
    ("", "PersistentVolumeClaim"): Rule(_claim),
    ("", "PersistentVolume"): Rule(_volume),
    ("", "Service"): Rule(_service, _service_labels, endpoint_slices=True),
    ("", "Namespace"): Rule(_namespace),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): Rule(_definition),
}
