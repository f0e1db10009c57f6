from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from embedded.images.model_registry.registry import Registry
from embedded.images.model_registry.server import RegistryServer
from embedded.images.model_registry.store import Store

Call = Callable[..., requests.Response]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    running = RegistryServer("127.0.0.1", 0)
    store = Store(tmp_path / "registry.sqlite")
    running.registry = Registry(store)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running
    running.shutdown()
    assert running.drain(5)
    running.server_close()
    store.close()


@pytest.fixture
def call(server: RegistryServer) -> Iterator[Call]:
    """call(method, path, json=..., **query) on v1alpha3; `version` picks another prefix."""
    with requests.Session() as session:

        def send(
            method: str, path: str, json: Any = None, data: bytes | None = None, version: str = "v1alpha3", **query: str
        ) -> requests.Response:
            url = f"http://127.0.0.1:{server.port}/api/model_registry/{version}/{path}"
            return session.request(method, url, json=json, data=data, params=query, timeout=10)

        yield send


@pytest.fixture
def make(call: Call) -> Callable[[str, Mapping[str, Any]], dict[str, Any]]:
    """make(path, body): the resource that a POST created."""

    def post(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = call("POST", path, json=dict(body))
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    return post
