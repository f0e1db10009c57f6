"""A hub that makes trouble on purpose: slow connections, errors, cut, damaged and stalled content.

Tests and the benchmark stand it in for a bad day of the public hub; the content is the plain hub's.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import BinaryIO, Literal

from embedded.hub.repository import Entry
from embedded.hub.server import HubContent, HubHandler, HubServer

_SLICE_BYTES = 1024 * 1024
# Between two slices of a throttled connection: short against what a client notices, long against a thread's wake-up.
_SLICE_SECONDS = 0.02
# What a token bucket holds: without it a busy machine's late wake-ups would lower the rate.
_BURST_SECONDS = 0.2


@dataclass
class Trouble:
    """One thing that goes wrong, `times` times.

    kind: "status" answers `status` with `headers` instead of what was asked for (path is part of the request's path); the others
    spoil content after `after_bytes` of an answer (path is part of the file's): "cut" closes the connection, "flip" changes a
    byte, "stall" sends nothing more for `seconds`, "drip" goes on a byte at a time, `seconds` apart.
    """

    kind: Literal["status", "cut", "flip", "stall", "drip"]
    path: str = ""
    times: int = 1
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    after_bytes: int = 0
    seconds: float = 3600.0


class TroubledHub(HubServer):
    """bytes_per_second: of each connection, None for no limit; sent_bytes: content so far; seen: (path, had a token)."""

    def __init__(
        self, address: tuple[str, int], content: HubContent, *, bytes_per_second: float | None = None, **settings: object
    ) -> None:
        self.troubles: list[Trouble] = []
        self.bytes_per_second = bytes_per_second
        self.sent_bytes = 0
        self.seen: list[tuple[str, bool]] = []
        self.over = threading.Event()
        self._lock = threading.Lock()
        super().__init__(address, content, handler=TroubledHandler, **settings)  # type: ignore[arg-type]

    def next_trouble(self, path: str, kinds: tuple[str, ...]) -> Trouble | None:
        """The first trouble of these kinds that is due for a path; it is then one time fewer."""
        with self._lock:
            for trouble in self.troubles:
                if trouble.times > 0 and trouble.kind in kinds and trouble.path in path:
                    trouble.times -= 1
                    return trouble
        return None

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent_bytes += sent

    def shutdown(self) -> None:
        self.over.set()
        super().shutdown()


class TroubledHandler(HubHandler):
    server: TroubledHub
    _free_at = 0.0

    def before(self, path: str) -> bool:
        self.server.seen.append((path, "Authorization" in self.headers))
        trouble = self.server.next_trouble(path, ("status",))
        if trouble is None:
            return False
        self._head(trouble.status, {"Content-Type": "text/plain", **trouble.headers}, HTTPStatus(trouble.status).phrase.encode())
        return True

    def send_body(self, file: BinaryIO, entry: Entry, offset: int, count: int) -> None:
        trouble = self.server.next_trouble(entry.path, ("cut", "flip", "stall", "drip"))
        good = count if trouble is None else min(trouble.after_bytes, count)
        self._send(file, offset, good)
        if trouble is None:
            return
        rest = os.pread(file.fileno(), count - good, offset + good)
        if trouble.kind == "flip" and rest:
            self.connection.sendall(bytes([rest[0] ^ 1]) + rest[1:])
            return
        if trouble.kind == "stall":
            self.server.over.wait(trouble.seconds)
        if trouble.kind == "drip":
            for byte in rest:
                self.connection.sendall(bytes([byte]))
                if self.server.over.wait(trouble.seconds):
                    break
        self.close_connection = True

    def _send(self, file: BinaryIO, offset: int, count: int) -> None:
        rate = self.server.bytes_per_second
        most = max(int(rate * _SLICE_SECONDS), 1) if rate else _SLICE_BYTES
        done = 0
        while done < count:
            sent = self.connection.sendfile(file, offset + done, min(most, count - done))
            done += sent
            self.server.count(sent)
            if rate:
                self._free_at = max(self._free_at, time.monotonic() - _BURST_SECONDS) + sent / rate
                time.sleep(max(self._free_at - time.monotonic(), 0.0))
