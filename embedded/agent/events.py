"""Kubernetes events, written in the background: a slow API server must not hold a pod up."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

from mistral_on_l4.cluster.client import ApiError, KubeClient, Object

_log = logging.getLogger(__name__)
COMPONENT = "kubelet"
# Older ones are forgotten here; the API server's own copies live an hour.
_MOST_REMEMBERED = 1000


class Recorder:
    """`normal` and `warning` return at once. The same words about the same object become one event with a count."""

    def __init__(self, api: KubeClient) -> None:
        self._api = api
        self._queue: queue.SimpleQueue[tuple[str, Object, str, str] | None] = queue.SimpleQueue()
        self._known: dict[tuple[str, str, str, str], tuple[str, int]] = {}
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def normal(self, about: Object, reason: str, message: str, field: str = "") -> None:
        self._queue.put(("Normal", _reference(about, field), reason, message))

    def warning(self, about: Object, reason: str, message: str, field: str = "") -> None:
        self._queue.put(("Warning", _reference(about, field), reason, message))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(*item)
            except ApiError as error:
                # A namespace that is being deleted takes no more events.
                _log.info("event %s about %s not written: %s", item[2], item[1].get("name"), error)
            except Exception:
                _log.exception("event %s", item[2])

    def _write(self, kind: str, about: Object, reason: str, message: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        namespace = about.get("namespace") or "default"
        key = (about.get("uid", ""), about.get("fieldPath", ""), reason, message)
        if key in self._known:
            name, count = self._known[key]
            try:
                self._api.patch("v1", "Event", name, namespace, {"count": count + 1, "lastTimestamp": now})
                self._known[key] = (name, count + 1)
                return
            except ApiError as error:
                if error.status != 404:
                    raise
        name = f"{about['name']}.{time.time_ns():x}"
        event: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": COMPONENT,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._api.create(event, namespace)
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = (name, 1)


def _reference(about: Object, field: str) -> Object:
    metadata = about["metadata"]
    reference = {
        "apiVersion": about.get("apiVersion", "v1"),
        "kind": about.get("kind", "Pod"),
        "name": metadata["name"],
        "namespace": metadata.get("namespace", ""),
        "uid": metadata.get("uid", ""),
        "resourceVersion": metadata.get("resourceVersion", ""),
    }
    if field:
        reference["fieldPath"] = field
    return reference
