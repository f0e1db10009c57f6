"""A lock that a second command waits for, saying so. The kernel gives it back when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class LockBusy(Exception):
    """The lock was not given back in time. One line with the holder's pid."""


@contextmanager
def held(file: Path, waiting: Callable[[str], None], seconds: float) -> Iterator[int]:
    """Holds the lock on `file`; `waiting` is called once with the holder's pid if another process has it.

    Gives the lock's descriptor: a process that inherits it goes on holding the lock. Raises LockBusy after `seconds`.
    """
    deadline, said = time.monotonic() + seconds, False
    descriptor = _open(file)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                if not said:
                    waiting(holder)
                    said = True
                if time.monotonic() > deadline:
                    raise LockBusy(f"process {holder} has held {file} for {seconds:.0f} s: end it or wait for it") from None
                time.sleep(0.2)
                continue
            if _is_there(descriptor, file):
                break
            # Whoever held it has removed the file, and a third command may hold the lock on a new one.
            fresh = _open(file)
            os.close(descriptor)
            descriptor = fresh
        name_holder(descriptor, os.getpid())
        yield descriptor
    finally:
        os.close(descriptor)


def name_holder(descriptor: int, pid: int) -> None:
    """Writes into a held lock who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid}\n".encode(), 0)


def _open(file: Path) -> int:
    for last in (False, False, True):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # Its folder was removed at this moment.
            if last:
                raise
    raise AssertionError


def _is_there(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
