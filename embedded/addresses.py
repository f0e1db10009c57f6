"""Ports and the range of Service addresses of one home: chosen once, kept as long as nobody else took them."""

from __future__ import annotations

import ipaddress
import json
import random
import socket
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from embedded.home import LocalHome, tools_cache
from embedded.toolchain.locks import held
from mistral_on_l4.files import write_whole

# Every address of 127.0.0.0/8 is this host's own (Linux); Kubernetes accepts it as a Service range (facts: tried on 1.36).
RANGES = tuple(f"127.{second}.0.0/16" for second in range(64, 96))
# Below the range that the kernel hands to outgoing connections, so that a stopped cluster's ports stay free.
PORTS = range(20000, 32000)
# What listens on 127.0.0.1. The API server's is in every kubeconfig; the hub's is on an address of the Service range.
LOCAL_PORTS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kserve-webhook",
    "kserve-metrics",
    "kserve-health",
    "agent",
    "kubelet",
)
PORT_SHIFT = 8000
RELEASE_SECONDS = 2.0


class NoAddress(Exception):
    """No free range or port. One line that says what to do."""


def choose_range(home: LocalHome, recorded: str | None) -> str:
    """The Service range of a home. A recorded one is kept, since the Services in etcd have addresses from it.

    Ranges of this user's other homes, running or not, are in a register; those of other users show by what listens in them.
    """
    register = tools_cache().parent / "service-ranges.json"
    with held(register.with_suffix(".lock"), lambda _: None, 30.0):
        taken = {text: owner for text, owner in _registered(register).items() if _still_uses(Path(owner), text)}
        taken = {text: owner for text, owner in taken.items() if owner != str(home.root)}
        if recorded in RANGES:
            if recorded in taken:
                raise NoAddress(
                    f"the Service addresses {recorded} of {home.root} are now those of the cluster in {taken[recorded]}: "
                    "remove one of them (demo down --purge)"
                )
            chosen = recorded
        else:
            listening = _listening_addresses()
            free = [text for text in RANGES if text not in taken and not _any_in(listening, text)]
            if not free:
                raise NoAddress("32 local clusters use all Service ranges of this machine: remove one (demo down --purge)")
            chosen = free[0]
        write_whole(register, json.dumps({**taken, chosen: str(home.root)}, indent=2) + "\n")
    return chosen


def forget_range(home: LocalHome) -> None:
    """Gives the range of a removed home back."""
    register = tools_cache().parent / "service-ranges.json"
    if not register.exists():
        return
    with held(register.with_suffix(".lock"), lambda _: None, 30.0):
        kept = {text: owner for text, owner in _registered(register).items() if owner != str(home.root)}
        write_whole(register, json.dumps(kept, indent=2) + "\n")


def hub_host(service_cidr: str) -> str:
    """The address of the range that the hub has: far from those that Kubernetes hands out first."""
    return str(ipaddress.IPv4Network(service_cidr)[-2])


def first_address(service_cidr: str) -> str:
    """Where Kubernetes puts its own Service `kubernetes`."""
    return str(ipaddress.IPv4Network(service_cidr)[1])


def choose_ports(recorded: Mapping[str, int], busy_is_ours: Collection[str], hub_address: str) -> dict[str, int]:
    """A port for each of LOCAL_PORTS and "hub". A recorded one is kept if it is free or a process of ours holds it."""
    chosen: dict[str, int] = {}
    deadline = time.monotonic() + RELEASE_SECONDS
    for name in (*LOCAL_PORTS, "hub"):
        host = hub_address if name == "hub" else "127.0.0.1"
        port = recorded.get(name)
        if port is None or port in chosen.values() or (name not in busy_is_ours and not _free_by(deadline, host, port)):
            port = _some_port(host, {*chosen.values(), *recorded.values()})
        chosen[name] = port
    return chosen


def free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # A port whose last connections are still closing is free for a server that sets this, as all of ours do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _free_by(deadline: float, host: str, port: int) -> bool:
    """Waits for a port, since a process that was killed gives its sockets back a moment after it is gone from sight."""
    while not free(host, port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_listening(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def may_use_privileged_ports(host: str) -> bool:
    """Whether this user can listen below 1024. A port that is busy could still be allowed, so several are tried."""
    for port in (80, 81, 443, 999):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
                return True
            except PermissionError:
                return False
            except OSError:
                continue
    return False


def _some_port(host: str, taken: Collection[int]) -> int:
    for port in random.sample(PORTS, 200):
        # KServe's webhook server listens on every address, so a port has to be free on all of them.
        if port not in taken and free(host, port) and free("0.0.0.0", port):
            return port
    raise NoAddress(f"no free port between {PORTS.start} and {PORTS.stop} on {host}: what listens there? (ss -ltn)")


def _registered(register: Path) -> dict[str, str]:
    try:
        values = json.loads(register.read_text())
    except (OSError, ValueError):
        return {}
    return {str(text): str(owner) for text, owner in values.items()} if isinstance(values, dict) else {}


def _still_uses(root: Path, service_cidr: str) -> bool:
    """A home that was removed holds no range; one without a record is just being started, or its first start failed."""
    if not root.is_dir():
        return False
    try:
        return bool(json.loads((root / "cluster.json").read_text())["service_cidr"] == service_cidr)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _listening_addresses() -> list[ipaddress.IPv4Address]:
    """Local addresses of all listening TCP sockets of this host, any user's (/proc/net/tcp, state 0A)."""
    listening = []
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return []
    for line in lines:
        fields = line.split()
        if fields[3] == "0A":
            listening.append(ipaddress.IPv4Address(bytes.fromhex(fields[1].partition(":")[0])[::-1]))
    return listening


def _any_in(addresses: Collection[ipaddress.IPv4Address], network: str) -> bool:
    return any(address in ipaddress.IPv4Network(network) for address in addresses)
