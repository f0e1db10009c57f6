"""What a pod's first process knows of the processes that it started: its containers, and commands in them.

Runs in a pod's first process: standard library only.
"""

# pathlib would cost every pod a MiB.
# ruff: noqa: PTH115, PTH123, PTH208

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from embedded.agent.container_log import LogWriter
from embedded.agent.pod_streams import Audience


class Container:
    """A started container: `state` is what the agent is told; stdin: where what is typed for it goes, if it takes any."""

    audience: Audience

    def __init__(self, spec: dict[str, Any], pid: int, stdin: int | None) -> None:
        self.pid = pid
        self.log = LogWriter(spec["log"])
        self.pipes: dict[int, str] = {}
        self.stdin = stdin
        self.env: dict[str, str] = spec["env"]
        self.cwd: str = spec["cwd"]
        self.report: Callable[[], None] | None = None
        self.state: dict[str, Any] = {
            "name": spec["name"],
            "attempt": spec["attempt"],
            "started": time.time(),
            "finished": None,
            "code": None,
            "signal": None,
            "mounts": "",
        }

    def close_input(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def signal_everyone(self, number: int) -> None:
        """All processes in the container's mount namespace: groups and sessions can be left, that cannot."""
        if not self.state["mounts"]:
            return
        for _ in range(2):  # the second time for what was being forked during the first
            for entry in os.listdir("/proc"):
                if not entry.isdigit() or entry == "1":
                    continue
                try:
                    if os.readlink(f"/proc/{entry}/ns/mnt") == self.state["mounts"]:
                        os.kill(_own_pid(entry), number)
                except OSError:
                    continue
            if number != signal.SIGKILL:
                return


class Exec:
    """A command that runs in a container, for a probe or a hook, or for somebody who has its output (None here)."""

    def __init__(self, connection: socket.socket, pid: int, output: int | None) -> None:
        self.connection = connection
        self.pid = pid
        self.output = output
        self.text = b""


def _own_pid(entry: str) -> int:
    """The pid in this namespace; /proc may be the outer one, where a fresh one could not be mounted."""
    with open(f"/proc/{entry}/status") as lines:
        for line in lines:
            if line.startswith("NSpid:"):
                fields = line.split()[1:]
                return int(fields[_depth()]) if len(fields) > _depth() else int(entry)
    return int(entry)


def _depth() -> int:
    """How many pid namespaces lie between what /proc shows and ours: 0 for our own /proc."""
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith("NSpid:"):
                return len(line.split()) - 2
    return 0
