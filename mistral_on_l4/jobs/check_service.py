"""Waits inside the cluster until one InferenceService serves its newest revision, then asks it for an answer.

KServe keeps an InferenceService Ready while an update of it progresses, so Ready alone says nothing about the pods that the
last change asked for. This Job looks at the Deployment: its template must carry the revision, and its rollout must be complete.
What keeps the pods from that is said in their own words, and the Job does not wait for what will not come by itself.

Runs as `python -m mistral_on_l4.jobs.check_service` in KServe's storage-initializer image (Python 3.11 with requests).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from mistral_on_l4.jobs.cluster_api import Call, in_cluster
from mistral_on_l4.jobs.last_words import say_why

REVISION_ANNOTATION = "mistral-on-l4/revision"
SERVICE_LABEL = "serving.kserve.io/inferenceservice"


# A container that has crashed this often crashes for a reason that waiting does not mend.
_RESTARTS = 3
# Share of the deadline that a pod may be unplaceable: GPU nodes can take minutes to announce their GPUs.
_UNPLACED_SHARE = 0.5
# With weights in the node's memory eight tokens take seconds, and the first ones far longer.
_CHAT_SECONDS = 120.0


class NotServing(Exception):
    """The service did not come to serve its revision in time; the text says what it was waiting for."""


@dataclass(frozen=True)
class Check:
    """service, namespace: of the InferenceService; revision: what its pods must carry; deadline_seconds: for everything."""

    service: str
    namespace: str
    revision: str
    url: str
    api_key: str | None
    deadline_seconds: float

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Check:
        return cls(
            env["SERVICE_NAME"],
            env["SERVICE_NAMESPACE"],
            env["SERVICE_REVISION"],
            env["SERVICE_URL"].rstrip("/"),
            env.get("API_KEY") or None,
            float(env.get("DEADLINE_SECONDS", "600")),
        )


def rollout_problem(deployment: Mapping[str, Any] | None, revision: str) -> str | None:
    """Why the Deployment does not serve `revision` yet, or None when it does (the rules of `kubectl rollout status`)."""
    if deployment is None:
        return "its Deployment does not exist yet"
    template = deployment["spec"]["template"].get("metadata", {}).get("annotations") or {}
    if template.get(REVISION_ANNOTATION) != revision:
        return f"its Deployment still asks for revision {template.get(REVISION_ANNOTATION, 'none')}, not {revision}"
    status = deployment.get("status") or {}
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return "the Deployment controller has not seen the change yet"
    wanted = deployment["spec"].get("replicas", 1)
    if status.get("updatedReplicas", 0) < wanted:
        return f"{status.get('updatedReplicas', 0)} of {wanted} pods are of the new revision"
    if status.get("replicas", 0) > status.get("updatedReplicas", 0):
        return "a pod of the old revision is still going"
    if status.get("availableReplicas", 0) < wanted:
        return f"{status.get('availableReplicas', 0)} of {wanted} pods are available"
    return None


@dataclass(frozen=True)
class PodProblem:
    """Why a pod of the service does not serve. kind: unplaced, crashing or other."""

    kind: str
    text: str


def pod_problem(pods: Sequence[Mapping[str, Any]]) -> PodProblem | None:
    """What the newest pod of a service says is wrong, or None if it says nothing."""
    pod = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    if pod is None:
        return None
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return PodProblem("unplaced", f"pod {name} cannot be placed: {condition.get('message', 'no reason given')}")
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason == "CrashLoopBackOff" and container.get("restartCount", 0) >= _RESTARTS:
            ended = (container.get("lastState") or {}).get("terminated") or {}
            last = (ended.get("message") or "").strip().splitlines()
            return PodProblem(
                "crashing",
                f"container {container['name']} of pod {name} ended {container['restartCount']} times, last with exit code "
                f"{ended.get('exitCode')}: {last[-1] if last else 'it said nothing'}",
            )
        if reason and reason not in ("PodInitializing", "ContainerCreating"):
            return PodProblem("other", f"container {container['name']} of pod {name}: {reason}: {waiting.get('message', '')}")
    return None


class Cluster:
    """The calls that are needed of the API server. Raise requests.RequestException when it does not answer, or refuses."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def deployment(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self._get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")

    def pods(self, namespace: str, service: str) -> list[dict[str, Any]]:
        """Pods of an InferenceService."""
        listed = self._get(f"/api/v1/namespaces/{namespace}/pods?labelSelector={SERVICE_LABEL}%3D{service}")
        items: list[dict[str, Any]] = (listed or {}).get("items") or []
        return items

    def _get(self, path: str) -> dict[str, Any] | None:
        status, document = self._call("GET", path, None)
        if status == 404:
            return None
        if status != 200:
            raise requests.HTTPError(f"the Kubernetes API answers {status}: {document.get('message', '')}")
        return document


def chat_problem(check: Check, seconds: float) -> str | None:
    """Why the service gives no chat answer within `seconds`, or None when it does."""
    headers = {"Authorization": f"Bearer {check.api_key}"} if check.api_key else {}
    body = {"model": check.service, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    try:
        answer = requests.post(f"{check.url}/v1/chat/completions", json=body, headers=headers, timeout=seconds)
    except requests.RequestException as error:
        return f"{check.url} does not answer: {type(error).__name__}"
    if answer.status_code != 200:
        return f"{check.url}/v1/chat/completions answered {answer.status_code}: {answer.text[:200]}"
    try:
        content = answer.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return f"{check.url}/v1/chat/completions answered 200 and no chat: {answer.text[:200]}"
    return None if content else "the chat answer is empty"


def run(check: Check, cluster: Cluster, pause_seconds: float = 0.5) -> None:
    """Returns when the service answers with its newest revision. Raises NotServing at the deadline, or once it is hopeless."""
    start = time.monotonic()
    placed = start
    said = None
    while True:
        pod: PodProblem | None = None
        try:
            problem = rollout_problem(cluster.deployment(check.namespace, f"{check.service}-predictor"), check.revision)
            if problem is not None and (pod := pod_problem(cluster.pods(check.namespace, check.service))) is not None:
                problem = pod.text
        except requests.RequestException as error:
            away = f"the Kubernetes API does not answer: {type(error).__name__}"
            problem = str(error) if isinstance(error, requests.HTTPError) else away
        # The last question must end before the Job does, or nobody says what was waited for.
        left = start + check.deadline_seconds - time.monotonic()
        problem = problem or chat_problem(check, min(max(left, 1.0), _CHAT_SECONDS))
        now = time.monotonic()
        if problem is None:
            print(f"{check.service} serves revision {check.revision} and answers", flush=True)
            return
        if pod is None or pod.kind != "unplaced":
            placed = now
        unplaced = now - placed > check.deadline_seconds * _UNPLACED_SHARE
        if now - start > check.deadline_seconds or unplaced or (pod is not None and pod.kind == "crashing"):
            raise NotServing(f"{check.service} does not serve after {now - start:.0f} s: {problem}")
        if problem != said:
            print(f"waiting: {problem}", flush=True)
            said = problem
        time.sleep(pause_seconds)


def main() -> int:
    try:
        call = in_cluster(os.environ)
        if call is None:
            raise NotServing("there is no API server here: this script runs in a pod with a service account")
        run(Check.from_environment(os.environ), Cluster(call))
        return 0
    except NotServing as error:
        sentence = str(error)
    except Exception as error:  # the last line must name the reason, whatever it is
        sentence = f"the check failed: {type(error).__name__}: {error}"
    say_why(sentence)
    return 1


if __name__ == "__main__":
    sys.exit(main())
