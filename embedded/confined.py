"""Runs a program in a network of its own, reachable on chosen loopback ports only, and reaching chosen ones only.

    python -m embedded.confined --listen 127.0.0.1:9443 --reach 127.0.0.1:6443 -- PROGRAM ARGUMENTS

KServe's controller serves its webhooks on every address of the machine and has no flag to say otherwise. Here "every address" is
the loopback of an empty network: this process listens in its place on --listen and passes connections in, and passes out those
that the program makes to --reach. It ends with the program's exit code, and the program ends with it.
"""

from __future__ import annotations

import argparse
import array
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence

from embedded.agent import syscalls

_CHUNK = 256 * 1024
_BACKLOG = 64
# Any address does that is nobody's: the empty network has no other member.
_OWN_ADDRESS = "10.255.255.2"

Address = tuple[str, int]
Connect = Callable[[Address], socket.socket | None]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="embedded.confined")
    parser.add_argument("--listen", type=_address, action="append", default=[], metavar="127.X.Y.Z:PORT")
    parser.add_argument("--reach", type=_address, action="append", default=[], metavar="127.X.Y.Z:PORT")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    outside = [(socket.create_server(address, backlog=_BACKLOG), address) for address in given.listen]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        ours.close()
        for server, _ in outside:
            server.close()
        os._exit(_inside(theirs, given.reach, given.command, parent))
    theirs.close()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(child, received))
    inside = _receive(ours, len(given.reach))
    if len(inside) < len(given.reach):
        return _exit_code(child)
    asking = threading.Lock()

    def into(address: Address) -> socket.socket | None:
        with asking:
            ours.send(f"{address[0]}:{address[1]}".encode())
            sockets = _receive(ours, 1)
        return sockets[0] if sockets else None

    def out(address: Address) -> socket.socket | None:
        try:
            return socket.create_connection(address, timeout=10.0)
        except OSError:
            return None

    for server, address in outside:
        threading.Thread(target=_serve, args=(server, address, into), daemon=True).start()
    for server, address in zip(inside, given.reach, strict=True):
        threading.Thread(target=_serve, args=(server, address, out), daemon=True).start()
    return _exit_code(child)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host.startswith("127.") or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a loopback address with a port")
    return host, int(port)


# -- inside ----------------------------------------------------------------------------------------------------------------


def _inside(control: socket.socket, reach: Sequence[Address], command: Sequence[str], parent: int) -> int:
    """The program's parent in the empty network: makes sockets there for the process outside. Returns the program's exit code."""
    _end_with(parent)
    uid, gid = os.getuid(), os.getgid()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET)
        syscalls.map_ids(uid, gid, uid, gid)
        syscalls.loopback_up(_OWN_ADDRESS)
        servers = [socket.create_server(address, backlog=_BACKLOG) for address in reach]
    except OSError as error:
        print(f"no network of its own could be made for {command[0]}: {error}", file=sys.stderr)
        return 1
    _send(control, servers)
    for server in servers:
        server.close()
    own = os.getpid()
    program = os.fork()
    if program == 0:
        _end_with(own)
        try:
            os.execv(command[0], list(command))
        except OSError as error:
            print(f"{command[0]} cannot be started: {error}", file=sys.stderr)
            os._exit(127)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(program, received))
    threading.Thread(target=_connect_for, args=(control,), daemon=True).start()
    return _exit_code(program)


def _connect_for(control: socket.socket) -> None:
    """Answers "host:port" with a socket that is connected to it in this network, or with nothing if it is refused."""
    while request := control.recv(64):
        host, _, port = request.decode().rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=10.0) as made:
                made.settimeout(None)
                _send(control, [made])
        except OSError:
            _send(control, [])


def _end_with(parent: int) -> None:
    """This process is killed when its parent ends, however that happens."""
    syscalls.end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


# -- both ------------------------------------------------------------------------------------------------------------------


def _exit_code(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _send(control: socket.socket, sockets: Sequence[socket.socket]) -> None:
    rights = array.array("i", [each.fileno() for each in sockets])
    control.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if sockets else [])


def _receive(control: socket.socket, most: int) -> list[socket.socket]:
    message, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(most * array.array("i").itemsize))
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if message and level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def _serve(server: socket.socket, address: Address, connect: Connect) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            # Out of descriptors for a moment, or the client gave up in the queue.
            time.sleep(0.1)
            continue
        threading.Thread(target=_pass_on, args=(client, address, connect), daemon=True).start()


def _pass_on(client: socket.socket, address: Address, connect: Connect) -> None:
    """Moves bytes both ways until both sides have ended."""
    upstream = connect(address)
    if upstream is None:
        client.close()
        return
    back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
    back.start()
    _pump(client, upstream)
    back.join()
    client.close()
    upstream.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side broke: so does the other, which ends the opposite direction too.
        for each in (source, target):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


if __name__ == "__main__":
    sys.exit(main())
