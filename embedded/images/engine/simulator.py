"""llm-d-inference-sim behind the front: its command line from vLLM's, its start, its end.

It knows no key and is given none. It ends with exit code 0 on a wrong flag, so only its answer counts as a start.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedded.agent import syscalls
from embedded.images.engine.checkpoint import Loaded

PROGRAM = "/opt/mistral-on-l4/llm-d-inference-sim"
PROGRAM_VARIABLE = "MISTRAL_ON_L4_INFERENCE_SIM"
POD_VARIABLE = "MISTRAL_ON_L4_POD"
TTFT_ANNOTATION = "mistral-on-l4/predicted-ttft-ms"
TPOT_ANNOTATION = "mistral-on-l4/predicted-tpot-ms"
# For pods without a prediction: quick, and visibly not zero.
_DEFAULT_TTFT_MS, _DEFAULT_TPOT_MS = 20.0, 5.0
_START_SECONDS = 30.0
_INFORMATION = re.compile(r"I\d{4} ")  # klog's first letter is the severity
_STOP_SECONDS = 5.0
# Flags that this stand-in itself acts on. Every other flag of vLLM is checked, and then has nothing here to act on.
ACTED_ON = {
    *("host", "port", "model", "served_model_name", "api_key", "root_path", "disable_uvicorn_access_log"),
    *("max_model_len", "max_num_seqs", "seed", "block_size", "enable_prefix_caching", "config_format", "load_format"),
}


class SimulatorEnded(Exception):
    """It did not start, or ended by itself. One line, with its own last one."""


@dataclass(frozen=True)
class Latency:
    """predicted: whether the pod carried a prediction."""

    ttft_ms: float
    tpot_ms: float
    predicted: bool


def latency(environment: Mapping[str, str]) -> Latency:
    """The plan's prediction from the pod's annotations. A wrong or absent one counts as none."""
    try:
        annotations = json.loads(Path(environment[POD_VARIABLE]).read_text())["annotations"]
        ttft, tpot = float(annotations[TTFT_ANNOTATION]), float(annotations[TPOT_ANNOTATION])
    except (KeyError, OSError, ValueError, TypeError):
        return Latency(_DEFAULT_TTFT_MS, _DEFAULT_TPOT_MS, predicted=False)
    if not (0 <= ttft < 3_600_000 and 0 <= tpot < 3_600_000):
        return Latency(_DEFAULT_TTFT_MS, _DEFAULT_TPOT_MS, predicted=False)
    return Latency(ttft, tpot, predicted=True)


def command(program: str, given: Namespace, model: str, loaded: Loaded, speed: Latency, port: int) -> list[str]:
    """Only flags that the simulator is known to take (tried on 0.10.2)."""
    argv = [program, "--model", model, "--port", str(port), "--force-dummy-tokenizer"]
    argv += ["--served-model-name", *(given.served_model_name or [model])]
    argv += ["--max-model-len", str(loaded.max_model_len), "--max-num-seqs", str(loaded.max_num_seqs)]
    argv += ["--seed", str(given.seed or 0)]  # vLLM's own default is 0 as well
    argv += ["--time-to-first-token", f"{speed.ttft_ms:g}ms", "--inter-token-latency", f"{speed.tpot_ms:g}ms"]
    if given.block_size is not None and given.block_size >= 8:
        argv += ["--block-size", str(given.block_size)]
    if given.enable_prefix_caching is not None:
        argv.append("--enable-prefix-caching" if given.enable_prefix_caching else "--no-enable-prefix-caching")
    return argv


def without_effect(given: Namespace) -> list[str]:
    """Flags that were given and checked and change nothing here, as they are written."""
    return sorted(
        f"--{name.replace('_', '-')}" for name, value in vars(given).items() if value is not None and name not in ACTED_ON
    )


def free_port() -> int:
    """A port of the pod's loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Simulator:
    """The running program. Its output goes to ours, line by line."""

    def __init__(self, argv: list[str], port: int) -> None:
        self.port = port
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG", "TZ") if name in os.environ}
        try:
            self._process = subprocess.Popen(
                argv,
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # A SIGTERM for the container's process group must not reach it before the requests are answered.
                start_new_session=True,
                preexec_fn=lambda: syscalls.end_with_parent(signal.SIGKILL),  # noqa: PLW1509 (no other thread runs yet)
            )
        except OSError as error:
            raise SimulatorEnded(f"{argv[0]}: {error.strerror}") from error
        self._last = ""
        self._reader = threading.Thread(target=self._relay, daemon=True)
        self._reader.start()

    def _relay(self) -> None:
        assert self._process.stdout is not None
        dumping = False
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            # It writes out its whole configuration, eighty lines, and where it listens; ours says what matters.
            dumping = (dumping or '"Configuration:"' in line) and line != " >"
            if dumping or line in ("", " >"):
                continue
            self._last = line[:300]
            if not _INFORMATION.match(line):
                print(f"(simulator) {line}", file=sys.stderr, flush=True)

    def wait_ready(self, stopping: threading.Event) -> None:
        """Raises SimulatorEnded; returns early when `stopping` is set."""
        deadline = time.monotonic() + _START_SECONDS
        while not stopping.is_set():
            if self._answers():
                return
            if self._process.poll() is not None:
                raise SimulatorEnded(self.ended())
            if time.monotonic() > deadline:
                raise SimulatorEnded(f"it did not answer within {_START_SECONDS:.0f} s: {self._last}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as connection:
                connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: simulator\r\nConnection: close\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def wait(self) -> int:
        """Blocks until it ends, returns its exit status."""
        return self._process.wait()

    def ended(self) -> str:
        """What to say of a simulator that has ended."""
        self._reader.join(1.0)
        return f"it ended with exit status {self._process.wait()}: {self._last or 'it wrote nothing'}"

    def stop(self) -> None:
        """Asks it to end, kills it after a while; it has no requests left by then."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
                try:
                    self._process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        self._reader.join(1.0)
