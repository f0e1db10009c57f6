"""What of a local stack is still there after it was taken down: processes, listening ports, mounts, objects' files."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path

from embedded.home import ClusterInfo, LocalHome

_LISTEN = "0A"


def leftovers(home: LocalHome, cluster: ClusterInfo | None) -> list[str]:
    """One line for each thing that a stopped stack should not have left. `cluster`: as recorded before the stop, for its ports."""
    left = [f"process {pid}: {what}" for pid, what in _processes(home.root)]
    if cluster is not None:
        ours = set(cluster.ports.values()) | {cluster.api_server_port}
        network = ipaddress.ip_network(cluster.service_cidr)
        left += [f"port {address}:{port} is listened on" for address, port in _listening() if port in ours or address in network]
    left += [f"mount {point}" for point in _mounts(home.root)]
    for folder in (home.volumes, home.pods):
        if folder.is_dir():
            left += [f"folder {path}" for path in sorted(folder.iterdir())]
    return left


def _processes(root: Path) -> Iterator[tuple[int, str]]:
    """Processes that we started for this home: programs of ours or of the tools, by their arguments, and pods, by their mounts."""
    named = _naming(root)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            arguments = folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
            environment = folder.joinpath("environ").read_bytes().decode(errors="replace").split("\0")
            mounted = _mounted_for(folder, named)
        except OSError:
            # It ended meanwhile, or is another user's.
            continue
        # KServe's controller has the home in its environment only.
        ours = _is_a_program_of_ours(arguments) and any(named.search(text) for text in (*arguments, *environment))
        if ours or mounted:
            yield int(folder.name), " ".join(arguments).strip()[:120]


def _is_a_program_of_ours(arguments: list[str]) -> bool:
    name = Path(arguments[0]).name
    control_plane = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kserve-manager", "manager"}
    tools = control_plane | {"pulumi-resource-kubernetes", "versitygw"}
    # Our plugins of Pulumi are told what to import by -c.
    return name in tools or any(argument.startswith("embedded") or "from embedded.plugins." in argument for argument in arguments)


def _naming(root: Path) -> re.Pattern[str]:
    """Finds this folder in a text, or one in it, and no neighbour whose name only begins or ends alike."""
    return re.compile(rf"(?<![\w.-]){re.escape(str(root))}(?![\w.-])")


def _mounted_for(process: Path, named: re.Pattern[str]) -> bool:
    """Whether a process lives in a mount namespace of a pod of this home: folders of the home are mounted there."""
    if process.joinpath("ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink():
        return False
    return named.search(process.joinpath("mountinfo").read_text(errors="replace")) is not None


def _mounts(root: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point == str(root) or point.startswith(f"{root}/")]


def _listening() -> Iterator[tuple[ipaddress.IPv4Address, int]]:
    """(address, port) of every listening TCP socket of this user, IPv4 (what we listen on is).

    Another user's stack may have the same range: the register of ranges is each user's own.
    """
    user = str(os.geteuid())
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTEN and fields[7] == user:
            address, port = fields[1].split(":")
            yield ipaddress.IPv4Address(bytes.fromhex(address)[::-1]), int(port, 16)
