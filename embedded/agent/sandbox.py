"""The agent's side of a pod's namespaces: starting them, talking to pod_init, finding them again, ending them for certain."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedded.agent import frames
from embedded.home import CHECKOUT
from embedded.processes import KILL_SECONDS, OWNER_MARK, POD_MARK, kill, marked, outputs, start_time
from mistral_on_l4.files import write_whole

_SOCKET = "s"
_RECORD = "sandbox.json"
_LOG = "init.log"
_START_SECONDS = 20.0
_CALL_SECONDS = 30.0
# The interpreter without a virtual environment: pod_init needs nothing but the standard library.
_PYTHON = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def boot_command(module: str) -> list[str]:
    """How a module of this package runs as a small process: the base interpreter, without site-packages."""
    boot = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from embedded.agent.{module} import main; main()"
    return [_PYTHON, "-I", "-S", "-c", boot]


class SandboxFailed(Exception):
    """The namespaces or something in them could not be made. One line."""


class SandboxGone(Exception):
    """The pod's first process does not answer any more."""


def connect(folder: Path) -> socket.socket:
    """A connection to the pod_init of a pod's folder. Raises SandboxGone.

    The path of a Unix socket is limited to 108 bytes, so it is named through an open descriptor of its folder.
    """
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxGone(f"{folder}: {error.strerror}") from error
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(5.0)
    try:
        connection.connect(f"/proc/self/fd/{descriptor}/{_SOCKET}")
    except OSError as error:
        connection.close()
        raise SandboxGone(f"{folder.name}: {error.strerror or error}") from error
    finally:
        os.close(descriptor)
    return connection


class Sandbox:
    """One pod's namespaces. Calls may come from any thread; `changed` is called from another thread with container states.

    `changed(None)` says that pod_init has ended.
    """

    def __init__(self, folder: Path, changed: Callable[[dict[str, Any] | None], None]) -> None:
        self.folder = folder
        self._changed = changed
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        # Whether Services are reached over a network of their own, so that containers may listen on the same ports.
        self.separate = False

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self, hostname: str, pod_ip: str, tmpfs: Sequence[Mapping[str, Any]]) -> None:
        """Makes the namespaces. Raises SandboxFailed."""
        path = self.folder / _SOCKET
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        descriptor = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{descriptor}/{_SOCKET}")
        finally:
            os.close(descriptor)
        path.chmod(0o600)
        config = {
            "listener": listener.fileno(),
            "hostname": hostname[:63],
            "pod_ip": pod_ip,
            "tmpfs": list(tmpfs),
            "log": str(self.folder / _LOG),
        }
        # The child becomes a child of the machine's init at once: it is meant to outlive the agent.
        launcher = subprocess.Popen(
            boot_command("pod_init"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(listener.fileno(),),
            env={"PATH": os.defpath, POD_MARK: os.environ.get(OWNER_MARK, "")},
            cwd="/",
            start_new_session=True,
        )
        watchdog = threading.Timer(_START_SECONDS, launcher.kill)
        watchdog.start()
        try:
            assert launcher.stdin is not None
            assert launcher.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                launcher.stdin.write(json.dumps(config).encode())
                launcher.stdin.close()
            said: list[str] = []
            for raw in launcher.stdout:
                line = raw.decode(errors="replace").strip()
                said.append(line)
                if line.startswith("pid "):
                    pid = int(line[4:])
                    write_whole(self.folder / _RECORD, json.dumps({"pid": pid, "started": start_time(pid) or 0}))
                if line == "ready" or line.startswith("error "):
                    break
        finally:
            watchdog.cancel()
            listener.close()
            launcher.stdout and launcher.stdout.close()
            launcher.wait(timeout=5)
        if "ready" not in said:
            self.kill()
            problems = [line.removeprefix("error ") for line in said if not line.startswith("pid ")]
            raise SandboxFailed(problems[-1] if problems else "the pod's first process ended without a word")
        try:
            self.attach()
        except SandboxGone as error:
            self.kill()
            raise SandboxFailed(f"the pod's first process does not answer: {error}") from error

    def attach(self) -> list[dict[str, Any]]:
        """Connects to a pod_init that runs, and returns the states of its containers. Raises SandboxGone."""
        events = connect(self.folder)
        try:
            frames.send(events, {"op": "events"})
            reply, _ = frames.receive(events)
            self._connection = connect(self.folder)
        except (frames.Closed, OSError) as error:
            events.close()
            raise SandboxGone(str(error)) from error
        self._connection.settimeout(_CALL_SECONDS)
        events.settimeout(None)
        self.separate = bool(reply.get("separate"))
        states: list[dict[str, Any]] = reply["containers"]
        threading.Thread(target=self._follow, args=(events,), name=f"events-{self.folder.name[:8]}", daemon=True).start()
        return states

    def _follow(self, events: socket.socket) -> None:
        try:
            while True:
                state, _ = frames.receive(events)
                self._changed(state)
        except (frames.Closed, OSError, ValueError):
            events.close()
            self._changed(None)

    def kill(self) -> None:
        """Ends the pod: asked, then by recorded pid and start time. Raises SandboxFailed if it stays."""
        with contextlib.suppress(SandboxGone):
            self.call({"op": "stop"})
        end(self.folder)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- requests ------------------------------------------------------------------------------------------------------

    def call(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request. Raises SandboxGone; SandboxFailed with pod_init's own words."""
        reply, fds = self._call(request)
        for fd in fds:
            os.close(fd)
        return reply

    def _call(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = connect(self.folder)
                    self._connection.settimeout(_CALL_SECONDS)
                frames.send(self._connection, request)
                reply, fds = frames.receive(self._connection)
            except (frames.Closed, OSError) as error:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                raise SandboxGone(str(error)) from error
        if "error" in reply:
            raise SandboxFailed(reply["error"])
        return reply, fds

    def channel(self) -> socket.socket:
        """A connection for one command; closing it ends the command. Raises SandboxGone."""
        connection = connect(self.folder)
        connection.settimeout(None)
        return connection

    def run(self, channel: socket.socket, name: str, argv: Sequence[str], terminal: bool, fds: Sequence[int]) -> int:
        """Runs a command to its end and returns its exit code; takes `fds`.

        fds: standard input, output and errors, or with `terminal` a Unix socket, over which the terminal comes back. Raises
        SandboxGone, SandboxFailed.
        """
        try:
            _handed_over(channel, {"op": "run", "name": name, "argv": list(argv), "terminal": terminal}, fds)
            reply, _ = frames.receive(channel)
        except (frames.Closed, OSError) as error:
            raise SandboxGone(str(error)) from error
        if "error" in reply:
            raise SandboxFailed(reply["error"])
        return int(reply["exit"])

    def attach_to(self, name: str, fds: Sequence[int]) -> int | None:
        """Sends what a container writes to two Unix sockets as well, which it takes; returns its standard input if it has one.

        They end with the container. Raises SandboxGone, SandboxFailed.
        """
        with self.channel() as channel:
            channel.settimeout(_CALL_SECONDS)
            try:
                _handed_over(channel, {"op": "attach", "name": name}, fds)
                reply, given = frames.receive(channel)
            except (frames.Closed, OSError) as error:
                raise SandboxGone(str(error)) from error
        if "error" in reply:
            raise SandboxFailed(reply["error"])
        return given[0] if given else None

    def close_input(self, name: str) -> None:
        """Whoever typed into a container's standard input has gone, and nobody else will. Raises SandboxGone, SandboxFailed."""
        self.call({"op": "close-input", "name": name})

    def signal(self, name: str, number: int, everyone: bool = False) -> None:
        with contextlib.suppress(SandboxGone):
            self.call({"op": "signal", "name": name, "number": number, "everyone": everyone})

    def socket(self) -> socket.socket:
        """An unconnected TCP socket of the pod's network. Raises SandboxGone."""
        _, fds = self._call({"op": "sockets", "count": 1})
        return socket.socket(fileno=fds[0])

    def execute(self, name: str, argv: Sequence[str], seconds: float) -> tuple[int, str]:
        """Runs a command in a container: (exit code, output). Raises TimeoutError, SandboxGone, SandboxFailed."""
        connection = connect(self.folder)
        try:
            connection.settimeout(seconds)
            frames.send(connection, {"op": "exec", "name": name, "argv": list(argv)})
            reply, _ = frames.receive(connection)
        except frames.Closed as error:
            raise SandboxGone(str(error)) from error
        finally:
            connection.close()
        if "error" in reply:
            raise SandboxFailed(reply["error"])
        return reply["exit"], reply["output"]


def _handed_over(channel: socket.socket, request: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Sends a request with descriptors, which are the other side's alone afterwards."""
    try:
        frames.send(channel, request, fds)
    finally:
        for fd in fds:
            os.close(fd)


def alive(folder: Path) -> bool:
    """Whether the pod_init recorded in a pod's folder still runs."""
    record = _recorded(folder)
    return record is not None and start_time(record[0]) == record[1]


def end(folder: Path, seconds: float = KILL_SECONDS) -> bool:
    """Kills the pod_init recorded in a pod's folder, and by it everything in the pod. True if it ran. Raises SandboxFailed."""
    record = _recorded(folder)
    if record is None or start_time(record[0]) != record[1]:
        return False
    pid, started = record
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + seconds
    while start_time(pid) == started:
        if time.monotonic() > deadline:
            raise SandboxFailed(f"process {pid} of pod {folder.name} does not end: see /proc/{pid}/status")
        time.sleep(0.01)
    return True


def end_all(pods: Path) -> int:
    """Kills every pod left in a home's pods folder; the number that still ran. For `stop` after the agent itself has died."""
    return sum(end(folder) for folder in sorted(pods.iterdir()) if folder.is_dir()) if pods.is_dir() else 0


def end_unrecorded(pods: Path) -> int:
    """Kills first processes of pods that no folder here records; their number. Raises ProcessFailed.

    An agent was killed before it could write one down, or the home was removed under it.
    """
    logs = {Path(os.path.realpath(folder), _LOG): folder for folder in (pods.iterdir() if pods.is_dir() else ())}
    recorded = {(_recorded(folder) or (None,))[0] for folder in logs.values()}
    strays = {pid for pid, file in outputs() if file in logs} | set(marked(pods.parent, POD_MARK))
    return kill(strays - recorded)


def remove(folder: Path) -> None:
    """Removes an ended pod's folder, whatever modes its files were given: a folder's mode keeps its owner out as well."""
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    for place, folders, _ in os.walk(folder):
        for inner in (Path(place, name) for name in folders):
            if not inner.is_symlink():
                with contextlib.suppress(OSError):
                    inner.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _recorded(folder: Path) -> tuple[int, int] | None:
    try:
        record = json.loads((folder / _RECORD).read_text())
        return int(record["pid"]), int(record["started"])
    except (OSError, ValueError, KeyError):
        return None
