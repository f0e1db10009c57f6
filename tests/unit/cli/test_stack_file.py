"""What every command that works on a stack says about the stack's file."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mistral_on_l4.cli import Failure, doctor, park, sweep
from mistral_on_l4.cli.stacks import stack_settings
from mistral_on_l4.config.traits import TRAITS


@pytest.fixture
def stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: mistral-on-l4\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "Pulumi.x.yaml"


def test_a_list_of_services_is_warned_of_on_standard_error_and_read(stack_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = "{name: a, variant: fp8, prefix: a/, pool: l4-1gpu}"
    stack_file.write_text(f"config:\n  mistral-on-l4:platform: eks\n  mistral-on-l4:services: [{entry}]\n")
    assert [service.name for service in stack_settings("x").services] == ["a"]
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("demo: Pulumi.x.yaml: services: a list is read for the last time in this release")
    assert said.out == ""


def test_a_map_of_services_is_read_in_silence(stack_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack_file.write_text("config:\n  mistral-on-l4:platform: eks\n  mistral-on-l4:services: {mistral-24b-full: null}\n")
    assert [service.name for service in stack_settings("x").enabled_services] == ["mistral-24b-fp8"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("platform", [name.value for name, traits in TRAITS.items() if traits.embedded])
@pytest.mark.parametrize("command", [doctor, sweep, park])
def test_commands_for_an_aws_account_refuse_a_stack_without_one(command: object, platform: str, stack_file: Path) -> None:
    stack_file.write_text(f"config:\n  mistral-on-l4:platform: {platform}\n")
    ended = CliRunner().invoke(command.app, ["-s", "x"])  # type: ignore[attr-defined]
    assert isinstance(ended.exception, Failure)
    assert str(ended.exception).startswith(f"stack x runs on {platform}: ")
