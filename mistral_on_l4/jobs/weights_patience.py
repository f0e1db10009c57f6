"""Waits out what passes: an outage of the hub or of the store, for as long as the Job can afford, and says who is waited for.

What a call cannot do now it raises as Again; the next try follows after a pause that grows. A peer that brings nothing for
`Limits.outage_seconds` is given up with its last reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from mistral_on_l4.jobs.weights_limits import Failure, Limits, Stop
from mistral_on_l4.jobs.weights_progress import duration

# A name that was never resolved is misspelled more often than its DNS server is away.
_UNRESOLVED_SECONDS = 120.0
# So much makes a wait begin again: less is what a connection brings that only drips.
_PROGRESS_BYTES = 512 * 1024

_T = TypeVar("_T")


class Again(Exception):
    """Worth another try. what: was to be done; said: what the peer did instead, as "answers 503"; asked: seconds that it wants
    to be left alone; unresolved: its name is unknown.
    """

    def __init__(self, what: str, said: str, asked: float | None = None, *, unresolved: bool = False) -> None:
        super().__init__(f"{what}: {said}")
        self.what, self.said, self.asked, self.unresolved = what, said, asked, unresolved


class Patience:
    """Of all calls to one peer. name: as people are told, "the hub at https://..."; setting: where its address comes from."""

    def __init__(self, name: str, setting: str, limits: Limits, stop: Stop) -> None:
        self.name, self._setting, self._limits, self._stop = name, setting, limits, stop
        # Whether it did once what it was asked: what it refuses after that is more likely to pass.
        self.answered = False
        self._waits: dict[Wait, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def call(self, work: Callable[[], _T]) -> _T:
        """Calls until it works. Raises Failure when it has waited for too long, Stopped, and what `work` raises but Again."""
        wait = self.wait()
        try:
            while True:
                try:
                    done = work()
                except Again as again:
                    wait.after(again)
                    continue
                self.answered = True
                return done
        finally:
            wait.over()

    def wait(self) -> Wait:
        return Wait(self, self._limits, self._stop)

    def waiting(self) -> str | None:
        """ "waiting for the hub at https://..., which answers 503, for 12 min 30 s"; None when nobody waits."""
        with self._lock:
            if not self._waits:
                return None
            since, said = min(self._waits.values())
        return f"waiting for {self.name}, which {said}, for {duration(self._stop.now() - since)}"

    def begun(self, wait: Wait, since: float, said: str) -> None:
        with self._lock:
            self._waits[wait] = (since, said)

    def ended(self, wait: Wait) -> None:
        with self._lock:
            self._waits.pop(wait, None)

    def given_up(self, again: Again, seconds: float) -> Failure:
        advice = f"; check {self._setting}" if not self.answered else ""
        return Failure(f"{again.what}: {self.name} {again.said}, for {duration(seconds)}{advice}")


class Wait:
    """One call's tries."""

    def __init__(self, patience: Patience, limits: Limits, stop: Stop) -> None:
        self._patience, self._limits, self._stop = patience, limits, stop
        self._since = stop.now()
        self._tries, self._bytes = 0, 0

    def after(self, again: Again) -> None:
        """Sleeps until the next try. Raises Failure when there is none, Stopped."""
        limit = self._limits.outage_seconds
        if again.unresolved and not self._patience.answered:
            limit = min(limit, _UNRESOLVED_SECONDS)
        waited = self._stop.now() - self._since
        if waited >= limit:
            raise self._patience.given_up(again, waited)
        self._tries += 1
        self._bytes = 0
        self._patience.begun(self, self._since, again.said)
        # The last try comes when the patience ends, not before.
        self._stop.sleep(min(self._limits.pause(self._tries, again.asked), limit - waited))

    def brought(self, count: int) -> None:
        """So many bytes came."""
        self._bytes += count
        if self._bytes >= _PROGRESS_BYTES:
            self._since, self._tries, self._bytes = self._stop.now(), 0, 0
            self._patience.answered = True
            self._patience.ended(self)

    def over(self) -> None:
        self._patience.ended(self)
