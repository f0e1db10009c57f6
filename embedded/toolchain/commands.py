"""Running the commands of a build so that a failure names its log, and an interruption leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class ToolFailed(Exception):
    """A tool could not be found, built or installed. One line that says what to do, or names the log."""


class Commands:
    """Child processes of one call, each a process group of its own; leaving the context ends those that still run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            _end_group(process)

    def run(
        self,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
        seen: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Runs a command to its end and returns its standard output by lines.

        Both outputs are appended to `log`; `seen` is called with each line of standard error. Raises ToolFailed.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._closed:
                raise ToolFailed("interrupted")
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
            self._running.add(process)
        said: list[str] = []
        output: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        stdout = process.stdout
        # Read beside standard error, or a full pipe would stop the command.
        reader = threading.Thread(target=lambda: output.extend(line.rstrip("\n") for line in stdout), daemon=True)
        reader.start()
        try:
            with log.open("a") as out:
                out.write(f"--- {' '.join(command)}\n")
                for line in process.stderr:
                    out.write(line)
                    said.append(line.strip())
                    if seen is not None:
                        seen(line.strip())
                reader.join()
                status = process.wait()
                if status:
                    out.writelines(f"{line}\n" for line in output)
        except BaseException:
            _end_group(process)
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if status:
            raise ToolFailed(f"`{_short(command)}` failed: {_reason([*output, *said]) or f'exit code {status}'} (log: {log})")
        return output


def _short(command: Sequence[str]) -> str:
    return " ".join([Path(command[0]).name, *command[1:3]])


def _reason(lines: Sequence[str]) -> str:
    """The last line that says something. What `go build -v` prints of its progress is a bare package path."""
    said = [line for line in lines if line and (" " in line or ":" in line) and not line.startswith(("go: downloading", "#"))]
    errors = [line for line in said if line.startswith("ERROR")]
    return (errors or said)[-1][:300] if said else ""


def _end_group(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
        # The compilers that `go` started are in its group, and outlive it for a moment.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP end the main thread as Ctrl-C does, so that what it started is ended too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
