"""What make says of an environment that was made elsewhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("made_in", "at_home"), [("{here}", True), ("/where/it/was/before", False), ("", True)])
def test_a_checkout_that_was_moved_is_told_to_make_its_environment_again(made_in: str, at_home: bool, tmp_path: Path) -> None:
    (tmp_path / ".complete").write_text(made_in.format(here=tmp_path.resolve()))
    done = subprocess.run(
        ["make", "-s", "at-home", f"VENV={tmp_path}"], cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode == 0) is at_home
    assert (
        at_home or "moved or copied: its environment was made in /where/it/was/before; make it again with make venv" in done.stderr
    )
