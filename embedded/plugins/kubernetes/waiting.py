"""Waiting until an object is ready, or gone: with a deadline, with the reason in view, and no longer than waiting helps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from embedded.plugins.kubernetes import readiness
from embedded.plugins.kubernetes.objects import Unsupported
from embedded.plugins.kubernetes.watching import Cluster
from mistral_on_l4.cluster.client import ApiError, Object, UnknownKind
from mistral_on_l4.cluster.live import pod_problem

# A problem that heals by itself (a node that is just joining) is worth no line of its own until it has lasted this long.
_LASTING_SECONDS = 5.0
_LASTING_DELETE_SECONDS = 30.0
_HOPELESS_SECONDS = 3.0
_TICK_SECONDS = 1.0
_LOG_LINES = 5


class NotReady(Exception):
    """An object exists and is not what was waited for. live: as it was last seen."""

    def __init__(self, live: Object, reason: str) -> None:
        super().__init__(reason)
        self.live = live
        self.reason = reason


class Reporter:
    """Says what a wait is about: status lines that the next one replaces, and warnings that stay. Repeats nothing."""

    def __init__(self, status: Callable[[str], None], warning: Callable[[str], None]) -> None:
        self._status, self._warning = status, warning
        self._shown = ""
        self._warned: set[str] = set()
        self._since: dict[str, float] = {}

    def status(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            self._status(text)

    def done(self, text: str) -> None:
        """Replaces the last status line, if there was one: else it would stay beside a resource that is long ready."""
        if self._shown:
            self.status(text)

    def trouble(self, text: str | None, lasting_seconds: float = _LASTING_SECONDS) -> None:
        """Warns of a problem once it has lasted that long. The same problem in other words (a longer back-off) is no news."""
        now, topic = time.monotonic(), ":".join((text or "").split(":")[:3])
        self._since = {topic: self._since.get(topic, now)} if text else {}
        if text and topic not in self._warned and now - self._since[topic] >= lasting_seconds:
            self._warned.add(topic)
            self._warning(text)


class Waiter:
    """Waits on one cluster. `cancelled` ends every wait at its next look."""

    def __init__(self, cluster: Cluster, cancelled: threading.Event) -> None:
        self._cluster = cluster
        self._client = cluster.client
        self._cancelled = cancelled

    # -- ready ---------------------------------------------------------------------------------------------------------

    def until_ready(self, live: Object, inputs: Mapping[str, Any], seconds: float, reporter: Reporter) -> Object:
        """Returns the object once it is ready by its kind's rule or its annotations. Raises NotReady.

        live: the API server's answer to the create or update; seconds: how long at most.
        """
        try:
            rule = readiness.rule_for(inputs)
            if rule is None:
                return live
            return self._watch_until_ready(live, rule, seconds, reporter)
        except ApiError as error:
            raise NotReady(live, f"the API server failed while waiting: {error}") from error
        except (ValueError, Unsupported) as error:
            raise NotReady(live, str(error)) from error

    def _watch_until_ready(self, live: Object, rule: readiness.Rule, seconds: float, reporter: Reporter) -> Object:
        meta = live["metadata"]
        namespace, what = meta.get("namespace"), _what(live)
        labels = rule.pod_labels(live)
        claim_waits_for_pod = live["kind"] == "PersistentVolumeClaim" and self._waits_for_pod(live)
        deadline = time.monotonic() + seconds
        hopeless_since: dict[str, float] = {}
        with ExitStack() as stack:
            own = stack.enter_context(self._cluster.watching(live["apiVersion"], live["kind"], namespace))
            pods = stack.enter_context(self._cluster.watching("v1", "Pod", namespace)) if labels else None
            slices = None
            if rule.endpoint_slices:
                slices = stack.enter_context(self._cluster.watching("discovery.k8s.io/v1", "EndpointSlice", namespace))
            while True:
                seen = self._cluster.events
                cached = own.get(meta["name"], namespace)
                if cached is None or cached["metadata"]["uid"] != meta["uid"]:
                    # The watch may be behind; only the API server itself knows that an object is gone.
                    cached = self._current(live)
                    if cached is None:
                        raise NotReady(live, f"{what} was deleted while waiting for it")
                live = _newer(live, cached)
                mine = _selected(pods.objects(), labels) if pods is not None and labels else []
                related = readiness.Related(
                    mine,
                    _slices_of(slices.objects(), meta["name"]) if slices is not None else (),
                    claim_waits_for_pod,
                )
                verdict = rule.judge(live, related)
                if verdict.ready:
                    reporter.done(f"{what} is ready")
                    return live
                if verdict.failed is not None:
                    raise NotReady(live, f"{what} failed: {verdict.failed}{self._last_words(mine)}")
                if mine and (why := readiness.hopeless(mine[-1])):
                    since = hopeless_since.setdefault(mine[-1]["metadata"]["uid"], time.monotonic())
                    if time.monotonic() - since >= _HOPELESS_SECONDS:
                        raise NotReady(live, f"{what} cannot become ready: {why}")
                trouble = readiness.trouble(mine) if live["kind"] != "Pod" else None
                missing = "; ".join(part for part in (verdict.missing, trouble) if part)
                reporter.status(f"Waiting for {what}: {missing}")
                reporter.trouble(_lasting(trouble or verdict.missing))
                left = deadline - time.monotonic()
                if left <= 0:
                    raise NotReady(live, f"{what} is not ready after {seconds:.0f} s: {missing}{self._last_words(mine)}")
                if self._cancelled.is_set():
                    raise NotReady(live, f"cancelled while waiting for {what}: {missing}")
                self._cluster.next_event(seen, min(_TICK_SECONDS, left))

    def _waits_for_pod(self, claim: Object) -> bool:
        """Whether the claim's StorageClass makes a volume only for the first pod that mounts it."""
        name = claim["spec"].get("storageClassName")
        if not name:
            return False
        try:
            found = self._client.get("storage.k8s.io/v1", "StorageClass", name)
        except ApiError:
            return False
        return found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _last_words(self, pods: Sequence[Object]) -> str:
        """What the newest failed container left behind: its termination message, else its last log lines."""
        for pod in reversed(pods):
            status = pod.get("status") or {}
            for found in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
                ended = (found.get("state") or {}).get("terminated") or (found.get("lastState") or {}).get("terminated") or {}
                if not ended.get("exitCode"):
                    continue
                said = (ended.get("message") or "").strip() or self._log(pod, found["name"])
                name = pod["metadata"]["name"]
                return f"\npod {name}, container {found['name']}, exit code {ended['exitCode']}: {said or 'it left no message'}"
            if status.get("phase") == "Failed" and (why := pod_problem(pod) or status.get("message")):
                return f"\npod {pod['metadata']['name']}: {why}"
        return ""

    def _log(self, pod: Object, container: str) -> str:
        meta = pod["metadata"]
        path = self._client.path("v1", "Pod", meta["name"], meta["namespace"], "log")
        try:
            answer = self._client.request("GET", path, params={"container": container, "tailLines": str(_LOG_LINES)}, timeout=5.0)
        except ApiError:
            return ""
        return str(answer.get("text", "")).strip()

    # -- gone ----------------------------------------------------------------------------------------------------------

    def until_gone(self, live: Object, seconds: float, reporter: Reporter) -> None:
        """Returns once the object, or its kind, is no longer there. Raises NotReady, which names what holds it."""
        meta, what = live["metadata"], _what(live)
        namespace = meta.get("namespace")
        deadline = time.monotonic() + seconds
        with ExitStack() as stack:
            try:
                own = stack.enter_context(self._cluster.watching(live["apiVersion"], live["kind"], namespace))
            except ApiError as error:
                if error.status == 404:
                    return
                raise
            while True:
                seen = self._cluster.events
                cached = own.get(meta["name"], namespace)
                if cached is None or cached["metadata"]["uid"] != meta["uid"]:
                    found = self._current(live)
                    if found is None:
                        return
                    cached = found
                held = _held_by(cached)
                reporter.status(f"Waiting for {what} to be gone: {held}")
                reporter.trouble(f"{what} is not gone yet: {held}", _LASTING_DELETE_SECONDS)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise NotReady(cached, f"{what} still exists after {seconds:.0f} s: {held}")
                if self._cancelled.is_set():
                    raise NotReady(cached, f"cancelled while waiting for {what} to be gone: {held}")
                self._cluster.next_event(seen, min(_TICK_SECONDS, left))

    def _current(self, live: Object) -> Object | None:
        meta = live["metadata"]
        try:
            found = self._client.get(live["apiVersion"], live["kind"], meta["name"], meta.get("namespace"))
        except UnknownKind:
            return None
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found if found["metadata"]["uid"] == meta["uid"] else None


def _what(live: Object) -> str:
    meta = live["metadata"]
    return f"{live['kind']} {meta['namespace']}/{meta['name']}" if meta.get("namespace") else f"{live['kind']} {meta['name']}"


def _newer(live: Object, cached: Object) -> Object:
    """The later of two views of one object. Resource versions of one object grow (Kubernetes compares them so since 1.35)."""
    return cached if int(cached["metadata"]["resourceVersion"]) >= int(live["metadata"]["resourceVersion"]) else live


def _selected(pods: Sequence[Object], labels: Mapping[str, str]) -> list[Object]:
    """Pods with all these labels, oldest first, without those on their way out."""

    def wanted(pod: Object) -> bool:
        found = {**(pod["metadata"].get("labels") or {}), "metadata.name": pod["metadata"]["name"]}
        return all(found.get(key) == value for key, value in labels.items())

    mine = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp") and wanted(pod)]
    return sorted(mine, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def _slices_of(slices: Sequence[Object], service: str) -> list[Object]:
    return [found for found in slices if (found["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == service]


def _lasting(problem: str | None) -> str | None:
    """The problem if it is one that will not pass by itself soon: not a container that is still starting."""
    mild = ("is running and not ready yet", " is Pending", "replicas are", "pods have completed", "controller has not seen")
    return None if problem is None or any(word in problem for word in mild) else problem


def _held_by(obj: Object) -> str:
    """What keeps a deleted object: finalizers, or what a namespace still holds."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp"):
        return "its deletion has not begun"
    for found in (obj.get("status") or {}).get("conditions") or []:
        if found["type"] in ("NamespaceContentRemaining", "NamespaceFinalizersRemaining") and found["status"] == "True":
            return str(found.get("message", found["type"]))
    finalizers = [*(meta.get("finalizers") or []), *((obj.get("spec") or {}).get("finalizers") or [])]
    return f"finalizers {', '.join(finalizers)}" if finalizers else "it is still ending"
