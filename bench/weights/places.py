"""What the benchmark runs between: content, hubs, an S3 server, and measured processes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded.hub.repository import Repository, add
from embedded.hub.safetensors_file import Tensor, header
from mistral_on_l4.manifests.scripts import sources

HERE = Path(__file__).parent
BUCKET = "rhoai-artifacts"
MIB, GIB = 2**20, 2**30
# Nothing listens there.
HUB_NONE = "http://127.0.0.52:1"
_START_SECONDS = 15.0
_RUN_SECONDS = 600.0
_SEEDER = "mistral_on_l4.jobs.seed_weights"


class BenchmarkFailed(Exception):
    """A run that is measured did not do what it is measured for."""


@dataclass(frozen=True)
class Run:
    """One process. cpu_seconds: of itself and its threads; peak_rss_mib; disk_bytes: that it made dirty on any block device."""

    seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    disk_bytes: int
    code: int
    output: str


def roomy_folder(needed_bytes: int) -> Path | None:
    """A folder in memory, so that the disk of this machine is no part of any figure; None if there is not enough."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < needed_bytes:
        return None
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    if int(available.split()[1]) * 1024 < needed_bytes + 2 * GIB:
        return None
    probe = memory / f".bench-{os.getpid()}"
    try:
        probe.touch()
        os.setxattr(probe, "user.probe", b"1")  # the S3 server keeps its metadata there
        return memory
    except OSError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def make_checkpoint(root: Path, name: str, shard_bytes: list[int]) -> Repository:
    """Publishes bench/<name>: random shards of these sizes, their index and a config."""
    source = root / f".{name}"
    source.mkdir(parents=True)
    weight_map = {}
    for number, size in enumerate(shard_bytes, 1):
        shard = f"model-{number:05d}-of-{len(shard_bytes):05d}.safetensors"
        weight_map[f"w{number}"] = shard
        with (source / shard).open("wb") as out:
            out.write(header([Tensor("w", "F8_E4M3", (size,))]))
            for offset in range(0, size, 16 * MIB):
                out.write(os.urandom(min(16 * MIB, size - offset)))
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (source / "config.json").write_text(json.dumps({"architectures": ["MistralForCausalLM"]}))
    (source / "tokenizer.json").write_bytes(os.urandom(4 * MIB))
    return add(root, f"bench/{name}", source)


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class Server:
    """A background process with a health URL."""

    def __init__(self, command: list[str], health: str, log: Path, env: Mapping[str, str] | None = None) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, env=dict(env or os.environ), stdout=out, stderr=out, start_new_session=True)
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(health, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                if self._process.poll() is not None or time.monotonic() > end:
                    self.stop()
                    raise BenchmarkFailed(f"{command[0]} did not start: {log.read_text()[-300:]}") from None
                time.sleep(0.05)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(10)


class HubProcess(Server):
    """A hub of its own process, with a limit per connection or without."""

    def __init__(self, root: Path, log: Path, bytes_per_second: float | None) -> None:
        address = "127.0.0.52"
        self.url = f"http://{address}:{_free_port(address)}"
        command = [sys.executable, "-m", "bench.weights.hub", "--root", str(root), "--listen", self.url.removeprefix("http://")]
        if bytes_per_second:
            command += ["--bytes-per-second", str(bytes_per_second)]
        super().__init__(command, f"{self.url}/healthz", log)

    def sent_bytes(self) -> int:
        with urllib.request.urlopen(f"{self.url}/bench/sent", timeout=5) as answer:
            return int(json.load(answer)["bytes"])


class Bench:
    """The S3 server, and the processes that are measured against it. `python`: the storage initializer's."""

    def __init__(self, folder: Path, versitygw: Path, python: Path) -> None:
        self.folder, self._python = folder, python
        self.data = folder / "s3"
        self.scripts = folder / "scripts"
        self.home = folder / "home"
        for made in (self.data, self.scripts, self.home):
            made.mkdir()
        sources("seed_weights").lay_out(self.scripts)
        address = "127.0.0.53"
        self.url = f"http://{address}:{_free_port(address)}"
        self._keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
        env = {**os.environ, "ROOT_ACCESS_KEY": "bench", "ROOT_SECRET_KEY": self._keys["AWS_SECRET_ACCESS_KEY"]}
        command = [str(versitygw), "--port", self.url.removeprefix("http://"), "--health", "/healthz", "--quiet", "posix"]
        self._server = Server([*command, str(self.data)], f"{self.url}/healthz", folder / "s3.log", env)
        self.run(["-c", f"import boto3; boto3.client('s3').create_bucket(Bucket={BUCKET!r})"], HUB_NONE)

    def close(self) -> None:
        self._server.stop()

    def server_cpu_seconds(self) -> float:
        return self._server.cpu_seconds()

    def environment(self, hub: str) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "PYTHONPATH": str(self.scripts),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_ENDPOINT": hub,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "WEIGHTS_REVISION": "main",
            "WEIGHTS_BUCKET": BUCKET,
            **self._keys,
        }

    def seed(self, hub: str, repository: str, prefix: str, **changes: str) -> Run:
        return self.run(["-m", _SEEDER], hub, WEIGHTS_REPOSITORY=repository, WEIGHTS_PREFIX=prefix, **changes)

    def start_seed(self, hub: str, repository: str, prefix: str) -> subprocess.Popen[bytes]:
        env = {**self.environment(hub), "WEIGHTS_REPOSITORY": repository, "WEIGHTS_PREFIX": prefix}
        return subprocess.Popen(
            [str(self._python), "-m", _SEEDER],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, arguments: list[str], hub: str, **changes: str) -> Run:
        """Runs a Python program to its end. Raises BenchmarkFailed if it fails."""
        command = [str(self._python), *arguments]
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env={**self.environment(hub), **changes}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.home
        )
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.append(process.stdout.read() if process.stdout else b""))
        reader.start()
        killer = threading.Timer(_RUN_SECONDS, process.kill)
        killer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            # Told to stop: the program would run on, and this process wait for its output.
            process.kill()
            raise
        finally:
            killer.cancel()
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        reader.join()
        if process.stdout:
            process.stdout.close()
        output = b"".join(said).decode(errors="replace")
        if process.returncode:
            raise BenchmarkFailed(f"{Path(command[1]).name} ended with {process.returncode}: {output[-500:]}")
        # Linux: kibibytes, and blocks of 512 bytes.
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, usage.ru_oublock * 512, 0, output)

    def wipe(self, prefix: str) -> None:
        """Empties the bucket of a prefix behind the server's back, which a benchmark may."""
        shutil.rmtree(self.data / BUCKET / prefix.rstrip("/"), ignore_errors=True)
        shutil.rmtree(self.data / BUCKET / "_manifests", ignore_errors=True)
        shutil.rmtree(self.data / BUCKET / ".sgwtmp", ignore_errors=True)

    def manifest(self, prefix: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.data / BUCKET / "_manifests" / f"{prefix.rstrip('/')}.json").read_text())
        return document

    def scratch_bytes(self) -> int:
        """What lies in the folders that a job's process takes for its home and for temporary files."""
        return sum(path.stat().st_size for path in self.home.rglob("*") if path.is_file())
