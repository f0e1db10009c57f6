"""What a container writes, passed on to whoever is attached to it, at the pace of whoever reads slowest.

Runs in a pod's first process: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterable

# How long the last words of a container may take to reach somebody who reads slowly.
_LAST_SECONDS = 2.0


class Attached:
    """One who is attached: a Unix socket each for standard output and errors. behind: those with something unsent."""

    def __init__(self, stdout: int, stderr: int) -> None:
        self._ends = {"stdout": socket.socket(fileno=stdout), "stderr": socket.socket(fileno=stderr)}
        self._unsent: dict[int, bytearray] = {}
        self.gone = False
        for end in self._ends.values():
            end.setblocking(False)

    @property
    def numbers(self) -> list[int]:
        return [end.fileno() for end in self._ends.values()]

    @property
    def behind(self) -> list[int]:
        return list(self._unsent)

    def send(self, stream: str, data: bytes) -> None:
        end = self._ends[stream]
        if self.gone:
            return
        self._unsent.setdefault(end.fileno(), bytearray()).extend(data)
        self.flush(end.fileno())

    def flush(self, number: int) -> bool:
        """Sends what it takes. True while something is left."""
        rest = self._unsent.get(number, bytearray())
        try:
            while rest and not self.gone:
                del rest[: os.write(number, rest)]
        except BlockingIOError:
            return True
        except OSError:
            self.gone = True
        self._unsent.pop(number, None)
        return False

    def finish(self) -> None:
        """Nothing more comes."""
        for end in self._ends.values():
            rest = self._unsent.pop(end.fileno(), None)
            if rest and not self.gone:
                end.settimeout(_LAST_SECONDS)
                with contextlib.suppress(OSError):  # whoever it was has gone
                    end.sendall(rest)
            end.close()


class Audience:
    """Everybody who is attached to one container. on, off: watch a descriptor, and no more; resume: read on."""

    def __init__(
        self, on: Callable[[int, Callable[[], None], int], None], off: Callable[[int], None], resume: Callable[[], None]
    ) -> None:
        self._on, self._off, self._resume = on, off, resume
        self._present: list[Attached] = []
        self._watched: set[int] = set()

    def join(self, attached: Attached) -> None:
        self._present.append(attached)

    def tell(self, stream: str, data: bytes) -> bool:
        """Passes on what the container wrote. True where somebody has not taken it yet: then nothing more is to be read."""
        for attached in list(self._present):
            attached.send(stream, data)
            self._forget_gone(attached)
        for attached in self._present:
            for end in attached.behind:
                if end not in self._watched:
                    self._watched.add(end)
                    self._on(end, self._catching_up(attached, end), select.EPOLLOUT)
        return bool(self._watched)

    def finish(self) -> None:
        """The container has ended."""
        for end in self._watched:
            self._off(end)
        for attached in self._present:
            attached.finish()
        self._watched.clear()
        self._present.clear()

    def _catching_up(self, attached: Attached, end: int) -> Callable[[], None]:
        def more() -> None:
            if attached.flush(end):
                return
            self._off(end)
            self._watched.discard(end)
            self._forget_gone(attached)
            if not self._watched:
                self._resume()

        return more

    def _forget_gone(self, attached: Attached) -> None:
        if attached.gone:
            for end in self._watched & set(attached.numbers):
                self._off(end)
                self._watched.discard(end)
            self._present.remove(attached)
            attached.finish()


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
