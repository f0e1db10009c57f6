"""The demo clock, and the file that a new environment begins with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from mistral_on_l4.cli import Failure, expire, init
from mistral_on_l4.cli.stacks import stack_settings
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.demo_clock import EXTENDED_ANNOTATION
from mistral_on_l4.config.settings import load_stack_file, settings_as_checked


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> Any:
    """up(hours ago, ttl) -> the namespace of a stack that came up then; up.run(...) -> `demo expire`; up.commands: what it ran."""

    class Up:
        namespace: dict[str, Any] | None = None
        commands: list[list[str]] = []  # noqa: RUF012  (one test's)
        parked: list[str] = []  # noqa: RUF012

        def __call__(self, hours: float, ttl: str | None) -> dict[str, Any]:
            created = (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
            self.namespace = {"metadata": {"name": "private-ai", "creationTimestamp": created}}
            values = stack_settings("dev").model_dump(by_alias=False) | {"ttl": ttl}
            settings = settings_as_checked(values, "a test")
            monkeypatch.setattr(expire, "stack_settings", lambda _: settings)
            return self.namespace

        def run(self, *arguments: str) -> Any:
            return CliRunner().invoke(expire.app, ["-s", "dev", *arguments])

    made = Up()
    made.commands, made.parked = [], []

    def get(*_: Any) -> Any:
        if made.namespace is None:
            raise ApiError(404, "NotFound", "no such namespace")
        return made.namespace

    def patch(_version: str, _kind: str, _name: str, _namespace: Any, body: Any) -> Any:
        assert made.namespace is not None
        made.namespace["metadata"].setdefault("annotations", {}).update(body["metadata"]["annotations"])
        return made.namespace

    client = create_autospec(KubeClient, instance=True)
    client.get.side_effect, client.patch.side_effect = get, patch

    @contextmanager
    def connection_to(settings: Any, _: str) -> Iterator[Any]:
        yield create_autospec(Connection, instance=True, client=client, settings=settings, local=None)

    def run(command: list[str], **_: Any) -> Any:
        made.commands.append(command)
        return create_autospec(expire.subprocess.CompletedProcess, instance=True, returncode=0)

    monkeypatch.setattr(expire, "connection_to", connection_to)
    monkeypatch.setattr(expire, "acting_on", lambda *_: None)
    monkeypatch.setattr(expire, "whereabouts", lambda *_: "here")
    monkeypatch.setattr(expire, "resize", lambda stack, parked: made.parked.append(stack))
    monkeypatch.setattr(expire, "_destroy", lambda stack: ["pulumi", "destroy", stack])
    monkeypatch.setattr(expire.subprocess, "run", run)
    return made


def test_it_says_when_the_time_ends_and_what_it_will_have_cost(up: Any) -> None:
    up(1.0, "4h")
    told = json.loads(up.run("--json").output)
    assert told["usdByThen"] == pytest.approx(4 * told["usdPerHour"])
    assert told["usd"] == pytest.approx(told["usdPerHour"], rel=0.01)
    assert not told["due"]
    assert ", in 2 h 59 min, and will have cost $" in up.run().output


def test_more_time_counts_from_the_end_and_after_it_from_now(up: Any) -> None:
    up(1.0, "4h")
    assert ", in 4 h 59 min, extended, " in up.run("--extend", "2h").output
    namespace = up(6.0, "4h")
    assert "2 h 0 min ago" in up.run().output
    assert ", in 2 h 0 min, extended, " in up.run("--extend", "2h").output
    assert EXTENDED_ANNOTATION in namespace["metadata"]["annotations"]


@pytest.mark.parametrize(("hours", "ttl", "ended"), [(1.0, "4h", False), (5.0, "4h", True), (500.0, None, False)])
def test_a_schedule_ends_only_what_is_due_and_gpus_go_first(up: Any, hours: float, ttl: str | None, ended: bool) -> None:
    up(hours, ttl)
    assert up.run("--end", "--if-due", "--yes").exit_code == 0
    assert up.parked == (["dev"] if ended else [])
    assert up.commands == ([["pulumi", "destroy", "dev"]] if ended else [])


def test_a_schedule_finds_nothing_due_where_the_stack_is_not_up(up: Any) -> None:
    up(1.0, "4h")
    up.namespace = None
    ended = up.run("--end", "--if-due", "--yes")
    assert (ended.exit_code, ended.output, up.commands) == (0, "stack dev is not up: nothing is due\n", [])


def test_nothing_ends_in_a_script_without_yes(up: Any) -> None:
    up(5.0, "4h")
    ended = up.run("--end")
    assert isinstance(ended.exception, Failure)
    assert (up.commands, up.parked) == ([], [])


def test_a_stack_without_an_end_cannot_be_extended(up: Any) -> None:
    up(1.0, None)
    assert "set `ttl` in the stack file first" in str(up.run("--extend", "2h").exception)


@pytest.mark.parametrize("wrong", ["2", "0h", "2w", "-1h", "1.5h"])
def test_a_span_that_is_none_is_named_with_what_would_be_one(up: Any, wrong: str) -> None:
    up(1.0, "4h")
    assert "such as 90m, 4h or 2d" in str(up.run(f"--extend={wrong}").exception)


# -- init ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: mistral-on-l4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_that_it_writes_is_one_that_every_command_reads(folder: Path) -> None:
    ended = CliRunner().invoke(
        init.app, ["team", "--platform", "eks", "--region", "us-west-2", "--owner", "me", "--ttl", "8h", "--budget", "9", "--w4a16"]
    )
    assert ended.exit_code == 0, ended.output
    settings = load_stack_file("team", folder)
    assert (settings.region, settings.ttl, settings.budget.max_hourly_usd, settings.tags.owner) == ("us-west-2", "8h", 9.0, "me")
    assert len(settings.enabled_services) == 3


def test_a_file_that_is_there_is_not_replaced_unless_told_so(folder: Path) -> None:
    (folder / "Pulumi.team.yaml").write_text("kept")
    assert "--force replaces it" in str(CliRunner().invoke(init.app, ["team"]).exception)
    assert (folder / "Pulumi.team.yaml").read_text() == "kept"
    assert CliRunner().invoke(init.app, ["team", "--force", "--platform", "local"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["../x"], "is no name of a stack"),
        (["x", "--platform", "gke"], "platform 'gke'"),
        (["x", "--ttl", "soon"], "no span of time"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(folder: Path, arguments: list[str], said: str) -> None:
    assert said in str(CliRunner().invoke(init.app, arguments).exception)
    assert [path.name for path in folder.iterdir()] == ["Pulumi.yaml"]
