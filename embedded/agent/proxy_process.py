"""The service proxy's data plane: listens on Services' addresses, on the host and inside every pod, and moves bytes.

A process of its own, so that weights that stream through it never hold the agent's control loop up, and the other way round. It
runs without site-packages (standard library only) and takes whole desired states from the agent over a socket:

    {"seq": N, "rules": [{"ip", "port", "host_port" | null, "targets": [["pod", uid, ip, port, clients] | ["host", ip, port]]}],
     "pods": {uid: {"folder", "skip": [ports]}}}
clients: uids of the pods that a pod's NetworkPolicies admit, or null for all;
and replies {"seq": N, "problems": [{"ip", "port", "message"}]}. A rule without targets is not listened for: like with kube-proxy,
connections to a Service without ready endpoints are refused. On the host it serves its own user and root: a loopback address is
every user's, and not every server behind one asks for a key. It ends when the agent does.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from embedded.agent import frames

_CHUNK = 256 * 2**10
# An unprivileged user's pipes shrink to two pages each beyond 16384 pages in all (pipe(7)): few big ones, shared.
_MOST_IDLE_PIPES = 16
_ROUNDS = 16
_SOCKETS_AHEAD = 8
_MOVE = 1 | 2  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK
_READ, _WRITE = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT

_ADMITTED = (os.geteuid(), 0)

Rule = dict[str, Any]


class Pod:
    """Sockets of one pod's network, from its pod_init."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.connection: socket.socket | None = None
        self.sockets: list[socket.socket] = []
        self.listeners: dict[tuple[str, int], socket.socket] = {}

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """Raises OSError when the pod does not answer."""
        for fresh in (False, True):
            if self.connection is None or fresh:
                self._connect()
            assert self.connection is not None
            try:
                frames.send(self.connection, request)
                return frames.receive(self.connection)
            except frames.Closed as error:
                if fresh:
                    raise ConnectionError(str(error)) from error
        raise AssertionError

    def _connect(self) -> None:
        if self.connection is not None:
            self.connection.close()
        descriptor = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.connection.settimeout(3.0)
            self.connection.connect(f"/proc/self/fd/{descriptor}/s")
        finally:
            os.close(descriptor)

    def socket(self) -> socket.socket:
        if not self.sockets:
            _, fds = self.ask({"op": "sockets", "count": _SOCKETS_AHEAD})
            self.sockets = [socket.socket(fileno=fd) for fd in fds]
        return self.sockets.pop()

    def close(self) -> None:
        for each in [*self.sockets, *self.listeners.values(), *([self.connection] if self.connection else [])]:
            each.close()


class Direction:
    """Bytes from one socket to another, through a pipe while there are any."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.pipe: tuple[int, int] | None = None
        self.held = 0
        self.ended = False
        self.done = False


class Connection:
    """A client, its upstream, and both directions."""

    def __init__(self, client: socket.socket, rule: Rule, pod: str | None) -> None:
        """pod: uid of the client's; None for the host's, which no NetworkPolicy holds back, as a node's own traffic to its pods."""
        self.client, self.rule, self.pod = client, rule, pod
        self.tries = len(rule["targets"])
        self.upstream: socket.socket | None = None
        self.directions: list[Direction] = []


class Proxy:
    """The event loop."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._masks: dict[int, int] = {}
        self._pods: dict[str, Pod] = {}
        self._rules: dict[tuple[str, int], Rule] = {}
        self._host: dict[tuple[str, int], socket.socket] = {}
        self._turn: dict[tuple[str, int], int] = {}
        self._pipes: list[tuple[int, int]] = []
        self._on(control.fileno(), select.EPOLLIN, lambda _: self._told())

    def run(self) -> None:
        while True:
            for fd, events in self._epoll.poll():
                if (handler := self._handlers.get(fd)) is not None:
                    handler(events)

    def _on(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._masks[fd] = mask
        self._epoll.register(fd, mask)

    def _mask(self, fd: int, mask: int) -> None:
        if fd in self._handlers and self._masks[fd] != mask:
            self._masks[fd] = mask
            self._epoll.modify(fd, mask)

    def _off(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            del self._masks[fd]
            self._epoll.unregister(fd)

    # -- desired state -------------------------------------------------------------------------------------------------

    def _told(self) -> None:
        try:
            wanted, _ = frames.receive(self._control)
        except (frames.Closed, OSError):
            sys.exit(0)
        problems = self._apply(wanted)
        try:
            frames.send(self._control, {"seq": wanted["seq"], "problems": problems})
        except (frames.Closed, OSError):
            sys.exit(0)

    def _apply(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        self._rules = {(rule["ip"], rule["port"]): rule for rule in wanted["rules"] if rule["targets"]}
        problems = self._listen_on_host()
        for uid in [uid for uid in self._pods if uid not in wanted["pods"]]:
            self._forget(uid)
        for uid, said in wanted["pods"].items():
            pod = self._pods.get(uid)
            if pod is None or pod.folder != said["folder"]:
                pod = self._pods[uid] = Pod(said["folder"])
            try:
                problems += self._listen_in_pod(uid, pod, set(said["skip"]))
            except OSError:
                self._forget(uid)  # it is ending; the next state will be without it
        return problems

    def _forget(self, uid: str) -> None:
        pod = self._pods.pop(uid)
        for listener in pod.listeners.values():
            self._off(listener.fileno())
        pod.close()

    def _listen_on_host(self) -> list[dict[str, Any]]:
        problems = []
        wanted = {(rule["ip"], rule["host_port"]): key for key, rule in self._rules.items() if rule["host_port"]}
        for place in [place for place in self._host if place not in wanted]:
            self._close_listener(self._host.pop(place))
        for place, key in wanted.items():
            if place in self._host:
                continue
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(place)
                listener.listen(1024)
            except OSError as error:
                listener.close()
                problems.append({"ip": key[0], "port": key[1], "message": f"{place[0]}:{place[1]}: {error.strerror}"})
                continue
            self._host[place] = listener
            self._serve(listener, key, None)
        return problems

    def _listen_in_pod(self, uid: str, pod: Pod, skip: set[int]) -> list[dict[str, Any]]:
        wanted = {key for key in self._rules if key[1] not in skip}
        for key in [key for key in pod.listeners if key not in wanted]:
            self._close_listener(pod.listeners.pop(key))
        problems = []
        for key in wanted - pod.listeners.keys():
            reply, fds = pod.ask({"op": "listen", "address": key[0], "port": key[1]})
            if not fds:
                problems.append({"ip": key[0], "port": key[1], "message": f"in a pod: {reply.get('error')}"})
                continue
            pod.listeners[key] = socket.socket(fileno=fds[0])
            self._serve(pod.listeners[key], key, uid)
        return problems

    def _serve(self, listener: socket.socket, key: tuple[str, int], pod: str | None) -> None:
        listener.setblocking(False)
        self._on(listener.fileno(), select.EPOLLIN, lambda _: self._accept(listener, key, pod))

    def _close_listener(self, listener: socket.socket) -> None:
        self._off(listener.fileno())
        listener.close()

    # -- connections ---------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket, key: tuple[str, int], pod: str | None) -> None:
        for _ in range(_ROUNDS):
            try:
                client, _ = listener.accept()
            except OSError:
                return
            rule = self._rules.get(key)
            client.setblocking(False)
            if rule is None or (pod is None and user_of(client) not in _ADMITTED):
                _reset(client)
                continue
            self._dial(Connection(client, rule, pod))

    def _dial(self, connection: Connection) -> None:
        rule = connection.rule
        key = (rule["ip"], rule["port"])
        while connection.tries > 0:
            connection.tries -= 1
            turn = self._turn[key] = (self._turn.get(key, -1) + 1) % len(rule["targets"])
            kind, *place = rule["targets"][turn]
            try:
                if kind == "host":
                    upstream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                else:
                    uid, *place, clients = place
                    if connection.pod is not None and clients is not None and connection.pod not in clients:
                        break  # what a network drops is not sent to another endpoint
                    upstream = self._pods[uid].socket()
                upstream.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    upstream.connect((place[0], place[1]))
            except (OSError, KeyError, IndexError):
                continue
            connection.upstream = upstream
            self._on(upstream.fileno(), _WRITE, lambda _: self._connected(connection))
            return
        _reset(connection.client)

    def _connected(self, connection: Connection) -> None:
        upstream = connection.upstream
        assert upstream is not None
        self._off(upstream.fileno())
        if upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            upstream.close()
            self._dial(connection)
            return
        for each in (connection.client, upstream):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there, back = Direction(connection.client, upstream), Direction(upstream, connection.client)
        connection.directions = [there, back]
        self._on(connection.client.fileno(), _READ, lambda events: self._moved(connection, there, back, events))
        self._on(upstream.fileno(), _READ, lambda events: self._moved(connection, back, there, events))
        self._pump(connection, there)

    def _moved(self, connection: Connection, outgoing: Direction, incoming: Direction, events: int) -> None:
        """Something happened on a socket: `outgoing` reads from it, `incoming` writes to it."""
        if events & select.EPOLLERR:
            self._close(connection, hard=True)
            return
        if events & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP) and not self._pump(connection, outgoing):
            return
        if events & (select.EPOLLOUT | select.EPOLLHUP) and incoming.held and not self._pump(connection, incoming):
            return
        if events & select.EPOLLHUP and outgoing.ended:
            if outgoing.done and not incoming.held:
                self._close(connection, hard=False)
            else:
                self._off(outgoing.source.fileno())  # it would be reported for as long as the other side is slow

    def _pump(self, connection: Connection, way: Direction) -> bool:
        """Moves what can be moved. False when the connection was closed by it."""
        try:
            for _ in range(_ROUNDS):
                if not way.held and not self._fill(way):
                    break
                if way.held:
                    assert way.pipe is not None
                    way.held -= os.splice(way.pipe[0], way.target.fileno(), way.held, flags=_MOVE)
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection, hard=True)
            return False
        if not way.held and way.pipe is not None:
            self._give_back(way)
        if way.ended and not way.held and not way.done:
            way.done = True
            with contextlib.suppress(OSError):
                way.target.shutdown(socket.SHUT_WR)
        there, back = connection.directions
        if there.done and back.done:
            self._close(connection, hard=False)
            return False
        for outgoing, incoming in ((there, back), (back, there)):
            reading = _READ if not outgoing.ended and not outgoing.held else 0
            self._mask(outgoing.source.fileno(), reading | (_WRITE if incoming.held else 0))
        return True

    def _fill(self, way: Direction) -> bool:
        """Takes from the source into the pipe; False at its end."""
        if way.ended:
            return False
        if way.pipe is None:
            way.pipe = self._pipes.pop() if self._pipes else _pipe()
        count = os.splice(way.source.fileno(), way.pipe[1], _CHUNK, flags=_MOVE)
        if count == 0:
            way.ended = True
            return False
        way.held = count
        return True

    def _give_back(self, way: Direction) -> None:
        assert way.pipe is not None
        if len(self._pipes) < _MOST_IDLE_PIPES and not way.held:
            self._pipes.append(way.pipe)
        else:
            os.close(way.pipe[0])
            os.close(way.pipe[1])
        way.pipe = None

    def _close(self, connection: Connection, hard: bool) -> None:
        for way in connection.directions:
            if way.pipe is not None:
                self._give_back(way)
        for each in (connection.client, connection.upstream):
            if each is not None and each.fileno() >= 0:
                self._off(each.fileno())
                if hard:
                    _reset(each)
                else:
                    each.close()


def user_of(client: socket.socket) -> int | None:
    """The user at the other end of a connection within this host; None once that end is closed, for then the kernel forgets it."""
    with contextlib.suppress(OSError):
        there, here = _in_table(client.getpeername()), _in_table(client.getsockname())
        # A client's socket of IPv6 is in a table of its own, with its IPv4 address at the end.
        for table, mapped in (("tcp", ""), ("tcp6", "0000000000000000FFFF0000")):
            with open(f"/proc/net/{table}") as lines:  # noqa: PTH123
                for line in lines:
                    fields = line.split(None, 10)
                    if fields[1] == mapped + there and fields[2] == mapped + here:
                        return int(fields[7]) if fields[9] != "0" else None
    return None


def _in_table(address: tuple[str, int]) -> str:
    """An address as /proc/net/tcp writes it: the number in this machine's byte order."""
    return f"{struct.unpack('=I', socket.inet_aton(address[0]))[0]:08X}:{address[1]:04X}"


def _pipe() -> tuple[int, int]:
    import fcntl

    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with contextlib.suppress(OSError):
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _CHUNK)
    return ends


def _reset(connection: socket.socket) -> None:
    """Closes so that the other side sees a reset, not an orderly end: what it asked did not happen."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def main() -> None:
    """`python -c BOOT FD`: FD is the socket to the agent."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65536), hard))
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    Proxy(control).run()
