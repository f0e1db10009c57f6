"""What the next command removes after a killed one, and what it never touches."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.cli.local_pulumi import forget_locks_of_the_dead, has_resources, remove_half_made
from embedded.home import CHECKOUT, LocalHome
from embedded.toolchain.locks import LockBusy, held
from mistral_on_l4.cli import Failure
from mistral_on_l4.cluster.client import ApiError


class FakeClient:
    """Keeps what it was asked to delete; an object is gone once it was asked for."""

    def __init__(self) -> None:
        self.deleted: list[tuple[str, str]] = []

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        if (kind, name) in self.deleted:
            raise ApiError(404, "NotFound", "gone")
        self.deleted.append((kind, name))
        return {}


def job(name: str, **more: Any) -> dict[str, Any]:
    inputs = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "private-ai"}}
    return {"type": "kubernetes:batch/v1:Job", "id": f"private-ai/{name}", "inputs": inputs, **more}


@pytest.fixture
def home(tmp_path: Path) -> LocalHome:
    return LocalHome(tmp_path)


def write_state(home: LocalHome, **latest: Any) -> None:
    file = home.backend / ".pulumi/stacks/mistral-on-l4/local.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"checkpoint": {"latest": latest}}))


def removed(home: LocalHome) -> list[tuple[str, str]]:
    client = FakeClient()
    remove_half_made(home, client)  # type: ignore[arg-type]
    return client.deleted


def test_an_object_whose_creation_was_begun_and_never_recorded_goes(home: LocalHome) -> None:
    write_state(home, pending_operations=[{"type": "creating", "resource": job("begun")}], resources=[job("whole")])
    assert removed(home) == [("Job", "begun")]


def test_an_object_that_was_being_changed_or_deleted_is_left_to_pulumi(home: LocalHome) -> None:
    operations = [{"type": kind, "resource": job("whole")} for kind in ("updating", "deleting", "reading")]
    write_state(home, pending_operations=operations, resources=[job("whole")])
    assert removed(home) == []


def test_a_replaced_object_is_left_to_pulumi_which_would_delete_its_namesake_otherwise(home: LocalHome) -> None:
    write_state(home, resources=[job("old", delete=True), job("new")])
    assert removed(home) == []


def test_what_is_no_kubernetes_object_is_left_alone(home: LocalHome) -> None:
    stash = {"type": "pulumi:index:Stash", "inputs": {"input": "x"}}
    write_state(home, pending_operations=[{"type": "creating", "resource": stash}])
    assert removed(home) == []
    assert has_resources(home)


def test_without_a_state_there_is_nothing_to_do(home: LocalHome) -> None:
    assert removed(home) == []
    assert not has_resources(home)


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Starts a program of some name; its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> int:
        script = tmp_path / name
        script.write_text("#!/bin/sh\necho up\nread line\n")
        script.chmod(0o700)
        process = subprocess.Popen([script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("program", "host", "stays"),
    [
        (None, socket.gethostname(), False),
        ("pulumi", socket.gethostname(), True),
        ("browser", socket.gethostname(), False),
        (None, "other", True),
    ],
)
def test_only_the_lock_of_a_pulumi_that_lives_or_is_elsewhere_stays(
    home: LocalHome, living: Callable[[str], int], program: str | None, host: str, stays: bool
) -> None:
    lock = home.backend / ".pulumi/locks/organization/mistral-on-l4/local/lock.json"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"pid": living(program) if program else 2**22 + 1, "hostname": host, "username": "me"}))
    assert forget_locks_of_the_dead(home) is not stays
    assert lock.exists() is stays


@pytest.mark.parametrize("text", ["", "[]", '{"checkpoint": null}', '{"checkpoint": {"lat'])
def test_a_state_that_is_none_is_named(home: LocalHome, text: str) -> None:
    write_state(home)
    (home.backend / ".pulumi/stacks/mistral-on-l4/local.json").write_text(text)
    with pytest.raises(Failure, match="is not a Pulumi checkpoint"):
        has_resources(home)


# As pulumi does: an interrupt ends what runs, which takes a moment, and then pulumi itself.
PULUMI = """#!/bin/sh
trap 'read line < "$PWD/end"; echo tidied > "$PWD/said"; exit 1' INT
echo running > "$PWD/said"
while :; do sleep 0.05; done
"""


def test_a_killed_command_interrupts_its_pulumi_and_the_next_one_waits_for_its_end(tmp_path: Path, home: LocalHome) -> None:
    (tmp_path / "pulumi").write_text(PULUMI)
    (tmp_path / "pulumi").chmod(0o700)
    (tmp_path / "Pulumi.yaml").touch()
    os.mkfifo(tmp_path / "end")
    code = (
        "import os, sys; from pathlib import Path; from embedded.cli.local_pulumi import alone, run_pulumi; "
        "from embedded.home import LocalHome; from rich.console import Console\n"
        "with alone(LocalHome(Path(sys.argv[1])), Console()) as lock: run_pulumi(['up'], os.environ, lock)"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    command = subprocess.Popen([sys.executable, "-c", code, str(home.root)], cwd=tmp_path, env=environment)
    said = tmp_path / "said"
    try:
        _until(lambda: said.exists() and said.read_text() == "running\n")
    finally:
        command.kill()
        command.wait()
    holders: list[str] = []
    with pytest.raises(LockBusy), held(home.command_lock, holders.append, 0.0):
        pass
    assert Path(f"/proc/{holders[0]}/comm").read_text() == "pulumi\n"
    (tmp_path / "end").write_text("now\n")
    with held(home.command_lock, lambda _: None, 60.0):
        assert said.read_text() == "tidied\n"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
