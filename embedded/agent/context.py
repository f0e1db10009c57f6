"""What the agent's parts share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from embedded.agent.events import Recorder
from embedded.home import ClusterInfo, LocalHome
from mistral_on_l4.cluster.client import ApiError, KubeClient, Object


class ProgramLike(Protocol):
    """What stands for an image: see embedded.images.table."""

    @property
    def name(self) -> str: ...
    @property
    def entrypoint(self) -> tuple[str, ...]: ...
    @property
    def overlay(self) -> Mapping[str, Path]: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def note(self) -> str: ...


class NoLocalProgram(Exception):
    """No local program stands for an image. One sentence."""


class Addresses:
    """Made-up pod addresses, each given once. Loopback ones are refused by EndpointSlices, so they are of 10.128.0.0/9."""

    def __init__(self) -> None:
        self._used: dict[str, str] = {}
        self._lock = threading.Lock()
        self._next = 1

    def take(self, uid: str, wanted: str = "") -> str:
        """An address for a pod; the one it had, if it still is free."""
        with self._lock:
            if wanted and self._used.get(wanted, uid) == uid:
                self._used[wanted] = uid
                return wanted
            while True:
                number, self._next = self._next, self._next % (2**23 - 2) + 1
                address = f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
                if number & 255 not in (0, 255) and address not in self._used:
                    self._used[address] = uid
                    return address

    def release(self, uid: str) -> None:
        with self._lock:
            self._used = {address: owner for address, owner in self._used.items() if owner != uid}

    def owner(self, address: str) -> str | None:
        return self._used.get(address)


@dataclass
class Context:
    """program_for raises NoLocalProgram. services, node: from the agent's own copies. network_changed(wait): tells the proxy that
    a pod's network came or went and, with `wait`, returns when its listeners are there (or after a few seconds)."""

    home: LocalHome
    cluster: ClusterInfo
    api: KubeClient
    recorder: Recorder
    program_for: Callable[[str], ProgramLike]
    services: Callable[[], list[Object]]
    node: Callable[[str], Object | None]
    network_changed: Callable[[bool], None]
    addresses: Addresses = field(default_factory=Addresses)
    # Probes block for up to their timeout; a hung server must not hold the others up.
    executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(24, "probe"))

    def lookup(self, namespace: str) -> Callable[[str, str], Object | None]:
        """ConfigMaps and Secrets of a namespace by (kind, name)."""

        def find(kind: str, name: str) -> Object | None:
            try:
                return self.api.get("v1", kind, name, namespace)
            except ApiError as error:
                if error.status == 404:
                    return None
                raise

        return find

    def pod_folder(self, uid: str) -> Path:
        return self.home.pods / uid


def pod_name(pod: Mapping[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
