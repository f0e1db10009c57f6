"""Reading a container's log and its last words, on the agent's side."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded.agent import launch

# kubelet's limits for a termination message: bytes from the file, bytes and lines from the log.
_MESSAGE_BYTES = 4096
_LOG_MESSAGE_BYTES = 2048
_LOG_MESSAGE_LINES = 80


@dataclass(frozen=True)
class Line:
    """One line of a log. seconds: epoch; whole: whether it ends here."""

    stamp: str
    seconds: float
    text: bytes
    whole: bool


def parse(raw: bytes) -> Line | None:
    """A line `TIME STREAM TAG TEXT` without its newline; None if it is not one (cut by a crash)."""
    parts = raw.split(b" ", 3)
    if len(parts) < 4:
        return None
    stamp = parts[0].decode(errors="replace")
    try:
        whole_seconds = calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
        fraction = float(f"0{stamp[19:-1]}") if stamp[19:20] == "." else 0.0
    except ValueError:
        return None
    return Line(stamp, whole_seconds + fraction, parts[3], parts[2] == b"F")


def lines(path: Path) -> Iterator[Line]:
    """All lines of a log, the rotated part first."""
    for part in (rotated(path), path):
        yield from lines_of(part)


def rotated(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def lines_of(part: Path) -> Iterator[Line]:
    """Lines of one file; none if there is no such file."""
    try:
        with part.open("rb") as content:
            for raw in content:
                if (line := parse(raw.rstrip(b"\n"))) is not None:
                    yield line
    except FileNotFoundError:
        return


def last_words(folder: Path, container: Mapping[str, Any], attempt: int, code: int) -> str:
    """What a container left in its termination file, or the end of its log where the container asks for that and it failed."""
    try:
        said = launch.termination_file(folder, container["name"], attempt).read_bytes()[:_MESSAGE_BYTES].decode(errors="replace")
    except OSError:
        said = ""
    if said or code == 0 or container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
        return said
    tail: list[bytes] = []
    for line in lines(launch.log_file(folder, container["name"], attempt)):
        tail.append(line.text + (b"\n" if line.whole else b""))
        if len(tail) > 2 * _LOG_MESSAGE_LINES:
            tail = tail[-_LOG_MESSAGE_LINES:]
    return b"".join(tail[-_LOG_MESSAGE_LINES:])[-_LOG_MESSAGE_BYTES:].decode(errors="replace")
