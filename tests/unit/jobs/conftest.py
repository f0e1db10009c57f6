from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from embedded.images.model_registry.registry import Registry
from embedded.images.model_registry.server import RegistryServer
from embedded.images.model_registry.store import Store


@pytest.fixture
def registry_server() -> Iterator[RegistryServer]:
    running = RegistryServer("127.0.0.1", 0)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running
    running.shutdown()
    running.drain(5)
    running.server_close()


@pytest.fixture
def fresh_registry(registry_server: RegistryServer) -> Callable[[], AbstractContextManager[str]]:
    """with fresh_registry() as url: an empty registry, behind the same address each time."""

    @contextmanager
    def fresh() -> Iterator[str]:
        store = Store(Path(":memory:"))
        registry_server.registry = Registry(store)
        yield f"http://127.0.0.1:{registry_server.port}"
        # A request whose client died may still be in the server's hands.
        assert registry_server.drain(5)
        store.close()

    return fresh


@pytest.fixture
def registry_url(fresh_registry: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    with fresh_registry() as url:
        yield url


class RecordingKubernetes(ThreadingHTTPServer):
    """ConfigMaps and Jobs of one namespace, as far as the job calls them; every call is kept in `calls`.

    answers: (method, path ending) -> status that is given once instead.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Kubernetes)
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.once: dict[tuple[str, str], int] = {}
        self.token = "t0ken"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Kubernetes(BaseHTTPRequestHandler):
    server: RecordingKubernetes

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        self.server.calls.append((self.command, self.path))
        status, answer = self._answer(body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, body: Any) -> tuple[int, dict[str, Any]]:
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return 401, {"message": "Unauthorized"}
        if status := self.server.once.pop((self.command, self.path.rsplit("/", 1)[-1]), None):
            return status, {"message": "once"}
        if self.command == "POST":
            path = f"{self.path}/{body['metadata']['name']}"
            if path in self.server.objects:
                return 409, {"message": "already exists"}
            self.server.objects[path] = {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}
            return 201, self.server.objects[path]
        if self.path not in self.server.objects:
            return 404, {"message": "not found"}
        found = self.server.objects[self.path]
        if self.command == "PUT":
            version = found["metadata"]["resourceVersion"]
            if body["metadata"].get("resourceVersion") != version:
                return 409, {"message": "the object has been modified"}
            found = {**body, "metadata": {**body["metadata"], "resourceVersion": str(int(version) + 1)}}
            self.server.objects[self.path] = found
        return 200, found

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def kubernetes() -> Iterator[RecordingKubernetes]:
    running = RecordingKubernetes()
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()
