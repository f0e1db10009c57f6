"""Pods of small scripts, and waiting for what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from mistral_on_l4.cluster.client import ApiError, KubeClient

# The image whose program is a shell and a Python with packages; its entrypoint is never used here.
IMAGE = "docker.io/kserve/storage-initializer:v0.20.0"
T = TypeVar("T")
Object = dict[str, Any]


@dataclass(frozen=True)
class Lab:
    """One namespace of a cluster, and what tests do in it."""

    client: KubeClient
    namespace: str

    def eventually(self, probe: Callable[[], T | None], seconds: float = 30.0) -> T:
        deadline = time.monotonic() + seconds
        while True:
            if answer := probe():
                return answer
            assert time.monotonic() < deadline, f"did not happen within {seconds:.0f} s; last answer: {answer!r}"
            time.sleep(0.05)

    def create(self, api_version: str, kind: str, name: str, **fields: Any) -> Object:
        metadata = {"name": name, "namespace": self.namespace, **fields.pop("metadata", {})}
        return self.client.create({"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields})

    def pod(
        self, name: str, script: str = "", metadata: Object | None = None, container: Object | None = None, **spec: Any
    ) -> Object:
        """A pod with one container that runs a shell script."""
        self.eventually(lambda: self.exists("ServiceAccount", "default"))
        main = {"name": "main", **shell(script), **(container or {})}
        return self.create(
            "v1", "Pod", name, metadata=metadata or {}, spec={"containers": [main], "restartPolicy": "Never", **spec}
        )

    def get(self, kind: str, name: str, api_version: str = "v1") -> Object | None:
        try:
            return self.client.get(api_version, kind, name, self.namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def exists(self, kind: str, name: str, api_version: str = "v1") -> bool:
        return self.get(kind, name, api_version) is not None

    def phase(self, name: str, wanted: str, seconds: float = 30.0) -> Object:
        def reached() -> Object | None:
            found = self.get("Pod", name) or {}
            return found if found.get("status", {}).get("phase") == wanted else None

        return self.eventually(reached, seconds)

    def container(self, name: str, container: str = "main") -> Object:
        found = self.get("Pod", name) or {}
        statuses = found.get("status", {})
        every = [*statuses.get("containerStatuses", []), *statuses.get("initContainerStatuses", [])]
        return next((each for each in every if each["name"] == container), {})

    def waiting(self, name: str, reason: str, seconds: float = 30.0) -> Object:
        def reached() -> Object | None:
            waiting = self.container(name).get("state", {}).get("waiting", {})
            return waiting if waiting.get("reason") == reason else None

        return self.eventually(reached, seconds)

    def log(self, name: str, **query: Any) -> str:
        """By way of the API server, as kubectl asks for it."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/log"
        return str(self.client.request("GET", path, params={key: str(value) for key, value in query.items()}).get("text", ""))

    def events(self, name: str) -> list[tuple[str, str]]:
        listing = self.client.list("v1", "Event", self.namespace, field_selector=f"involvedObject.name={name}")
        return [(each["reason"], each["message"]) for each in listing["items"]]


def shell(script: str) -> Object:
    return {"image": IMAGE, "command": ["/bin/sh", "-c", script]}


@pytest.fixture
def sh() -> Callable[[str], Object]:
    """The part of a container that runs a shell script."""
    return shell


@pytest.fixture
def lab(cluster: Any, namespace: str) -> Lab:
    return Lab(cluster.client, namespace)


@pytest.fixture
def lab_of() -> Callable[[KubeClient, str], Lab]:
    """A lab in another cluster than the shared one."""
    return Lab
