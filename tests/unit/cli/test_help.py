"""What every command says of itself."""

from __future__ import annotations

from importlib import import_module

import pytest
import typer.main
from typer.testing import CliRunner

from mistral_on_l4.cli import COMMANDS, app

# A group's help speaks of all its commands.
COMMANDS_OF_ONE = {name: entry for name, entry in COMMANDS.items() if name != "weights"}


@pytest.mark.parametrize("name", COMMANDS_OF_ONE)
def test_a_command_has_one_help_text_which_the_list_shows_the_beginning_of(name: str) -> None:
    module, text = COMMANDS[name]
    command = typer.main.get_command(import_module(module).app)
    assert " ".join((command.help or "").split()).startswith(text.rstrip("."))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_80_columns_and_cuts_nothing_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = CliRunner().invoke(app, [name, "--help"], prog_name="demo").output
    assert said.startswith(f"Usage: demo {name}")
    assert [line for line in said.splitlines() if len(line) > 80 or "…" in line] == []
    assert "--install-completion" not in said
