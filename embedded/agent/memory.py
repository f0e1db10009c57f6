"""Memory limits of containers, held by looking: a container that is found above its limit is killed, as the kernel would do.

The kernel's own control groups are not an ordinary user's to make. What is counted is what such a group would charge first: private
and shared memory of its processes, shared pages in equal parts. Files in memory (/dev/shm, emptyDirs) count where they are mapped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)
PERIOD_SECONDS = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CHARGED = ("Pss_Anon:", "Pss_Shmem:")


@dataclass(frozen=True)
class Limited:
    """A running container with a limit. exceeded: told of the bytes that it was found to use, on the watching thread."""

    limit_bytes: int
    exceeded: Callable[[int], None]


class MemoryWatch:
    """A thread that looks at every limited container once a second. limited: those that run, by mount namespace."""

    def __init__(self, limited: Callable[[], Mapping[str, Limited]]) -> None:
        self._limited = limited
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(PERIOD_SECONDS):
            try:
                self.look()
            except Exception:
                _log.exception("looking at the containers' memory failed")

    def look(self) -> None:
        limited = self._limited()
        for namespace, pids in processes(limited).items() if limited else ():
            limit = limited[namespace].limit_bytes
            # What is resident is read cheaply and is never less than what is charged, which takes a walk through all pages.
            if sum(map(resident_bytes, pids)) > limit and (used := sum(map(charged_bytes, pids))) > limit:
                limited[namespace].exceeded(used)


def processes(namespaces: Mapping[str, object]) -> dict[str, list[int]]:
    """Processes of this machine by their mount namespace, of those that are asked for."""
    found: dict[str, list[int]] = {}
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    namespace = os.readlink(f"/proc/{entry.name}/ns/mnt")  # noqa: PTH115  (hundreds of them each second)
                    if namespace in namespaces:
                        found.setdefault(namespace, []).append(int(entry.name))
    return found


def resident_bytes(pid: int) -> int:
    """0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def charged_bytes(pid: int) -> int:
    """Private and shared memory without files on a disk, its share of what it shares. 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 2**10 for line in lines if line.startswith(_CHARGED))
