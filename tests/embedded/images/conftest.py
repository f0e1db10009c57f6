"""A pod's network without the agent, the tools that images map to, and generated checkpoints."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from embedded.home import CHECKOUT
from embedded.hub import checkpoints, repository
from embedded.progress import PlainReport
from embedded.toolchain import ensure_tools

IMAGES = CHECKOUT / "embedded" / "images"


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def find_tool(name: str) -> str:
    """A tool of the local stack, built now if it is neither in the cache nor on PATH."""
    return str(ensure_tools([name], PlainReport())[name])


@dataclasses.dataclass
class Started:
    """A program in the pod's network, its output in a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text()

    def wait(self) -> int:
        """Its exit code. The engine's stand-in gives its simulator 30 s to start and running answers 25 s to end."""
        return self.process.wait(60)


class PodNetwork:
    """A network namespace with `lo` only, as the agent makes one per pod."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._door = folder / "door"
        self._started: list[Started] = []
        self._holder = subprocess.Popen(
            ["unshare", "-Urn", "--kill-child", sys.executable, str(Path(__file__).with_name("inside.py")), str(self._door)],
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        while not self._door.exists():
            if self._holder.poll() is not None:
                assert self._holder.stderr is not None
                pytest.skip(f"no user namespaces here: {self._holder.stderr.read().decode()}")
            if time.monotonic() > deadline:
                self.close()
                raise AssertionError("the pod's network was not made within 60 s")
            time.sleep(0.01)
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        # With --kill-child, unshare forks: the namespace is the child's.
        self._inside = int(children[0]) if children else self._holder.pid

    def start(self, command: Sequence[str], environment: Mapping[str, str], name: str = "program") -> Started:
        log = self.folder / f"{name}-{len(self._started)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(self._inside), *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        self._started.append(Started(process, log))
        return self._started[-1]

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """A command in there, to its end."""
        inside = ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(self._inside), *command]
        return subprocess.run(inside, env=dict(environment), capture_output=True, text=True, timeout=30, check=False)

    def connect(self, port: int) -> socket.socket:
        """A connection to a port in there. Raises ConnectionError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.connect(str(self._door))
            door.sendall(json.dumps({"port": port}).encode())
            answer, descriptors, _, _ = socket.recv_fds(door, 1024, 1)
        if not descriptors:
            raise ConnectionError(answer.decode())
        connection = socket.socket(fileno=descriptors[0])
        connection.settimeout(30)
        return connection

    def http(self, port: int) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.sock = self.connect(port)
        return connection

    def request(
        self, port: int, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = self.http(port)
        data = json.dumps(body).encode() if body is not None else None
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, answer

    def listening(self, port: int) -> bool:
        try:
            self.connect(port).close()
        except ConnectionError:
            return False
        return True

    def close(self) -> None:
        for process in [*(started.process for started in self._started), self._holder]:
            process.kill()
        for process in [*(started.process for started in self._started), self._holder]:
            process.wait()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[PodNetwork]:
    network = PodNetwork(tmp_path)
    yield network
    network.close()


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    return find_tool


@pytest.fixture(scope="session")
def await_condition() -> Callable[[Callable[[], bool], float, str], None]:
    return wait_for


@pytest.fixture(scope="session")
def image_environment() -> dict[str, str]:
    """What the agent gives every container, with the project's package where it lies on this machine."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "MISTRAL_ON_L4_PYTHON": sys.executable, "MISTRAL_ON_L4_PACKAGES": str(CHECKOUT)}


@pytest.fixture(scope="session")
def images() -> Path:
    return IMAGES


@pytest.fixture(scope="session")
def small_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """precision -> folder of the local hub's generator, with a few MiB each, without the decoy in Mistral's own format."""
    root = tmp_path_factory.mktemp("hub")
    small = tuple(dataclasses.replace(made, layers=1, shard_bytes=8 * 2**20) for made in checkpoints.CHECKPOINTS)
    folders: dict[str, Path] = {}
    for made, found in zip(small, repository.prepare(root, small).values(), strict=True):
        target = root / "models" / made.precision
        target.mkdir(parents=True)
        for entry in found.entries.values():
            if not entry.path.startswith(("consolidated", "params.json")):
                (target / entry.path).parent.mkdir(parents=True, exist_ok=True)
                (target / entry.path).hardlink_to(found.folder / entry.path)
        folders[made.precision] = target
    return folders
