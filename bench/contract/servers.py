"""The two servers of the contract: vLLM itself and its simulation, with the same command line, each on a port of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests

from embedded.images.engine.__main__ import VERSION_VARIABLE
from embedded.images.engine.flags import MODULE
from embedded.images.engine.simulator import PROGRAM_VARIABLE
from embedded.images.vllm_cpu.__main__ import DEFAULTS, EAGER

KEY = "contract-key"
MODEL = "small"
# vLLM's imports alone take half a minute on an idle machine.
START_SECONDS = 900.0
STOP_SECONDS = 30.0


class NotStarted(Exception):
    """A server ended or did not become healthy. One line with the log."""


@dataclass
class Server:
    """A running server. while_loading: what /health returned before it was ready; "refused" for no listener."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    while_loading: set[str] = field(default_factory=set)
    start_seconds: float = 0.0

    def wait_ready(self) -> None:
        began = time.monotonic()
        while time.monotonic() < began + START_SECONDS:
            if self.process.poll() is not None:
                raise NotStarted(f"{self.name} ended with exit status {self.process.returncode}: {self.log}")
            try:
                status = requests.get(f"{self.url}/health", timeout=5).status_code
            except requests.ConnectionError:
                self.while_loading.add("refused")
            else:
                if status == 200:
                    self.start_seconds = time.monotonic() - began
                    return
                self.while_loading.add(str(status))
            time.sleep(0.2)
        raise NotStarted(f"{self.name} was not healthy after {START_SECONDS:.0f} s: {self.log}")


def words(checkpoint: Path, port: int, *more: str) -> list[str]:
    """What the plan's services say, as far as one small model on one device goes."""
    own = [f"--port={port}", "--host=127.0.0.1", f"--model={checkpoint}", f"--served-model-name={MODEL}"]
    return [*own, "--max-model-len=2048", "--max-num-seqs=16", "--gpu-memory-utilization=0.88", *more]


@contextlib.contextmanager
def real(python: Path, checkpoint: Path, folder: Path, *more: str) -> Iterator[Server]:
    port = _free_port()
    environment = {
        **_plain(),
        **DEFAULTS,
        "VLLM_API_KEY": KEY,
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    environment["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
    command = [str(python), "-m", MODULE, *words(checkpoint, port, EAGER, *more)]
    with _running("vLLM", command, environment, port, folder) as server:
        yield server


@contextlib.contextmanager
def simulated(simulator: Path, version: str, checkpoint: Path, folder: Path, *more: str) -> Iterator[Server]:
    port = _free_port()
    environment = {**_plain(), "VLLM_API_KEY": KEY, VERSION_VARIABLE: version, PROGRAM_VARIABLE: str(simulator)}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "embedded.images.engine", "-m", MODULE, *words(checkpoint, port, *more)]
    with _running("simulation", command, environment, port, folder) as server:
        yield server


@contextlib.contextmanager
def _running(name: str, command: list[str], environment: Mapping[str, str], port: int, folder: Path) -> Iterator[Server]:
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=dict(environment), stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        yield Server(name, f"http://127.0.0.1:{port}", process, log)
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)


def _plain() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LANG", "TZ", "TMPDIR") if name in os.environ}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
