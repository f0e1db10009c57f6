"""A whole local stack in a home of its own, brought up and taken down by the commands that people use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[3]
COMMAND_SECONDS = 900


@dataclass(frozen=True)
class Stack:
    """A local stack. folder: of the Pulumi program; name: of the stack; up: what `demo up` said."""

    home: Path
    folder: Path
    environment: Mapping[str, str]
    said: str

    def run(self, *command: str, check: bool = True, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=folder or self.folder,
            env=dict(self.environment),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
        return done

    def kubectl(self, *arguments: str) -> str:
        return self.run("kubectl", *arguments).stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.run("kubectl", "get", *arguments, "-o", "json").stdout)

    def pulumi(self, *arguments: str, check: bool = True, stack: str = "local") -> subprocess.CompletedProcess[str]:
        return self.run("pulumi", *arguments, "--stack", stack, "--non-interactive", "--color", "never", check=check)

    def demo(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "mistral_on_l4", *arguments, check=check, folder=PROJECT)

    def outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.pulumi("stack", "output", "--json", "--show-secrets").stdout)
        return found


@pytest.fixture(scope="module")
def project() -> Path:
    return PROJECT


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("stack") / "home"
    environment = {**os.environ, "MISTRAL_ON_L4_HOME": str(home), "COLUMNS": "180"}
    bare = Stack(home, PROJECT, environment, "")
    try:
        said = bare.demo("up").stdout
        exports = bare.run(sys.executable, "-m", "embedded.cli.env").stdout
        script = f'{exports}\nexec "$0" -c "import json, os; print(json.dumps(dict(os.environ)))"'
        full = json.loads(
            subprocess.run(
                ["bash", "-c", script, sys.executable], env=environment, text=True, capture_output=True, check=True
            ).stdout
        )
        yield Stack(home, PROJECT, full, said)
    finally:
        bare.demo("down", "--purge", check=False)
