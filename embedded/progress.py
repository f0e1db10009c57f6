"""How long work tells people where it is: one line per phase, live on a terminal and plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

# A log is read afterwards: one line of news per phase in this many seconds is enough.
PLAIN_SECONDS = 15.0
# The note of a phase that did not work; it is marked as such.
FAILED = "failed"


class Report(Protocol):
    """What long work calls, from any thread. A phase is named by the words that people read."""

    def begin(self, phase: str, total: int | None = None) -> None:
        """A phase starts; `total` steps are expected, if that is known. Calling it again sets a new total."""

    def advance(self, phase: str, done: int | None = None, note: str = "") -> None:
        """`done` steps of the phase are behind, and `note` says what happens now."""

    def end(self, phase: str, note: str = "") -> None:
        """The phase is over, well or not; `note` says how."""

    def note(self, line: str) -> None:
        """Something worth a line of its own."""


class Quiet:
    """Says nothing."""

    def begin(self, phase: str, total: int | None = None) -> None: ...

    def advance(self, phase: str, done: int | None = None, note: str = "") -> None: ...

    def end(self, phase: str, note: str = "") -> None: ...

    def note(self, line: str) -> None: ...


class PlainReport:
    """Lines for logs: the start of a phase, now and then where it is, its end with the seconds it took."""

    def __init__(self, out: IO[str] | None = None, seconds: float = PLAIN_SECONDS) -> None:
        self._out = out or sys.stderr
        self._seconds = seconds
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._spoke: dict[str, float] = {}
        self._total: dict[str, int] = {}

    def begin(self, phase: str, total: int | None = None) -> None:
        with self._lock:
            if total is not None:
                self._total[phase] = total
            if phase not in self._began:
                self._began[phase] = self._spoke[phase] = time.monotonic()
                self._say(phase)

    def advance(self, phase: str, done: int | None = None, note: str = "") -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._spoke.get(phase, now) < self._seconds:
                return
            self._spoke[phase] = now
            total = self._total.get(phase)
            steps = "" if done is None else f" {done}/{total}" if total else f" {done}"
            self._say(f"{phase}:{steps}{' ' + note if note else ''} ({now - self._began[phase]:.0f} s so far)")

    def end(self, phase: str, note: str = "") -> None:
        with self._lock:
            took = time.monotonic() - self._began.pop(phase, time.monotonic())
            self._total.pop(phase, None)
            self._say(f"{phase}: {note or 'done'} ({took:.1f} s)")

    def note(self, line: str) -> None:
        with self._lock:
            self._say(line)

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class LiveReport:
    """One line per phase on a terminal: a spinner or bar, the elapsed time, what happens now. Finished lines stay."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def begin(self, phase: str, total: int | None = None) -> None:
        with self._lock:
            if (task := self._tasks.get(phase)) is None:
                self._tasks[phase] = self._progress.add_task(phase, total=total, now="")
            elif total is not None:
                self._progress.update(task, total=total)

    def advance(self, phase: str, done: int | None = None, note: str = "") -> None:
        with self._lock:
            if (task := self._tasks.get(phase)) is not None:
                self._progress.update(task, completed=done, now=note)

    def end(self, phase: str, note: str = "") -> None:
        with self._lock:
            if (task := self._tasks.pop(phase, None)) is None:
                return
            total = self._progress.tasks[task].total or 1
            mark = "✗" if note == FAILED else "✓"
            self._progress.update(task, total=total, completed=total, now=f"{mark} {note or 'done'}")
            self._progress.stop_task(task)

    def note(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False)


@contextmanager
def console_report(console: Console | None = None) -> Iterator[Report]:
    """The report that suits a console (standard error's without one): live on a terminal, plain lines in a log."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield PlainReport(console.file)
        return
    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console, refresh_per_second=8) as progress:
        yield LiveReport(progress)
