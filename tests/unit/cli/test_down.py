"""Taking down what cannot be destroyed any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mistral_on_l4.cli import Failure, down
from mistral_on_l4.embedded.home import LocalHome


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
