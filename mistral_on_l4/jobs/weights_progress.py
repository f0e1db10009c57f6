"""How far a seeding is, as lines that a person reads in `kubectl logs`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

# A file's rate and ETA come from about this much of the past.
_WINDOW_SECONDS = 15.0
_FILES_SHOWN = 4


def gigabytes(count: float) -> str:
    """10**9 bytes, as sizes of checkpoints are usually given; below 100 MB in MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


class Progress:
    """Counts bytes per file, and says every few seconds how far it is. waiting: who is waited for now, if anybody is.

    with progress: ...; until `began` there are no bytes to speak of, and a line comes only when somebody is waited for.
    """

    def __init__(self, say: Callable[[str], None], every_seconds: float, waiting: Callable[[], str | None] = lambda: None) -> None:
        self._every, self.say, self._waiting = every_seconds, say, waiting
        self._sizes: dict[str, int] = {}
        self._have: dict[str, int] = {}
        self.received_bytes = 0
        self._lock = threading.Lock()
        self._past: list[tuple[float, dict[str, int]]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def began(self, sizes: Mapping[str, int], present: Mapping[str, int], now: float | None = None) -> None:
        """sizes: of all files, bytes; present: what the bucket holds of each."""
        with self._lock:
            self._have = {path: present.get(path, 0) for path in sizes}
            self._past = [(time.monotonic() if now is None else now, dict(self._have))]
            self._sizes = dict(sizes)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=1)

    def received(self, path: str, count: int) -> None:
        with self._lock:
            self._have[path] += count
            self.received_bytes += count

    def again(self, path: str, present: int = 0) -> None:
        """A file starts over."""
        with self._lock:
            self._have[path] = present

    def _run(self) -> None:
        while not self._done.wait(self._every):
            if line := self.line(time.monotonic()):
                self.say(line)

    def line(self, now: float) -> str | None:
        """ "progress 41% 8.20 of 20.10 GB, 312.4 MB/s, ETA 38 s | model-00004-of-00010.safetensors 62% ETA 4 s" """
        waiting = self._waiting()
        with self._lock:
            have = dict(self._have)
        if not have:
            return waiting
        while len(self._past) > 1 and now - self._past[1][0] >= _WINDOW_SECONDS:
            self._past.pop(0)
        then, before = self._past[0]
        self._past.append((now, have))
        seconds = max(now - then, 1e-6)
        total, done = sum(self._sizes.values()), sum(have.values())
        moving = {path: max(have[path] - before[path], 0) / seconds for path in have}
        rate = sum(moving.values())
        text = f"progress {_percent(done, total)} {gigabytes(done)} of {gigabytes(total)}, {rate / 1e6:.1f} MB/s"
        # What nobody waits for and brings nothing is being read back or joined by the store.
        text += f", ETA {duration((total - done) / rate)}" if rate else ""
        text += f", {waiting}" if waiting else ""
        under_way = [path for path in have if have[path] > before[path] and have[path] < self._sizes[path]]
        parts = [
            f"{path} {_percent(have[path], self._sizes[path])} ETA {duration((self._sizes[path] - have[path]) / moving[path])}"
            for path in under_way[:_FILES_SHOWN]
        ]
        return text + (f" | {', '.join(parts)}" if parts else "")


def _percent(done: int, total: int) -> str:
    return f"{100 * done // max(total, 1)}%"
