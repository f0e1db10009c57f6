"""The local stack as the benchmark drives it: by the commands that people use, in a home of its own."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.empty_program import write_empty_program
from embedded import plugins, processes
from embedded.home import CHECKOUT, HOME_VARIABLE, LocalHome
from tests.support.configuration import only_pools, only_services

COMMAND_SECONDS = 1800


class CommandFailed(Exception):
    """A command of the benchmark did not work; holds the end of its output."""


class MeasuredStack:
    """A stack in `home`; programs other than the shipped one are made below `folder`."""

    def __init__(self, home: LocalHome, folder: Path) -> None:
        self.home = home
        self.program = CHECKOUT
        self._folder = folder
        self.base_environment = {**os.environ, HOME_VARIABLE: str(home.root), "COLUMNS": "160"}

    def environment(self) -> Mapping[str, str]:
        return {**self.base_environment, **plugins.pulumi_environment(self.home, self.home.cluster())}

    def demo(self, *arguments: str, check: bool = True) -> str:
        return self._run([sys.executable, "-m", "mistral_on_l4", *arguments], CHECKOUT, self.base_environment, check)

    def run(self, *command: str, stdin: str | None = None) -> str:
        return self._run(list(command), self.program, self.environment(), True, stdin)

    def preview(self, program: Path, stack: str = "local") -> str:
        command = ["pulumi", "preview", "--stack", stack, "--non-interactive", "--color", "never"]
        return self._run(command, program, self.environment(), True)

    def last_changes(self) -> dict[str, int]:
        """What the last update changed, by kind of step; what it read or left alone is no change."""
        history = json.loads(
            self.run("pulumi", "stack", "history", "--stack", "local", "--json", "--page-size", "1", "--page", "1")
        )
        return {step: count for step, count in history[0]["resourceChanges"].items() if step not in ("same", "read")}

    def empty_program(self) -> Path:
        """A Pulumi program with no resource that imports the same SDK classes, in the same backend."""
        folder = self._folder / "empty"
        write_empty_program(folder, "local")
        self._run(["pulumi", "stack", "init", "local"], folder, self.environment(), False)
        return folder

    def program_with_services(self, count: int) -> Path:
        """The shipped program with `count` services and as many GPU nodes as they need, as the new stack `many`."""
        folder = self._folder / f"services-{count}"
        folder.mkdir()
        shutil.copy(CHECKOUT / "__main__.py", folder)
        shutil.copytree(CHECKOUT / "components", folder / "components")
        # A project of its own for each count: a stack belongs to one.
        project = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        (folder / "Pulumi.many.yaml").write_text(yaml.safe_dump({"config": _many(count)}))
        self._run(["pulumi", "stack", "init", "many"], folder, self.environment(), False)
        return folder

    def _run(self, command: list[str], folder: Path, environment: Mapping[str, str], check: bool, stdin: str | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(environment),
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode and check:
            raise CommandFailed(f"{' '.join(command[:6])} ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout


def _descends(pid: int, ancestors: set[int]) -> bool:
    """Whether a process is one of these, or was started below one of them."""
    while pid > 1:
        if pid in ancestors:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def _many(count: int) -> dict[str, Any]:
    """Configuration of a stack of `count` services, in namespaces of its own, alternating between both variants."""
    services = []
    for index in range(count):
        shape: dict[str, Any]
        if index % 2:
            shape = {
                "variant": "fp8",
                "prefix": "mistral-24b-fp8/",
                "pool": "many-1gpu",
                "kvCacheDtype": "fp8",
                "cpuOffload": "auto",
            }
        else:
            shape = {"variant": "bf16", "prefix": "mistral-24b/", "pool": "many-4gpu", "tensorParallelSize": 4}
        services.append({"name": f"service-{index}", **shape})
    # Nodes of eight GPUs, so that what grows is the number of services and hardly that of nodes.
    one_gpu, four_gpus = count // 2, count - count // 2
    return {
        "mistral-on-l4:platform": "local",
        "mistral-on-l4:namespaces": {"services": "many-ai", "objectStore": "many-store", "registry": "many-registries"},
        "mistral-on-l4:pools": {
            "groups": only_pools(
                {"name": "many-1gpu", "instanceType": "g6.48xlarge", "count": max(1, math.ceil(one_gpu / 8))},
                {"name": "many-4gpu", "instanceType": "g6.48xlarge", "count": max(1, math.ceil(four_gpus / 2))},
            )
        },
        "mistral-on-l4:services": only_services(*services),
    }


def resident_mib(home: LocalHome) -> dict[str, float]:
    """MiB by process of everything that runs for the stack. PSS: a page that two processes share is counted once."""
    marks = str(home.root)
    started = {running.pid for name in processes.names(home) if (running := processes.find(home, name)) is not None}
    found: dict[str, float] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            arguments = folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
            foreign = folder.joinpath("ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
            ours = any(marks in argument for argument in arguments) or _descends(int(folder.name), started)
            ours = ours or (foreign and marks in folder.joinpath("mountinfo").read_text(errors="replace"))
            if not ours:
                continue
            pss = next(line for line in folder.joinpath("smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
        found[f"{folder.name} {' '.join(arguments)[:70]}"] = int(pss.split()[1]) / 1024
    return found
