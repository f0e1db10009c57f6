"""Of two commands one waits, whatever the first does with the folder that the lock lies in."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from embedded.toolchain.locks import LockBusy, held


def test_who_waited_for_a_lock_whose_folder_was_removed_holds_the_lock_that_the_next_one_finds(tmp_path: Path) -> None:
    file = tmp_path / "home" / "command.lock"
    waiting, done = threading.Event(), threading.Event()
    busy: list[bool] = []

    def second() -> None:
        with held(file, lambda _: waiting.set(), 60.0):
            try:
                with held(file, lambda _: None, 0.0):
                    busy.append(False)
            except LockBusy:
                busy.append(True)
        done.set()

    thread = threading.Thread(target=second)
    with held(file, lambda _: None, 0.0):
        thread.start()
        assert waiting.wait(60)
        shutil.rmtree(file.parent)
    thread.join(60)
    assert busy == [True]


def test_a_lock_that_is_not_given_back_is_named_with_its_holder(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with (
        held(file, lambda _: None, 0.0),
        pytest.raises(LockBusy, match=f"has held {file} for 0 s"),
        held(file, lambda _: None, 0.0),
    ):
        pass
