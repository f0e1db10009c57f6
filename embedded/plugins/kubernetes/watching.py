"""Live copies of the objects of a kind in a namespace, kept up to date by one watch that all waits of a provider share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mistral_on_l4.cluster.client import ApiError, KubeClient

Object = dict[str, Any]
Key = tuple[str, str, str | None]

# A watch that nobody needs any more ends at the latest after this many seconds.
_WATCH_SECONDS = 30
_KEEP_SECONDS = 5.0


class Cluster:
    """Shared watches. `changed` is notified at every event of any of them: a wait looks at its own objects again."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self.changed = threading.Condition()
        self.events = 0
        self._watches: dict[Key, _Watch] = {}

    def note(self) -> None:
        """Wakes every wait. The caller holds `changed`."""
        self.events += 1
        self.changed.notify_all()

    def next_event(self, seen: int, seconds: float) -> int:
        """Returns when something has changed since event number `seen`, or after `seconds`; gives the number by then."""
        with self.changed:
            self.changed.wait_for(lambda: self.events != seen, seconds)
            return self.events

    @contextmanager
    def watching(self, api_version: str, kind: str, namespace: str | None) -> Iterator[_Watch]:
        """Keeps a watch for the time of the context. Raises ApiError if the first list fails."""
        key = (api_version, kind, namespace)
        with self.changed:
            watch = self._watches.get(key)
            if watch is None or watch.ended:
                watch = self._watches[key] = _Watch(self, key)
                threading.Thread(target=watch.run, name=f"watch {kind}", daemon=True).start()
            watch.users += 1
        try:
            watch.wait_for_list()
            yield watch
        finally:
            with self.changed:
                watch.users -= 1
                watch.idle_since = time.monotonic()


class _Watch:
    def __init__(self, cluster: Cluster, key: Key) -> None:
        self.users = 0
        self.idle_since = 0.0
        self.ended = False
        self._cluster = cluster
        self._key = key
        self._objects: dict[tuple[str, str], Object] = {}
        self._listed = threading.Event()
        self._error: ApiError | None = None

    def wait_for_list(self) -> None:
        if not self._listed.wait(40.0):
            raise ApiError(0, "Timeout", f"the API server did not list {self._key[1]} objects within 40 s")
        if self._error:
            raise self._error

    def objects(self) -> list[Object]:
        with self._cluster.changed:
            return list(self._objects.values())

    def get(self, name: str, namespace: str | None) -> Object | None:
        with self._cluster.changed:
            return self._objects.get((namespace or "", name))

    def run(self) -> None:
        version: str | None = None
        while not self._done():
            try:
                if version is None:
                    version = self._list()
                version = self._follow(version)
            except ApiError as error:
                if not self._listed.is_set():
                    self._error = error
                    break
                # 410 Gone: the history is no longer there; anything else: the server is away for a moment.
                version = None
                if error.status != 410:
                    time.sleep(0.5)
        with self._cluster.changed:
            self.ended = True
        self._listed.set()

    def _done(self) -> bool:
        with self._cluster.changed:
            if self.users == 0 and self.idle_since and time.monotonic() - self.idle_since > _KEEP_SECONDS:
                self.ended = True
            return self.ended

    def _list(self) -> str:
        listing = self._cluster.client.list(*self._key)
        api_version, kind, _ = self._key
        with self._cluster.changed:
            # Items of a list do not say what they are.
            self._objects = {_name(item): {"apiVersion": api_version, "kind": kind, **item} for item in listing["items"]}
            self._cluster.note()
        self._listed.set()
        return str(listing["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> str:
        for event in self._cluster.client.watch(*self._key, resource_version=version, timeout_seconds=_WATCH_SECONDS):
            obj = event["object"]
            version = str(obj["metadata"]["resourceVersion"])
            if event["type"] != "BOOKMARK":
                with self._cluster.changed:
                    if event["type"] == "DELETED":
                        self._objects.pop(_name(obj), None)
                    else:
                        self._objects[_name(obj)] = obj
                    self._cluster.note()
            if self._done():
                break
        return version


def _name(obj: Object) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("namespace") or "", meta["name"]
