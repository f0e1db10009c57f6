"""What the agent knows of one container: its state in the API's words, its restarts and back-off, its probes."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping
from typing import Any

from embedded.agent import probes, quantities
from embedded.agent.probes import Probe

# kubelet's: the first restart is at once, the next after 10 s, then twice as long up to 300 s; forgotten after 600 s of running.
FIRST_BACKOFF = 10.0
LONGEST_BACKOFF = 300.0
_BACKOFF_FORGOTTEN = 600.0


def timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def epoch(stamp: str) -> float:
    """The reverse of `timestamp`."""
    return float(calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")))


class Container:
    """Mutable, owned by its pod's worker. `retry_at`, `backoff`: seconds, the former of time.monotonic()."""

    def __init__(self, spec: Mapping[str, Any], init: bool, waiting: str) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.init = init
        # An init container that restarts always is a sidecar: started in its turn, kept running beside the others.
        self.sidecar = init and spec.get("restartPolicy") == "Always"
        self.state: dict[str, Any] = {"waiting": {"reason": waiting}}
        self.last: dict[str, Any] = {}
        self.restarts = 0
        self.launched = False  # ever
        self.begun = False  # in these namespaces
        self.started = False
        self.ready = False
        self.stopping = False
        self.mounts = ""  # the name of its mount namespace
        self.over_limit = False
        self.retry_at = 0.0
        self.backoff = 0.0
        self.program = ""
        self.container_id = ""
        self.probes: list[Probe] = []

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def terminated(self) -> dict[str, Any] | None:
        ended: dict[str, Any] | None = self.state.get("terminated")
        return ended

    @property
    def succeeded(self) -> bool:
        return self.terminated is not None and self.terminated["exitCode"] == 0

    def restarts_after(self, exit_code: int, pod_policy: str) -> bool:
        if self.sidecar:
            return True
        if self.init:
            return exit_code != 0 and pod_policy != "Never"
        return pod_policy == "Always" or (pod_policy == "OnFailure" and exit_code != 0)

    def wait(self, reason: str, message: str = "") -> bool:
        """Sets the state to waiting, with a reason. True if that is a change."""
        waiting = {"reason": reason} | ({"message": message} if message else {})
        news = self.state.get("waiting") != waiting
        self.state = {"waiting": waiting}
        self.ready = self.started = False
        return news

    @property
    def memory_limit_bytes(self) -> int | None:
        limit = ((self.spec.get("resources") or {}).get("limits") or {}).get("memory")
        return None if limit is None else int(quantities.parse(limit))

    def begin(self, started: float, now: float, mounts: str = "") -> None:
        """Sets the state to running since `started` (epoch seconds); `now` is monotonic, `mounts` the name of a mount namespace."""
        self.mounts, self.over_limit = mounts, False
        self.state = {"running": {"startedAt": timestamp(started)}}
        self.launched = self.begun = True
        self.stopping = False
        declared = probes.declared(self.spec)
        self.probes = [Probe.of(kind, spec, now) for kind, spec in declared.items()]
        self.started = "startup" not in declared
        self.ready = self.started and "readiness" not in declared

    def end(self, terminated: dict[str, Any], ran: float, now: float, restart: bool) -> float:
        """It ended. Returns how long to wait before it is started again (0: at once), as far as it is."""
        self.ready = False
        self.probes = []
        self.started = False
        if not restart:
            self.state = {"terminated": terminated}
            return 0.0
        self.last = {"terminated": terminated}
        if ran >= _BACKOFF_FORGOTTEN:
            self.backoff = 0.0
        delay = self.backoff
        self.backoff = min(LONGEST_BACKOFF, self.backoff * 2) if self.backoff else FIRST_BACKOFF
        self.retry_at = now + delay
        self.state = {"terminated": terminated}
        return delay

    def status(self) -> dict[str, Any]:
        """An entry of containerStatuses."""
        return {
            "name": self.name,
            "image": self.spec["image"],
            # There is no image: this says which local program stands for it.
            "imageID": f"local-program://{self.program}" if self.program else "",
            "containerID": self.container_id,
            "state": self.state,
            "lastState": self.last,
            "ready": self.succeeded if self.init and not self.sidecar else self.ready,
            "started": self.started and self.running,
            "restartCount": self.restarts,
        }

    def restore(self, status: Mapping[str, Any]) -> None:
        """Takes over what the API server still knows, after the agent was started again."""
        self.state = dict(status.get("state") or self.state)
        self.last = dict(status.get("lastState") or {})
        self.restarts = int(status.get("restartCount") or 0)
        self.container_id = status.get("containerID") or ""
        self.program = (status.get("imageID") or "").removeprefix("local-program://")
        self.launched = bool(self.container_id)
