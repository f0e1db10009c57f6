"""The seed job as it runs in its image: the mounted package, the image's locked packages, a real S3 server, a hub that can misbehave."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from embedded.hub.repository import Repository, add
from embedded.hub.safetensors_file import Tensor, header
from embedded.hub.server import HubContent
from embedded.hub.trouble import TroubledHub
from embedded.progress import PlainReport
from embedded.toolchain import ensure_tools
from mistral_on_l4.manifests.scripts import sources

BUCKET, PREFIX, REPOSITORY = "rhoai-artifacts", "mistral-24b/", "mistralai/Mistral-Small-24B-Instruct-2501"
KEYS = ("testkey", secrets.token_hex(16))
MIB = 2**20
# Bounds what hangs; a busy machine may take a minute to start a Python.
DEADLINE_SECONDS = 300.0
# versitygw gives open connections ten seconds when it is told to end; a wait of the same length is a coin toss.
STOP_SECONDS = 30.0


@pytest.fixture(scope="session")
def tools() -> dict[str, Path]:
    return ensure_tools(["versitygw", "storage-initializer-python"], PlainReport())


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    sources("seed_weights").lay_out(folder)
    return folder


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class S3:
    """A versitygw of its own. `client` is for looking, not for the job."""

    address = "127.0.0.41"

    def __init__(self, program: Path, folder: Path, wrap: tuple[str, ...] = ()) -> None:
        self._program, self.folder, self._wrap = program, folder, wrap
        self.port = free_port(self.address)
        self.url = f"http://{self.address}:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder.parent / f"{folder.name}.log"
        self.start()
        config = Config(signature_version="s3v4", retries={"total_max_attempts": 2}, connect_timeout=2, read_timeout=20)
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEYS[0],
            aws_secret_access_key=KEYS[1],
            region_name="us-east-1",
            config=config,
        )

    def start(self) -> None:
        env = {**os.environ, "ROOT_ACCESS_KEY": KEYS[0], "ROOT_SECRET_KEY": KEYS[1]}
        command = [*self._wrap, str(self._program), "--port", f"{self.address}:{self.port}", "--health", "/healthz", "--quiet"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "posix", str(self.folder)], env=env, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 10
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < end, "versitygw does not answer"
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise

    def keys(self, prefix: str = "") -> dict[str, int]:
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {item["Key"]: item["Size"] for item in found}

    def bytes(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def uploads(self) -> list[dict[str, Any]]:
        return list(self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=PREFIX).get("Uploads", []))

    def manifest(self) -> dict[str, Any] | None:
        return json.loads(self.bytes("_manifests/mistral-24b.json")) if "_manifests/mistral-24b.json" in self.keys() else None


@pytest.fixture
def s3(tools: dict[str, Path], tmp_path: Path) -> Iterator[S3]:
    server = S3(tools["versitygw"], tmp_path / "s3")
    server.client.create_bucket(Bucket=BUCKET)
    yield server
    server.stop()


Hook = Callable[[str, str], "int | None"]


class Proxy(ThreadingHTTPServer):
    """In front of the S3 server. hook(method, raw path) runs before a request goes on: None lets it, a status answers it instead."""

    daemon_threads = True

    def __init__(self, s3: S3) -> None:
        self.hook: Hook = lambda _method, _path: None
        self.answers: dict[int, bytes] = {}
        self.s3 = s3
        super().__init__(("127.0.0.42", 0), _ProxyHandler)
        # A killed client is what some tests are about.
        self.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.42:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = self.server.hook(self.command, self.path)
        if status is not None:
            self._answer(status, [("Content-Type", "application/xml")], self.server.answers.get(status, b""))
            return
        connection = HTTPConnection(self.server.s3.address, self.server.s3.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "expect")}
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            connection.close()
        named = [(name, value) for name, value in answer.getheaders() if name.lower() not in ("connection", "transfer-encoding")]
        if self.command != "HEAD":
            named = [(name, value) for name, value in named if name.lower() != "content-length"]
        self._answer(answer.status, named, content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        try:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def proxy(s3: S3) -> Iterator[Proxy]:
    running = Proxy(s3)
    yield running
    running.shutdown()
    running.server_close()


def checkpoint(root: Path, *, seed: int = 1, shards: int = 3, shard_bytes: int = 17 * MIB + 11) -> Repository:
    """A repository of noise: shards with an index, and files that must stay behind."""
    source = root / f"source-{seed}"
    source.mkdir(parents=True)
    names = [f"model-{number:05d}-of-{shards:05d}.safetensors" for number in range(1, shards + 1)]
    for number, name in enumerate(names):
        (source / name).write_bytes(_shard(_noise(f"{seed}-{number}", shard_bytes + number)))
    index = {"metadata": {}, "weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    (source / "config.json").write_text(json.dumps({"architectures": ["MistralForCausalLM"], "seed": seed}))
    (source / "tokenizer.json").write_bytes(_noise("tokenizer", 3 * MIB))
    for name in ("consolidated.safetensors", "params.json", "model.gguf", "README.md"):
        (source / name).write_bytes(b"not wanted")
    (source / "original").mkdir()
    (source / "original" / "model.safetensors").write_bytes(b"not wanted")
    return add(root, REPOSITORY, source)


def _shard(content: bytes) -> bytes:
    """A safetensors file of as many bytes as `content`, whose first bytes become its header."""
    empty = len(header([Tensor("w", "F8_E4M3", (len(content),))]))
    start = header([Tensor("w", "F8_E4M3", (len(content) - empty,))])
    return start + content[len(start) :]


def _noise(seed: str, count: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(count)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return checkpoint(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def hub(repository: Repository) -> Iterator[TroubledHub]:
    with TroubledHub(("127.0.0.43", 0), HubContent({repository.id: repository}), quiet=True) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


@dataclass
class Run:
    """A finished job. last: its last line, which says why."""

    code: int
    output: str

    @property
    def last(self) -> str:
        return self.output.strip().splitlines()[-1]

    @property
    def from_hub_bytes(self) -> float:
        found = re.search(r"; ([\d.]+) (MB|GB) came from the hub", self.output)
        return float(found[1]) * {"MB": 1e6, "GB": 1e9}[found[2]] if found else 0.0


@dataclass
class Seeder:
    """Starts the job's process. environment is changed by tests."""

    python: Path
    scripts: Path
    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[str] | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, **changes: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [str(self.python), "-m", "mistral_on_l4.jobs.seed_weights"],
            env={**self.environment, **changes},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(self.process)
        return self.process

    def finish(self) -> Run:
        assert self.process
        output, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        return Run(self.process.returncode, output)

    def run(self, **changes: str) -> Run:
        self.start(**changes)
        return self.finish()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def seeder(tools: dict[str, Path], scripts: Path, hub: TroubledHub, s3: S3, tmp_path: Path) -> Iterator[Seeder]:
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "PYTHONPATH": str(scripts),
        "TMPDIR": str(home),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "WEIGHTS_REPOSITORY": REPOSITORY,
        "WEIGHTS_REVISION": "main",
        "WEIGHTS_BUCKET": BUCKET,
        "WEIGHTS_PREFIX": PREFIX,
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEYS[0],
        "AWS_SECRET_ACCESS_KEY": KEYS[1],
        # Patience for a real hub would make each of these tests take minutes.
        "WEIGHTS_PART_MIB": "5",
        "WEIGHTS_PAUSE_SECONDS": "0.05",
        "WEIGHTS_PAUSE_MOST_SECONDS": "0.2",
        "WEIGHTS_STALL_SECONDS": "1",
        "WEIGHTS_OUTAGE_SECONDS": "30",
    }
    running = Seeder(tools["storage-initializer-python"], scripts, home, environment)
    yield running
    for process in running.started:
        if process.poll() is None:
            process.kill()
        if process.stdout:
            process.stdout.close()
        process.wait(10)
    assert list(home.iterdir()) == [], "the job wrote to disk"


@pytest.fixture
def assert_seeded(s3: S3, repository: Repository) -> Callable[[], None]:
    """Every wanted file is in the bucket byte for byte, nothing else is, and the manifest says so."""

    def check(expected: Repository = repository) -> None:
        manifest = s3.manifest()
        assert manifest is not None
        assert manifest["commit"] == expected.commit
        wanted = {
            path: entry
            for path, entry in expected.entries.items()
            if path.startswith(("model-", "model.safetensors.index", "config", "tokenizer"))
        }
        assert {file["path"]: (file["size"], file["sha256"]) for file in manifest["files"]} == {
            path: (entry.size, entry.sha256) for path, entry in wanted.items()
        }
        assert set(s3.keys(PREFIX)) == {PREFIX + path for path in wanted}
        for path, entry in wanted.items():
            assert hashlib.sha256(s3.bytes(PREFIX + path)).hexdigest() == entry.sha256
        assert s3.uploads() == []
        assert set(s3.keys("_manifests/")) == {"_manifests/mistral-24b.json"}

    return check


@pytest.fixture
def make_checkpoint() -> Callable[..., Repository]:
    return checkpoint


@pytest.fixture
def make_s3(tools: dict[str, Path]) -> Callable[[Path, tuple[str, ...]], S3]:
    return lambda folder, wrap: S3(tools["versitygw"], folder, wrap)
