"""Which Python runs a program."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto.language_pb2 import ProgramInfo

from embedded.plugins.language_python.host import interpreter

ROOT = Path(__file__).resolve().parents[4]


def program(folder: Path) -> ProgramInfo:
    """A program with the runtime's options of this project."""
    options = Struct()
    options.update(yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["runtime"]["options"])
    return ProgramInfo(root_directory=str(folder), options=options)


def test_the_project_names_the_environment_that_make_venv_makes() -> None:
    (made,) = re.findall(r"^VENV := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert interpreter(program(ROOT)) == str(ROOT / made / "bin" / "python")


@pytest.mark.parametrize("made", [True, False])
def test_a_checkout_without_an_environment_is_run_by_the_hosts_own(tmp_path: Path, made: bool) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    if made:
        python.parent.mkdir(parents=True)
        python.touch()
    assert interpreter(program(tmp_path)) == (str(python) if made else sys.executable)
