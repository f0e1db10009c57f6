"""The first process of a pod: makes its namespaces and network, then runs the loop that starts its containers (pod_loop).

It runs as `python -I -S` with nothing but the standard library, one per pod, and is kept small. It goes on without the agent, so a
killed agent finds its pods as they were: it connects to the Unix socket in the pod's folder and asks `hello`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import Any

from embedded.agent import pod_network, syscalls
from embedded.agent.pod_loop import Loop
from embedded.agent.pod_network import Network


def main() -> None:
    """`config` comes as JSON on standard input; `pid N`, `ready` or `error TEXT` go to standard output."""
    config = json.loads(sys.stdin.buffer.read())
    listener = socket.socket(fileno=config["listener"])
    listener.set_inheritable(False)
    os.umask(0o022)
    uid, gid = os.geteuid(), os.getegid()
    try:
        spaces = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET
        spaces |= syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
        syscalls.unshare(spaces)
        syscalls.map_ids(0, 0, uid, gid)
    except OSError as error:
        _say(f"error namespaces cannot be made: {error.strerror} (are user namespaces allowed on this machine?)")
        os._exit(1)
    pid = os.fork()
    if pid:
        _say(f"pid {pid}")
        os._exit(0)
    try:
        os.setsid()
        network = _furnish(config)
        listener.listen(64)
    except OSError as error:
        _say(f"error {error.filename2 or error.filename or 'the pod'}: {error.strerror or error}")
        os._exit(1)
    _say("ready")
    log = os.open(config["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(null)
    Loop(listener, network).run()


def _furnish(config: dict[str, Any]) -> Network:
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    with contextlib.suppress(OSError):  # refused where the outer /proc is masked; that one serves then
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    network = pod_network.build(config["pod_ip"])
    socket.sethostname(config["hostname"])
    # As container runtimes do: a container's user may listen on any port of its pod.
    for name, text in (("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", "0 0")):
        with contextlib.suppress(OSError):
            descriptor = os.open(f"/proc/sys/{name}", os.O_WRONLY)
            os.write(descriptor, text.encode())
            os.close(descriptor)
    for volume in config["tmpfs"]:
        options = "mode=1777" + (f",size={volume['bytes']}" if volume["bytes"] else "")
        syscalls.mount("tmpfs", volume["path"], "tmpfs", syscalls.MS_NODEV | syscalls.MS_NOSUID, options)
    return network


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")
