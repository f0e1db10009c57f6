"""Objects of one kind, listed once and then watched: a local copy that follows the API server, with a callback for every change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from mistral_on_l4.cluster.client import ApiError, KubeClient, Object

_log = logging.getLogger(__name__)
_LONGEST_PAUSE = 5.0

Changed = Callable[[str, Object], None]


class Informer:
    """Follows one kind in every namespace. `changed` gets ("ADDED" | "MODIFIED" | "DELETED", object) on the informer's own thread.

    Objects handed out are shared: copy one before you change it.
    """

    def __init__(self, api: KubeClient, api_version: str, kind: str, changed: Changed, label_selector: str | None = None) -> None:
        self._api, self._api_version, self.kind, self._selector = api, api_version, kind, label_selector
        self._changed = changed
        self._objects: dict[tuple[str, str], Object] = {}
        self._stopped = threading.Event()
        self.synced = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"watch-{self.kind}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def all(self) -> list[Object]:
        return list(self._objects.values())

    def get(self, name: str, namespace: str = "") -> Object | None:
        return self._objects.get((namespace, name))

    def _run(self) -> None:
        pause = 0.2
        while not self._stopped.is_set():
            try:
                version = self._list()
                pause = 0.2
                self._watch(version)
            except ApiError as error:
                if error.status != 410:
                    _log.warning("%s: %s", self.kind, error)
                    self._stopped.wait(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
            except Exception:
                _log.exception("%s: what was told of a change failed", self.kind)
                self._stopped.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _list(self) -> str:
        listing = self._api.list(self._api_version, self.kind, label_selector=self._selector)
        listed = {}
        for item in listing["items"]:
            item.setdefault("apiVersion", self._api_version)
            item.setdefault("kind", self.kind)
            listed[_key(item)] = item
        for key in [key for key in self._objects if key not in listed]:
            self._tell("DELETED", self._objects.pop(key))
        for key, item in listed.items():
            old = self._objects.get(key)
            self._objects[key] = item
            if old is None:
                self._tell("ADDED", item)
            elif old["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._tell("MODIFIED", item)
        self.synced.set()
        return str(listing["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> None:
        while not self._stopped.is_set():
            seen = False
            for event in self._api.watch(
                self._api_version, self.kind, resource_version=version, label_selector=self._selector, timeout_seconds=240
            ):
                seen = True
                item = event["object"]
                version = item["metadata"]["resourceVersion"]
                if event["type"] == "BOOKMARK":
                    continue
                if event["type"] == "DELETED":
                    self._objects.pop(_key(item), None)
                else:
                    self._objects[_key(item)] = item
                self._tell(event["type"], item)
            if not seen:
                # A server that ends every watch at once is restarting: do not spin.
                self._stopped.wait(0.2)

    def _tell(self, what: str, item: Object) -> None:
        try:
            self._changed(what, item)
        except Exception:
            _log.exception("%s %s: handling %s failed", self.kind, item["metadata"]["name"], what)


def _key(item: Object) -> tuple[str, str]:
    metadata: dict[str, Any] = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
