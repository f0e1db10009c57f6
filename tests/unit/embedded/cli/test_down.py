"""Taking down what cannot be destroyed any more, what never came up, and what a rehearsal left."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from embedded import cluster, kserve, processes
from embedded.cli import down, env, preview, rehearse, up
from embedded.home import CHECKOUT, INNER, LocalHome
from embedded.toolchain.locks import LockBusy, held
from mistral_on_l4.cli import Failure


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHome:
    home = LocalHome(tmp_path / "home")
    monkeypatch.setenv("MISTRAL_ON_L4_HOME", str(home.root))
    home.make()
    state = home.backend / ".pulumi/stacks/mistral-on-l4/local.json"
    state.parent.mkdir(parents=True)
    state.write_text('{"checkpoint": {"lat')
    return home


def test_a_state_that_cannot_be_read_is_named_with_the_way_out(home: LocalHome) -> None:
    ended = CliRunner().invoke(down.app, [])
    assert isinstance(ended.exception, Failure)
    said = str(ended.exception)
    assert "local.json is not a Pulumi checkpoint" in said
    assert "`demo down --purge`" in said
    assert home.root.exists()


def test_a_purge_goes_on_where_the_state_cannot_be_read(home: LocalHome) -> None:
    ended = CliRunner().invoke(down.app, ["--purge"])
    assert ended.exit_code == 0, ended.exception
    assert "is not a Pulumi checkpoint" in ended.output.replace("\n", "")
    assert not home.root.exists()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHome:
    """A home in which nothing has begun, of a user whose cache is empty."""
    monkeypatch.setenv("MISTRAL_ON_L4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return LocalHome(tmp_path / "home")


@pytest.fixture
def rehearsal(bare: LocalHome) -> Iterator[processes.Running]:
    """A process of a rehearsal that was killed before it could stop its cluster."""
    inner = LocalHome(bare.root / rehearse.FOLDER)
    inner.make()
    running = processes.start(inner, "hub", ["sleep", "600"])
    yield running
    processes.kill([running.pid] if running.alive else [])


def purge(home: LocalHome) -> None:
    ended = CliRunner().invoke(down.app, ["--purge"])
    assert ended.exit_code == 0, ended.exception
    assert not home.root.exists()


def test_a_home_whose_first_start_failed_early_is_removed(bare: LocalHome) -> None:
    with held(bare.command_lock, lambda _: None, 0.0):
        pass
    purge(bare)


def test_a_home_that_only_knows_previews_is_removed(bare: LocalHome) -> None:
    LocalHome(bare.root / preview.FOLDER).make()
    purge(bare)


@pytest.mark.parametrize("folders", range(8))
def test_a_purge_that_was_killed_is_finished_by_the_next(bare: LocalHome, monkeypatch: pytest.MonkeyPatch, folders: int) -> None:
    bare.make()
    bare.kubeconfig.write_text("")
    remove, removed = shutil.rmtree, []

    def killed_after_some(path: Path, **more: object) -> None:
        if len(removed) == folders:
            if path == bare.root:
                bare.run.rmdir()
            raise KeyboardInterrupt
        remove(path, **more)
        removed.append(path)

    monkeypatch.setattr(kserve, "remove_certificates", lambda _: None)
    monkeypatch.setattr(shutil, "rmtree", killed_after_some)
    with suppress(KeyboardInterrupt):
        cluster.stop(bare, purge=True)
    monkeypatch.undo()
    cluster.stop(bare, purge=True)
    assert not bare.root.exists()


def test_no_other_command_runs_beside_the_stop(bare: LocalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    bare.make()
    busy: list[bool] = []

    def stop(home: LocalHome, purge: bool = False) -> None:
        try:
            with held(home.command_lock, lambda _: None, 0.0):
                busy.append(False)
        except LockBusy:
            busy.append(True)

    monkeypatch.setattr(cluster, "stop", stop)
    assert CliRunner().invoke(down.app, ["--purge"]).exit_code == 0
    assert busy == [True, True]


@pytest.mark.parametrize("options", [[], ["--purge"]])
def test_the_processes_of_a_killed_rehearsal_end_with_the_stack(
    bare: LocalHome, rehearsal: processes.Running, options: list[str]
) -> None:
    ended = CliRunner().invoke(down.app, options)
    assert ended.exit_code == 0, ended.exception
    assert not rehearsal.alive
    assert bare.root.exists() is not bool(options)


def test_a_rehearsal_takes_down_what_a_killed_one_has_left_and_keeps_another_from_running_beside_it(
    bare: LocalHome, rehearsal: processes.Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = LocalHome(bare.root / rehearse.FOLDER)
    inner.cluster_file.write_text("{}")
    seen: list[bool] = []

    def start(home: LocalHome, _: object) -> None:
        seen.append(rehearsal.alive or home.cluster_file.exists())
        with pytest.raises(LockBusy), held(home.command_lock, lambda _: None, 0.0):
            pass
        raise cluster.ClusterError("far enough")

    monkeypatch.setattr(cluster, "start", start)
    ended = CliRunner().invoke(rehearse.app, ["-s", "dev"])
    assert str(ended.exception) == "far enough"
    assert "taking it down first" in ended.output
    assert seen == [False]


def test_homes_inside_a_home_are_known() -> None:
    assert set(INNER) == {rehearse.FOLDER, preview.FOLDER}


def write_owner(home: LocalHome, checkout: Path, root: Path | None = None) -> None:
    home.owner_file.write_text(json.dumps({"checkout": str(checkout), "home": str(root or home.root)}))


@pytest.mark.parametrize("command", [down.app, up.app, rehearse.app, preview.app])
def test_the_home_of_another_checkout_is_refused_and_both_are_named(home: LocalHome, tmp_path: Path, command: typer.Typer) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "Pulumi.yaml").touch()
    write_owner(home, other)
    said = str(CliRunner().invoke(command, []).exception)
    assert said.startswith(f"the stack in {home.root} belongs to the checkout {other}, and this is {CHECKOUT}: ")
    assert "\n" not in said


def test_exports_of_another_checkouts_home_are_refused(home: LocalHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_owner(home, tmp_path / "gone")
    assert env.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"belongs to the checkout {tmp_path / 'gone'}, which is gone" in said.err


def test_a_moved_home_goes_on_nowhere_and_may_be_purged(bare: LocalHome, tmp_path: Path) -> None:
    bare.make()
    write_owner(bare, tmp_path / "old-checkout", tmp_path / "old-checkout" / ".local")
    said = str(CliRunner().invoke(down.app, []).exception)
    assert f"was made in {tmp_path / 'old-checkout' / '.local'} and cannot run elsewhere: move it back" in said
    purge(bare)


def test_a_purge_that_would_forget_another_stack_is_refused_before_anything_is_stopped(bare: LocalHome) -> None:
    bare.make()
    running = processes.start(bare, "hub", ["sleep", "600"])
    state = bare.backend / ".pulumi/stacks/mistral-on-l4/dev.json"
    state.parent.mkdir(parents=True)
    vpc = {"type": "aws:ec2/vpc:Vpc"}
    state.write_text(json.dumps({"checkpoint": {"latest": {"resources": [vpc, vpc]}}}))
    try:
        ended = CliRunner().invoke(down.app, ["--purge"])
        assert "would also forget the state of dev (2 resources): `pulumi destroy --stack NAME` first" in str(ended.exception)
        assert running.alive
        assert state.exists()
        state.unlink()
        purge(bare)
    finally:
        processes.kill([running.pid] if running.alive else [])


def test_a_cluster_whose_home_was_removed_is_found_and_stopped(bare: LocalHome) -> None:
    bare.make()
    inner = LocalHome(bare.root / rehearse.FOLDER)
    inner.make()
    started = [processes.start(each, "hub", ["sleep", "600"], env={}) for each in (bare, inner)]
    pod = subprocess.Popen(["sleep", "600"], env={processes.POD_MARK: str(bare.root)})
    try:
        shutil.rmtree(bare.root)
        ended = CliRunner().invoke(down.app, [])
        assert ended.exit_code == 0, ended.exception
        assert "its 3 processes are stopped" in ended.output.replace("\n", " ")
        assert not any(running.alive for running in started)
        assert processes.start_time(pod.pid) is None
        assert "nothing to take down" in CliRunner().invoke(down.app, []).output
    finally:
        processes.kill(running.pid for running in started if running.alive)
        pod.kill()


def test_a_start_in_a_new_home_ends_what_ran_for_the_removed_one(bare: LocalHome) -> None:
    bare.make()
    before = processes.start(bare, "etcd", ["sleep", "600"])
    shutil.rmtree(bare.root)
    bare.make()
    now = processes.start(bare, "etcd", ["sleep", "600"])
    try:
        assert processes.end_strays(bare) == 1
        assert not before.alive
        assert now.alive
    finally:
        processes.stop(bare, "etcd")
        processes.kill([before.pid] if before.alive else [])
