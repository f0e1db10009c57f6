"""A container's log: one file of lines `TIME STREAM TAG TEXT`, the format of the container runtimes, and one older file.

Written inside the pod by an interpreter without site-packages, read by the agent: standard library only.
"""

# pathlib would cost every pod a MiB.
# ruff: noqa: PTH103, PTH105, PTH120

from __future__ import annotations

import os
import time

ROTATE_BYTES = 10 * 2**20
# A longer line is cut in parts that carry the tag P; the last part carries F.
_MOST_LINE = 16 * 2**10


class LogWriter:
    """Appends what a container writes. `partial` holds, per stream, a line that has not ended yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._fd = self._open()
        self._bytes = os.fstat(self._fd).st_size
        self._partial = {"stdout": b"", "stderr": b""}
        self._second = 0
        self._second_text = ""

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, stream: str, data: bytes) -> None:
        lines = (self._partial[stream] + data).split(b"\n")
        rest = lines.pop()
        out = [self._line(stream, line) for line in lines]
        while len(rest) > _MOST_LINE:
            out.append(self._entry(stream, b"P", rest[:_MOST_LINE]))
            rest = rest[_MOST_LINE:]
        self._partial[stream] = rest
        self._append(b"".join(out))

    def finish(self) -> None:
        """Writes lines that never ended and closes the file."""
        for stream, rest in self._partial.items():
            if rest:
                self._append(self._entry(stream, b"F", rest))
        self._partial = {"stdout": b"", "stderr": b""}
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _line(self, stream: str, line: bytes) -> bytes:
        parts = []
        while len(line) > _MOST_LINE:
            parts.append(self._entry(stream, b"P", line[:_MOST_LINE]))
            line = line[_MOST_LINE:]
        return b"".join([*parts, self._entry(stream, b"F", line)])

    def _entry(self, stream: str, tag: bytes, text: bytes) -> bytes:
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        if seconds != self._second:
            self._second, self._second_text = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return f"{self._second_text}.{nanoseconds:09d}Z {stream} ".encode() + tag + b" " + text + b"\n"

    def _append(self, data: bytes) -> None:
        if not data or self._fd < 0:
            return
        try:
            os.write(self._fd, data)
        except OSError:
            return  # a full disk must not end the pod
        self._bytes += len(data)
        if self._bytes > ROTATE_BYTES:
            os.close(self._fd)
            os.replace(self._path, f"{self._path}.1")
            self._fd = self._open()
            self._bytes = 0
