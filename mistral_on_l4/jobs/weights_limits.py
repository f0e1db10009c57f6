"""What the weights job may use and how patient it is, and the two ways in which it ends early."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

MIB = 2**20
# Of S3: parts of one upload, and the smallest size of any but the last.
MAX_PARTS = 10_000
MIN_PART_BYTES = 5 * MIB


class Failure(Exception):
    """One sentence for people: what is wrong, the value, what would work."""


class Interrupted(Failure):
    """A failure that is not this pod's own: another one goes on where it was."""


class Stopped(Exception):
    """Somebody else failed or the pod is to go; nothing is wrong with what was being done."""


@dataclass(frozen=True)
class Limits:
    """Each field can be set by the environment variable WEIGHTS_<FIELD>; there is no need to.

    connections: ranged reads from the hub at a time; uploads: part uploads at a time; part_mib: size of a part, MiB (a file
    that would have more than 10,000 parts gets larger ones); stall_seconds: a connection that brings nothing for so long is
    given up, and so is one that stays below slow_kib_per_second for so long; outage_seconds: how long a hub or a store that
    brings nothing is waited for; pause_seconds: before the second try, doubling from there; pause_most_seconds: end of the
    doubling.
    """

    connections: int = 16
    uploads: int = 8
    part_mib: int = 16
    stall_seconds: float = 30.0
    slow_kib_per_second: float = 16.0
    # Of the four hours that the Job has (components/weights.py).
    outage_seconds: float = 3600.0
    pause_seconds: float = 0.5
    pause_most_seconds: float = 30.0
    report_seconds: float = 5.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Limits:
        """Raises Failure for a value that is no positive number, or a part size that S3 refuses."""
        given: dict[str, float] = {}
        for field in fields(cls):
            text = environment.get(f"WEIGHTS_{field.name.upper()}")
            if not text:
                continue
            try:
                given[field.name] = int(text) if field.type == "int" else float(text)
            except ValueError:
                raise Failure(f"WEIGHTS_{field.name.upper()} {text!r} is no number") from None
            if given[field.name] <= 0:
                raise Failure(f"WEIGHTS_{field.name.upper()} {text!r} must be above 0")
        limits = cls(**given)  # type: ignore[arg-type]
        if limits.part_mib * MIB < MIN_PART_BYTES:
            raise Failure(f"WEIGHTS_PART_MIB {limits.part_mib} is below the 5 MiB that S3 allows")
        return limits

    @property
    def parts_in_flight(self) -> int:
        """Buffers: one for each reader, and one for each upload, so that no reader waits for an upload."""
        return self.connections + self.uploads

    @property
    def buffer_bytes(self) -> int:
        """Most memory that content takes, for files of up to 10,000 parts of the default size (156 GiB each)."""
        return self.parts_in_flight * self.part_mib * MIB

    def part_bytes(self, size: int) -> int:
        """Size of the parts of a file of `size` bytes: the default, or the next MiB that needs no more than 10,000."""
        least = -(-size // MAX_PARTS)
        return max(self.part_mib * MIB, -(-least // MIB) * MIB)

    def pause(self, tries: int, asked: float | None = None) -> float:
        """Seconds to wait after `tries` fruitless tries, with jitter; at least what the server asked for."""
        # No higher power: an hour's tries would overflow it.
        longest = min(self.pause_seconds * 2.0 ** min(tries - 1, 30), self.pause_most_seconds)
        return max(longest * random.uniform(0.5, 1.0), asked or 0.0)


class Stop:
    """Says to every thread that it is over, and why: the first reason is the one that people are told.

    now, wait: the clock that pauses and outages are measured by, in seconds; tests have one that needs no waiting.
    """

    def __init__(
        self, now: Callable[[], float] = time.monotonic, wait: Callable[[threading.Event, float], bool] = threading.Event.wait
    ) -> None:
        self.now = now
        self._wait = wait
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.reason: Failure | None = None

    def because(self, reason: Failure | None) -> None:
        """None: all is done."""
        with self._lock:
            if not self._event.is_set():
                self.reason = reason
                self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def sleep(self, seconds: float) -> None:
        """Raises Stopped as soon as it is over."""
        if self._wait(self._event, seconds):
            raise Stopped
