"""What the next command sets right after a killed one, and what it never touches."""

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
from unittest.mock import create_autospec

import pytest
from rich.console import Console

from embedded import processes
from embedded.cli.local_pulumi import alone
from embedded.cli.recovery import (
    Recovery,
    drop_broken_attributes,
    forget_locks_of_the_dead,
    recover,
    recovery,
    taken_over,
)
from embedded.cli.states import has_resources, other_stacks
from embedded.home import CHECKOUT, LocalHome
from embedded.toolchain.locks import LockBusy, held
from mistral_on_l4.cli import Failure
from mistral_on_l4.cluster.client import ApiError, KubeClient, ResourceType

OURS = {"app.kubernetes.io/part-of": "mistral-on-l4", "app.kubernetes.io/managed-by": "pulumi"}
NAMESPACE = {"metadata": {"name": "private-ai", "labels": {**OURS, "mistral-on-l4/stack": "local"}}}


def resource(kind: str, name: str, **more: Any) -> dict[str, Any]:
    """A resource of a state whose creation was begun."""
    version = {"Job": "batch/v1", "StatefulSet": "apps/v1"}.get(kind, "v1")
    inputs = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "private-ai", "labels": OURS}}
    return {"urn": f"urn:{kind}::{name}", "type": f"kubernetes:{version}:{kind}", "inputs": inputs, **more}


def live(labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    managers = [
        {"manager": "kube-controller-manager", "operation": "Update"},
        {"manager": "pulumi-kubernetes-1", "operation": "Apply"},
    ]
    return {"metadata": {"labels": OURS if labels is None else labels, "managedFields": managers}, **more}


def client_with(objects: dict[str, Any]) -> Any:
    """An API server that holds these objects, by name, and the namespace; what is asked to go is gone."""
    there = {"private-ai": NAMESPACE, **objects}

    def get(_version: str, _kind: str, name: str, _namespace: str | None = None, _sub: str | None = None) -> Any:
        if name not in there:
            raise ApiError(404, "NotFound", "gone")
        return there[name]

    client = create_autospec(KubeClient, instance=True)
    client.resource_type.side_effect = lambda version, kind: ResourceType(version, kind, kind.lower(), kind != "Namespace")
    client.get.side_effect = get
    client.delete.side_effect = lambda _version, _kind, name, _namespace=None: there.pop(name)
    return client


def begun(*resources: dict[str, Any], kind: str = "creating") -> list[dict[str, Any]]:
    return [{"type": kind, "resource": each} for each in resources]


@pytest.fixture
def home(tmp_path: Path) -> LocalHome:
    return LocalHome(tmp_path)


def write_state(home: LocalHome, stack: str = "local", **latest: Any) -> None:
    file = home.backend / f".pulumi/stacks/mistral-on-l4/{stack}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"checkpoint": {"latest": latest}}))


def test_what_the_state_records_is_never_touched_however_often_its_creation_was_begun() -> None:
    store = resource("StatefulSet", "minio", id="private-ai/minio")
    elsewhere = resource("Job", "seed", urn="urn:older-name", id="private-ai/seed")
    state = {"pending_operations": begun(store, resource("Job", "seed")), "resources": [store, elsewhere]}
    assert recovery(state, client_with({"minio": live(), "seed": live()}), "local") == Recovery()


def test_an_object_that_exists_and_is_the_stacks_is_taken_over() -> None:
    found = recovery({"pending_operations": begun(resource("StatefulSet", "minio"))}, client_with({"minio": live()}), "local")
    assert [str(thing) for thing in found.take_over] == ["StatefulSet private-ai/minio"]
    assert found.delete == found.foreign == []


def test_one_that_does_not_exist_is_cleared_without_a_word() -> None:
    assert recovery({"pending_operations": begun(resource("Secret", "key"))}, client_with({}), "local").lines() == []


def test_a_job_that_nobody_saw_complete_is_made_again_and_a_complete_one_taken_over() -> None:
    complete = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    client = client_with({"running": live(), "done": live(**complete)})
    found = recovery({"pending_operations": begun(resource("Job", "running"), resource("Job", "done"))}, client, "local")
    assert [thing.name for thing in found.delete] == ["running"]
    assert [thing.name for thing in found.take_over] == ["done"]


@pytest.mark.parametrize(("labels", "stack"), [({}, "local"), (OURS, "dev"), ({**OURS, "mistral-on-l4/stack": "dev"}, "local")])
def test_what_is_somebody_elses_is_left_alone_and_named(labels: dict[str, str], stack: str) -> None:
    client = client_with({"minio": live(labels)})
    found = recovery({"pending_operations": begun(resource("StatefulSet", "minio"))}, client, stack)
    assert found.lines() == ["StatefulSet private-ai/minio: left alone, as it is not this stack's"]
    client.delete.assert_not_called()


def test_an_object_that_is_being_deleted_is_waited_for_and_named_if_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded.cli.recovery._GONE_SECONDS", 0.0)
    going = live()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(Failure, match=r"^Secret private-ai/key, left behind by a killed pulumi, is not gone 0 s after"):
        recovery({"pending_operations": begun(resource("Secret", "key"))}, client_with({"key": going}), "local")


def test_what_is_taken_over_keeps_its_field_manager_and_shows_no_secret_of_the_cluster() -> None:
    key = resource("Secret", "key")
    client = client_with({"key": live(data={"password": "c2VjcmV0"})})
    [thing] = recovery({"pending_operations": begun(key)}, client, "local").take_over
    made = taken_over(key, thing, client)
    assert made["id"] == "private-ai/key"
    assert made["outputs"]["__fieldManager"] == "pulumi-kubernetes-1"
    assert "c2VjcmV0" not in json.dumps(made)


# As pulumi does with a state: gives it out, and takes one in place of it.
PULUMI_STATES = """#!/bin/sh
case "$2" in
export) cat "$STATE" ;;
import) cat "$6" > "$STATE" ;;
esac
"""


def test_the_notes_of_begun_creations_are_gone_from_the_state_and_others_stay(tmp_path: Path) -> None:
    program, file = tmp_path / "pulumi", tmp_path / "state.json"
    program.write_text(PULUMI_STATES)
    program.chmod(0o700)
    whole = resource("StatefulSet", "minio", id="private-ai/minio")
    pending = [*begun(resource("Job", "seed"), resource("Secret", "key"), whole), *begun(whole, kind="updating")]
    file.write_text(json.dumps({"deployment": {"resources": [whole], "pending_operations": pending}}))
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "STATE": str(file)}
    client = client_with({"seed": live(), "key": live(), "minio": live()})
    assert recover("local", client, environment, tmp_path) == [
        "Secret private-ai/key: taken over, as a killed pulumi has made it",
        "Job private-ai/seed: made again, as nobody saw it complete",
    ]
    assert [call.args[2] for call in client.delete.call_args_list] == ["seed"]
    after = json.loads(file.read_text())["deployment"]
    assert [each.get("id") for each in after["resources"]] == ["private-ai/minio", "private-ai/key"]
    assert [each["type"] for each in after["pending_operations"]] == ["updating"]
    assert recover("local", client, environment, tmp_path) == []


@pytest.mark.parametrize("text", ["", '{"md5": "oe6y'])
def test_an_attribute_file_that_a_kill_left_half_written_goes_and_whole_ones_stay(home: LocalHome, text: str) -> None:
    write_state(home)
    state = home.backend / ".pulumi/stacks/mistral-on-l4/local.json"
    broken, whole = state.with_suffix(".json.attrs"), home.backend / ".pulumi/meta.yaml.attrs"
    broken.write_text(text)
    whole.write_text("{}")
    assert drop_broken_attributes(home) == [broken]
    assert (broken.exists(), whole.exists(), state.exists()) == (False, True, True)


def test_what_other_stacks_hold_is_counted_and_an_empty_one_is_not_named(home: LocalHome) -> None:
    stack = {"type": "pulumi:pulumi:Stack"}
    write_state(home, resources=[stack, resource("Job", "seed")])
    write_state(home, "empty", resources=[stack])
    assert other_stacks(home) == []
    write_state(home, "dev", resources=[stack, resource("Job", "seed"), resource("Secret", "key")])
    (home.backend / ".pulumi/stacks/mistral-on-l4/torn.json").write_text("{")
    assert other_stacks(home)[0] == "dev (2 resources)"
    assert other_stacks(home)[1].startswith("torn (")


def test_a_stack_of_which_only_creations_were_begun_has_something_to_destroy(home: LocalHome) -> None:
    assert not has_resources(home)
    write_state(home, pending_operations=begun(resource("Job", "seed")))
    assert has_resources(home)


@pytest.fixture
def orphan(home: LocalHome) -> Iterator[subprocess.Popen[bytes]]:
    """A plugin of the home whose pulumi is gone: its parent is this process."""
    program = home.pulumi_home / "plugins/resource-kubernetes-v1/pulumi-resource-kubernetes"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/sleep")
    started = subprocess.Popen([program, "600"])
    yield started
    started.kill()
    started.wait()


def test_a_plugin_that_outlives_its_pulumi_does_not_hold_the_next_command_up(
    home: LocalHome, orphan: subprocess.Popen[bytes]
) -> None:
    # The real one inherits the lock from pulumi.
    with held(home.command_lock, lambda _: None, 0.0) as lock:
        holder = subprocess.Popen([orphan.args[0], "600"], pass_fds=(lock,))  # type: ignore[index]
    try:
        with alone(home, Console()):
            assert [processes.start_time(each.pid) for each in (holder, orphan)] == [None, None]
    finally:
        holder.kill()
        holder.wait()


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
    assert forget_locks_of_the_dead(home, "local") is not stays
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
