"""`python -m bench.stack.chaos`: random changes of configuration and kills, each followed by `demo up`, which has to set all right.

After each turn both services answer, and the bucket's bytes and the registry's entries are what they were. None of the changes is
one that says that it loses data. The last line is JSON: cases, came_up, data_lost.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

from bench.machine import machine
from bench.stack.measured import CommandFailed, MeasuredStack
from embedded import processes
from embedded.home import CHECKOUT, LocalHome
from embedded.toolchain.commands import terminated_like_interrupted
from mistral_on_l4.cluster.client import KubeClient
from mistral_on_l4.cluster.live import service_address
from mistral_on_l4.config.names import WRITER_SECRET
from mistral_on_l4.config.settings import Settings, load_stack_file
from mistral_on_l4.jobs.weights_record import FOLDER
from mistral_on_l4.manifests.object_store import NAME as MINIO
from mistral_on_l4.manifests.registry import API, service_name

WITNESS = "somebodys/notes.txt"
# What a person may change on a running stack without losing anything.
CHANGES: tuple[Mapping[str, Any], ...] = (
    {},
    {"registry": {"owner": "another-team"}},
    {"services": {"mistral-24b-fp8": {"maxModelLen": 4096}}},
    {"services": {"mistral-24b-full": {"maxModelLen": 8192}}},
    {"pools": {"groups": {"l4-1gpu": {"count": 2}}}},
)
# Objects that a person may delete by mistake, none of which holds data.
DELETED = ("secret/vllm-api-key", "serviceaccount/service-checker", "configmap -l app.kubernetes.io/part-of=mistral-on-l4")
# How far into an `up` a pulumi is killed, in seconds.
KILL_SECONDS = (0.5, 12.0)


@dataclass
class Outcome:
    """cases: turns; came_up: turns after which both services answered; lost: what a turn lost, in words."""

    cases: int = 0
    came_up: int = 0
    lost: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        return {"cases": self.cases, "came_up": self.came_up, "data_lost": len(self.lost)}


class Chaos:
    """A stack whose program is a copy that may be changed; the shipped files are never touched."""

    def __init__(self, stack: MeasuredStack, folder: Path, seed: int) -> None:
        self._stack, self._folder, self._random = stack, folder / "chaos", random.Random(seed)
        self._folder.mkdir()
        for name in ("__main__.py", "Pulumi.yaml", "Pulumi.local.yaml"):
            shutil.copy(CHECKOUT / name, self._folder)
        shutil.copytree(CHECKOUT / "components", self._folder / "components")

    def run(self, turns: int) -> Outcome:
        """Up, then so many turns. Raises CommandFailed if the very first up does not work."""
        outcome = Outcome()
        self._up()
        # Weights would be fetched again and look the same.
        s3, bucket = self._store()
        s3.put_object(Bucket=bucket, Key=WITNESS, Body=b"put here by somebody, once")
        before = self._data()
        for turn in range(turns):
            what, deed = self._next()
            print(f"turn {turn + 1} of {turns}: {what}", flush=True)
            deed()
            outcome.cases += 1
            try:
                self._up()
                outcome.came_up += 1
            except CommandFailed as error:
                print(f"  did not come up: {error}", flush=True)
                continue
            if lost := [f"{kind}: {name}" for kind, kept in self._data().items() for name in sorted(before[kind] - kept)]:
                print(f"  lost: {', '.join(lost)}", flush=True)
                outcome.lost += lost
        return outcome

    def _next(self) -> tuple[str, Callable[[], object]]:
        """The next deed of chance, in words and as a call."""
        change, seconds = self._random.choice(CHANGES), self._random.uniform(*KILL_SECONDS)
        part, thing = self._random.choice(processes.PARTS), self._random.choice(DELETED)
        return self._random.choice(
            (
                (f"configuration {json.dumps(change)}", lambda: self._configure(change)),
                (
                    f"configuration {json.dumps(change)}, kill -9 of pulumi {seconds:.1f} s into it",
                    lambda: self._killed(change, seconds),
                ),
                (f"kill -9 of {part}", lambda: self._kill(part)),
                (f"kubectl delete {thing}", lambda: self._delete(thing)),
                ("everything stopped, and kill -9 of pulumi", lambda: self._restarted(seconds)),
            )
        )

    def _configure(self, change: Mapping[str, Any]) -> None:
        document = yaml.safe_load((CHECKOUT / "Pulumi.local.yaml").read_text())
        document["config"] |= {f"mistral-on-l4:{key}": value for key, value in change.items()}
        (self._folder / "Pulumi.local.yaml").write_text(yaml.safe_dump(document))

    def _killed(self, change: Mapping[str, Any], seconds: float) -> None:
        self._configure(change)
        with (self._folder / "killed.log").open("w") as out:
            command = [sys.executable, "-m", "mistral_on_l4", "up"]
            up = subprocess.Popen(command, cwd=self._folder, env=self._environment(), stdout=out, stderr=subprocess.STDOUT)
            while (pulumi := self._pulumi(up.pid)) is None and up.poll() is None:
                time.sleep(0.05)
            try:
                up.wait(seconds)
            except subprocess.TimeoutExpired:
                if pulumi is not None and Path(f"/proc/{pulumi}").exists():
                    os.kill(pulumi, signal.SIGKILL)
            up.wait()

    def _pulumi(self, parent: int) -> int | None:
        """The pulumi that brings the stack up, once a command has started it."""
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split() if Path(f"/proc/{parent}").exists() else ():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") if Path(f"/proc/{child}").exists() else []
            if words[:2] == [b"pulumi", b"up"]:
                return int(child)
        return None

    def _kill(self, part: str) -> None:
        running = processes.find(self._stack.home, part)
        if running is not None:
            os.kill(running.pid, signal.SIGKILL)

    def _delete(self, thing: str) -> None:
        namespace = self._settings().namespaces.services
        self._stack.run("kubectl", "delete", *thing.split(), "-n", namespace, "--ignore-not-found")

    def _restarted(self, seconds: float) -> None:
        for part in processes.PARTS:
            self._kill(part)
        self._killed({}, seconds)

    def _up(self) -> None:
        command = [sys.executable, "-m", "mistral_on_l4", "up"]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment(), text=True, capture_output=True, timeout=1200, check=False
        )
        if done.returncode:
            raise CommandFailed(f"demo up ended with {done.returncode}: {done.stderr.strip()[-1000:]}\n{done.stdout[-3000:]}")

    def _environment(self) -> dict[str, str]:
        return {**self._stack.base_environment, "PYTHONPATH": str(CHECKOUT)}

    def _settings(self) -> Settings:
        return load_stack_file("local", self._folder)

    def _store(self) -> tuple[Any, str]:
        """A client of the object store with the writer's keys, and the bucket."""
        import boto3

        settings = self._settings()
        client = KubeClient.from_kubeconfig(self._stack.home.kubeconfig)
        namespace = settings.namespaces.object_store
        keys = client.get("v1", "Secret", WRITER_SECRET, namespace)["data"]
        s3 = boto3.client(
            "s3",
            endpoint_url=service_address(client, MINIO, namespace, self._stack.home.cluster().port_shift),
            region_name=settings.object_store.region,
            aws_access_key_id=base64.b64decode(keys["AWS_ACCESS_KEY_ID"]).decode(),
            aws_secret_access_key=base64.b64decode(keys["AWS_SECRET_ACCESS_KEY"]).decode(),
        )
        return s3, settings.object_store.bucket

    def _objects(self) -> Iterator[tuple[str, str]]:
        """(key, SHA-256) of every object but the notes of the seed jobs, which say when they ran."""
        s3, bucket = self._store()
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", []):
                if not entry["Key"].startswith(FOLDER):
                    body = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
                    yield entry["Key"], hashlib.sha256(body).hexdigest()

    def _data(self) -> dict[str, set[str]]:
        """What must not get lost: the bucket's objects with their digests, and the registry's models, each as one line."""
        settings = self._settings()
        client = KubeClient.from_kubeconfig(self._stack.home.kubeconfig)
        shift = self._stack.home.cluster().port_shift
        url = service_address(client, service_name(settings.registry.name), settings.namespaces.registry, shift)
        models = requests.get(f"{url}{API}/registered_models", timeout=30).json()["items"]
        return {
            "object": {f"{key} {digest}" for key, digest in self._objects()},
            "registry entry": {f"{model['id']} {model['name']} {model['state']}" for model in models},
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.stack.chaos")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(machine(), flush=True)
    with terminated_like_interrupted(), tempfile.TemporaryDirectory(prefix="bench-chaos-") as folder:
        stack = MeasuredStack(LocalHome(Path(folder) / "home"), Path(folder))
        try:
            outcome = Chaos(stack, Path(folder), given.seed).run(given.turns)
        finally:
            stack.demo("down", "--purge", check=False)
    print(json.dumps(outcome.figures()))
    return 0 if outcome.came_up == outcome.cases and not outcome.lost else 1


if __name__ == "__main__":
    sys.exit(main())
