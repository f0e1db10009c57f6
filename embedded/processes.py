"""Processes that outlive the command which started them, each found again by its pid and start time, never by its name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from embedded.home import LocalHome
from mistral_on_l4.files import write_whole

# How long the end of a killed process may take where memory or disks are short: gigabytes are given back page by page.
KILL_SECONDS = 30.0
# In the environment of every process that outlives its command: the home that it belongs to, wherever the home's files went.
OWNER_MARK = "MISTRAL_ON_L4_PROCESS_OF"
# The same of a pod's first process, which outlives the agent as well.
POD_MARK = "MISTRAL_ON_L4_POD_OF"
# Every process that is started here by name; the parts of a cluster that runs.
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kserve-manager", "hub", "agent")
LOGGED = (*PARTS, "service-proxy")


class ProcessFailed(Exception):
    """A process ended or did not become healthy in time. One line, with the last line of its log and the log's name."""


@dataclass(frozen=True)
class Running:
    """A started process. started: field 22 of /proc/PID/stat, so that a pid that was given to another is told apart."""

    name: str
    pid: int
    started: int
    log: Path

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX" and not _has_threads(pid):
        return None
    return int(fields[19])


def _has_threads(pid: int) -> bool:
    """Whether threads of an ended process are still ending: until the last is gone, its sockets are open."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1  # noqa: PTH208  (names are enough)
    except OSError:
        return False


def start(
    home: LocalHome,
    name: str,
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Running:
    """Starts a command in a session of its own, its output in logs/NAME.log, its pid in run/NAME.json.

    A process of that name that still runs is returned as it is. env replaces the environment, when given; the mark is added.
    """
    if (running := find(home, name)) is not None:
        return running
    log = home.logs / f"{name}.log"
    with log.open("ab") as out:
        log.chmod(0o600)
        out.write(f"--- {name} started {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode())
        out.flush()
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**(os.environ if env is None else env), **mark(home)},
            cwd=cwd,
            start_new_session=True,
        )
    running = Running(name, process.pid, start_time(process.pid) or 0, log)
    write_whole(_file(home, name), json.dumps({"pid": running.pid, "started": running.started}))
    return running


def find(home: LocalHome, name: str) -> Running | None:
    """The process of that name if it still runs."""
    try:
        record = json.loads(_file(home, name).read_text())
        running = Running(name, int(record["pid"]), int(record["started"]), home.logs / f"{name}.log")
    except (FileNotFoundError, ValueError, KeyError):
        return None
    _reap(running.pid)
    return running if running.alive else None


def names(home: LocalHome) -> list[str]:
    """Names of all processes that were started and not stopped, whether or not they still run."""
    return sorted(path.stem for path in home.run.glob("*.json"))


def mark(home: LocalHome) -> dict[str, str]:
    """What a process of this home has in its environment, so that it is found without any file of the home."""
    return {OWNER_MARK: str(home.root)}


def marked(root: Path | str, name: str = OWNER_MARK) -> list[int]:
    """Processes with this mark of a home, which need not exist any more."""
    wanted = f"{name}={root}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            # Unreadable: it ended meanwhile, or is another user's.
            with suppress(OSError):
                if wanted in folder.joinpath("environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def end_strays(home: LocalHome) -> int:
    """Kills what was started for this home and is not written down in it; the number of processes. Raises ProcessFailed.

    A command was killed before it could write, or the home was removed under a running cluster. Each has the home's mark, or its
    output in a log here, as nothing else has, and belongs to no session that is written down.
    """
    sessions = {running.pid for name in names(home) if (running := find(home, name)) is not None}
    logs = {Path(os.path.realpath(home.logs), f"{name}.log") for name in LOGGED}
    strays = {pid for pid, file in outputs() if file in logs} | set(marked(home.root))
    return kill(pid for pid in strays if _session(pid) not in sessions)


def end_all_of(root: Path) -> int:
    """Kills every process of a home that is gone, its pods with them; their number. Raises ProcessFailed."""
    # An agent that still ran would start pods again.
    return kill(marked(root)) + kill(marked(root, POD_MARK))


def outputs() -> Iterator[tuple[int, Path]]:
    """(pid, file) of every process of this user whose standard output has a name."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            # Unreadable: it ended meanwhile, or is another user's.
            with suppress(OSError):
                yield int(folder.name), folder.joinpath("fd/1").readlink()


def kill(pids: Iterable[int]) -> int:
    """Kills processes and waits for their end; how many there were. Raises ProcessFailed for one that stays."""
    strays = [Running(f"process {pid}", pid, started, Path()) for pid in pids if (started := start_time(pid)) is not None]
    for running in strays:
        _signal(running, signal.SIGKILL)
    for running in strays:
        if not _gone(running, KILL_SECONDS):
            raise ProcessFailed(f"{running.name} does not end, not even by SIGKILL: see /proc/{running.pid}/status")
    return len(strays)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def wait_healthy(running: Running, healthy: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns once `healthy()` is true; raises ProcessFailed as soon as the process ends, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if healthy():
            return
        _reap(running.pid)
        if not running.alive:
            raise ProcessFailed(f"{running.name} ended before {what}: {last_line(running.log)} (log: {running.log})")
        if time.monotonic() > deadline:
            raise ProcessFailed(
                f"{running.name}: {what} did not happen within {seconds:.0f} s: {last_line(running.log)} (log: {running.log})"
            )
        time.sleep(0.05)


def stop(home: LocalHome, name: str, grace: float = 15.0) -> bool:
    """Asks the process to end, kills its session after `grace` seconds, forgets it. True if it was running."""
    running = find(home, name)
    if running is not None:
        _signal(running, signal.SIGTERM)
        if not _gone(running, grace):
            _signal(running, signal.SIGKILL, group=True)
            if not _gone(running, KILL_SECONDS):
                raise ProcessFailed(f"{name} (pid {running.pid}) does not end, not even by SIGKILL: see /proc/{running.pid}/status")
    _file(home, name).unlink(missing_ok=True)
    return running is not None


def last_line(log: Path) -> str:
    """The last line of a log that says something, cut to 300 characters."""
    try:
        lines = log.read_bytes()[-20_000:].decode(errors="replace").splitlines()
    except FileNotFoundError:
        return "it wrote no log"
    said = [line.strip() for line in lines if line.strip() and not line.startswith("--- ")]
    return said[-1][:300] if said else "it wrote nothing"


def _file(home: LocalHome, name: str) -> Path:
    return home.run / f"{name}.json"


def _signal(running: Running, number: signal.Signals, group: bool = False) -> None:
    if not running.alive:
        return
    try:
        (os.killpg if group else os.kill)(running.pid, number)
    except ProcessLookupError:
        return


def _gone(running: Running, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while running.alive:
        _reap(running.pid)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    _reap(running.pid)
    return True


def _reap(pid: int) -> None:
    """A child of this very command stays a zombie until it is waited for; others are not ours to wait for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
