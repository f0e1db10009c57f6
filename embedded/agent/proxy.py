"""The service proxy's control side: what should be listened on, from Services, EndpointSlices and pods that run."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from embedded.agent import frames
from embedded.agent.sandbox import boot_command
from embedded.home import ClusterInfo
from embedded.processes import OWNER_MARK
from mistral_on_l4.cluster.client import Object

_log = logging.getLogger(__name__)
_WAIT_SECONDS = 5.0
# A host port that is in use now may be free later.
_RETRY_SECONDS = 10.0

Problem = Callable[[str, int, str], None]


def rules(
    services: Iterable[Object],
    slices: Iterable[Object],
    owner: Callable[[str], str | None],
    cluster: ClusterInfo,
    clients: Callable[[str, int], list[str] | None],
) -> list[dict[str, Any]]:
    """Rules for proxy_process. owner: uid of the running pod that has an address, None if it is not one of ours; clients: uids of
    the pods that may connect to a pod's port, None if all may."""
    by_service: dict[tuple[str, str], list[Object]] = {}
    for each in slices:
        name = (each["metadata"].get("labels") or {}).get("kubernetes.io/service-name", "")
        by_service.setdefault((each["metadata"]["namespace"], name), []).append(each)
    out = []
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        address = spec.get("clusterIP")
        if not address or address == "None" or spec.get("type") == "ExternalName":
            continue
        api_server = (metadata["namespace"], metadata["name"]) == ("default", "kubernetes")
        for port in spec.get("ports") or []:
            if port.get("protocol", "TCP") != "TCP":
                continue
            if api_server:
                targets: list[list[Any]] = [["host", "127.0.0.1", cluster.api_server_port]]
            else:
                targets = _targets(by_service.get((metadata["namespace"], metadata["name"]), []), port, owner)
                targets = [[*target, clients(target[1], target[3])] for target in targets]
            out.append({"ip": address, "port": port["port"], "host_port": host_port(port["port"], cluster), "targets": targets})
    ip, _, number = cluster.hub_address.rpartition(":")
    if ip:
        out.append({"ip": ip, "port": int(number), "host_port": None, "targets": [["host", ip, int(number)]]})
    return out


def host_port(port: int, cluster: ClusterInfo) -> int:
    """The port on the host for a Service's: itself, or moved up where the user may not bind it."""
    return port if port >= 1024 or cluster.privileged_ports else port + cluster.port_shift


def _targets(slices: Iterable[Object], port: Mapping[str, Any], owner: Callable[[str], str | None]) -> list[list[Any]]:
    chosen: dict[tuple[str, int], list[Any]] = {}
    for each in slices:
        numbers = [
            entry["port"]
            for entry in each.get("ports") or []
            if (entry.get("name") or "") == (port.get("name") or "") and entry.get("port")
        ]
        for endpoint in each.get("endpoints") or []:
            # Unknown readiness counts as ready, says the EndpointSlice API.
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            for address in endpoint.get("addresses") or []:
                uid = owner(address)
                for number in numbers if uid else []:
                    chosen[(address, number)] = ["pod", uid, address, number]
    return [chosen[key] for key in sorted(chosen)]


class Proxy:
    """Keeps proxy_process running and told. state: computes (rules, pods); problem: told what cannot be listened on."""

    def __init__(
        self, state: Callable[[], tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]], problem: Problem, log: Path
    ) -> None:
        self._state, self._problem, self._log_file = state, problem, log
        self._condition = threading.Condition()
        self._wanted = 0
        self._applied = 0
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._told: set[tuple[str, int, str]] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def changed(self, wait: bool = False) -> None:
        """Says that the rules have to be computed again. With `wait`, returns once the proxy has them, or after some seconds."""
        with self._condition:
            self._wanted += 1
            mine = self._wanted
            self._condition.notify_all()
            if wait:
                self._condition.wait_for(lambda: self._applied >= mine or self._stopped, _WAIT_SECONDS)

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._drive()
            except (OSError, frames.Closed) as error:
                if not self._stopped:
                    _log.error("the service proxy ended and is started again: %s (log: %s)", error, self._log_file)
                    time.sleep(0.5)

    def _drive(self) -> None:
        """Runs the process once, until it ends or the proxy is stopped."""
        ours, theirs = socket.socketpair()
        with self._log_file.open("ab") as out:
            self._log_file.chmod(0o600)
            self._process = subprocess.Popen(
                [*boot_command("proxy_process"), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env={"PATH": "/usr/bin:/bin", OWNER_MARK: os.environ.get(OWNER_MARK, "")},
            )
        theirs.close()
        ours.settimeout(30.0)
        last: Any = None
        last_number = -1
        retry_at = 0.0
        with ours:
            while not self._stopped:
                with self._condition:
                    number = self._wanted
                again = bool(retry_at) and time.monotonic() >= retry_at
                wanted_rules, pods = self._state() if number != last_number or again else last
                last_number = number
                if (wanted_rules, pods) != last or again:
                    frames.send(ours, {"seq": number, "rules": wanted_rules, "pods": pods})
                    reply, _ = frames.receive(ours)
                    last = (wanted_rules, pods)
                    retry_at = time.monotonic() + _RETRY_SECONDS if reply["problems"] else 0.0
                    self._report(reply["problems"])
                elif self._process.poll() is not None:
                    raise OSError(f"exit code {self._process.returncode}")
                with self._condition:
                    self._applied = max(self._applied, number)
                    self._condition.notify_all()
                    self._condition.wait_for(lambda seen=number: self._wanted > seen or self._stopped, 2.0)  # type: ignore[misc]

    def _report(self, problems: list[dict[str, Any]]) -> None:
        current = {(each["ip"], each["port"], each["message"]) for each in problems}
        for each in current - self._told:
            self._problem(*each)
        self._told = current
