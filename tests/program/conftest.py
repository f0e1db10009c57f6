"""The whole program on the recording engine; platform `local` finds a home whose API server is a stub that knows one namespace."""

from __future__ import annotations

import http.server
import json
import runpy
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded.home import HOME_VARIABLE, LocalHome
from tests.support.cluster import pretend_started
from tests.support.engine import Engine, run

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

# What the registration Jobs leave behind, and the program reads.
IDS = {"registeredModelId": "7", "modelVersionId": "9", "modelArtifactId": "11"}


def answering_engine() -> Engine:
    return Engine(outputs={"kubernetes:core/v1:ConfigMap": {"data": IDS}})


@pytest.fixture(scope="session")
def project_folder() -> Path:
    return PROJECT


@pytest.fixture
def namespace_owners() -> dict[str, str]:
    """Namespace -> the stack that its label names. Empty: the cluster knows none of ours."""
    return {}


@pytest.fixture
def local_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespace_owners: dict[str, str]) -> Iterator[Path]:
    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            if self.path == "/api/v1":
                status, body = 200, {"resources": [{"name": "namespaces", "kind": "Namespace", "namespaced": False}]}
            elif name in namespace_owners:
                status, body = 200, {"metadata": {"name": name, "labels": {"mistral-on-l4/stack": namespace_owners[name]}}}
            else:
                status, body = 404, {"kind": "Status", "reason": "NotFound", "message": f"{self.path} not found", "code": 404}
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    home = LocalHome.default()
    pretend_started(home, f"http://127.0.0.1:{server.server_port}")
    yield home.root
    server.shutdown()
    server.server_close()


@pytest.fixture
def run_program(project_folder: Path) -> Callable[..., Engine]:
    """Runs __main__.py on a recording engine: run_program(stack="local", preview=False, engine=None, in_clear=(), **config)."""

    def program(
        stack: str = "local",
        preview: bool = False,
        engine: Engine | None = None,
        in_clear: Collection[str] = (),
        **config: Any,
    ) -> Engine:
        document = yaml.safe_load((project_folder / f"Pulumi.{stack}.yaml").read_text())["config"]
        values = {key.partition(":")[2]: value for key, value in document.items() if key.startswith("mistral-on-l4:")} | config
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        main = str(project_folder / "__main__.py")
        return run(lambda: runpy.run_path(main), engine or answering_engine(), stack, texts, preview, in_clear)

    return program


@pytest.fixture
def recorder() -> Engine:
    """An engine to look at when the program itself raises."""
    return answering_engine()
