"""SPDY sessions, and what kubectl's streams are joined with."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from embedded.agent import pod_streams, spdy, streaming
from embedded.agent.spdy import Session
from embedded.agent.streaming import Target, Wanted


def test_the_dictionary_is_that_of_the_draft() -> None:
    # Of the bytes in section 2.6.10.1, which moby/spdystream has as well.
    assert hashlib.sha256(spdy.DICTIONARY).hexdigest() == "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"


class Client:
    """The API server's side of a session."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(10)
        self._deflate = zlib.compressobj(zdict=spdy.DICTIONARY)
        self.received: dict[int, bytes] = {}
        self.ended: set[int] = set()

    def open(self, number: int, **headers: str) -> None:
        block = struct.pack(">I", len(headers))
        for name, text in headers.items():
            block += b"".join(struct.pack(">I", len(word)) + word.encode() for word in (name, text))
        body = struct.pack(">IIH", number, 0, 0) + self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self.connection.sendall(struct.pack(">HHI", 0x8003, 1, len(body)) + body)

    def send(self, number: int, data: bytes, last: bool = False) -> None:
        self.connection.sendall(struct.pack(">II", number, len(data) | last << 24) + data)

    def read(self) -> None:
        """Everything until the session is closed."""
        while head := self._exactly(8):
            first, rest = struct.unpack(">II", head)
            data = self._exactly(rest & 0xFFFFFF)
            if not first >> 31:
                self.received[first] = self.received.get(first, b"") + data
                if rest >> 24:
                    self.ended.add(first)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.connection.recv(count - len(data))
            if not piece:
                return b""
            data += piece
        return data


class Box:
    """A pod in which every command is `cat`, with a server that repeats what it is told."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, Sequence[str]]] = []

    def channel(self) -> socket.socket:
        return socket.socketpair()[0]

    def run(self, channel: socket.socket, name: str, argv: Sequence[str], terminal: bool, fds: Sequence[int]) -> int:
        self.ran.append((name, argv))
        stdin, stdout, stderr = fds
        while data := os.read(stdin, 65536):
            os.write(stdout, data)
        os.write(stderr, b"done")
        for fd in fds:
            os.close(fd)
        return 7

    def attach_to(self, name: str, fds: Sequence[int]) -> int | None:
        raise AssertionError(name)

    def close_input(self, name: str) -> None:
        raise AssertionError(name)

    def socket(self) -> socket.socket:
        return socket.socket()


@pytest.fixture
def pair() -> Iterator[tuple[Client, Session, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Client(theirs), Session(ours), ours


def test_a_command_gets_its_input_and_sends_output_errors_and_exit_code(pair: tuple[Client, Session, socket.socket]) -> None:
    client, session, ours = pair
    wanted = Wanted.parse({"command": ["cat", "-"], "input": ["1"], "output": ["1"], "error": ["1"]})
    box = Box()
    work = streaming.execute(Target(box, "main", {}, "10.128.0.1"), wanted)

    def serve() -> None:
        streaming.converse(session, wanted, work)
        ours.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=serve, daemon=True).start()
    large = os.urandom(3_000_000)
    for number, kind in ((1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")):
        client.open(number, streamtype=kind)
    reader = threading.Thread(target=client.read)
    reader.start()
    for start in range(0, len(large), 60_000):
        client.send(3, large[start : start + 60_000])
    client.send(3, b"", last=True)
    reader.join(20)
    assert box.ran == [("main", ("cat", "-"))]
    assert client.received[5] == large
    assert client.received[7] == b"done"
    status = json.loads(client.received[1])
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert client.ended >= {1, 5, 7}


def test_two_connections_share_a_port_forward_and_a_closed_port_is_named(pair: tuple[Client, Session, socket.socket]) -> None:
    client, session, _ = pair
    server = socket.create_server(("127.0.0.1", 0))

    def repeat() -> None:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())

    threading.Thread(target=repeat, daemon=True).start()
    target = Target(Box(), "", {}, "127.0.0.1")
    threading.Thread(target=streaming.forward, args=(session, target), daemon=True).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = str(free.getsockname()[1])
    for number, port in ((1, str(server.getsockname()[1])), (5, str(server.getsockname()[1])), (9, closed)):
        client.open(number, streamtype="error", port=port, requestid=str(number))
        client.open(number + 2, streamtype="data", port=port, requestid=str(number))
    client.send(3, b"one")
    client.send(7, b"two")
    while not {3, 7, 9} <= client.ended:
        head = client._exactly(8)
        first, rest = struct.unpack(">II", head)
        data = client._exactly(rest & 0xFFFFFF)
        if not first >> 31:
            client.received[first] = client.received.get(first, b"") + data
            client.ended |= {first} if rest >> 24 else set()
    assert (client.received[3], client.received[7]) == (b"ONE", b"TWO")
    assert f"nothing listens on port {closed}" in client.received[9].decode()
    server.close()


def test_a_terminal_has_no_stream_of_errors() -> None:
    wanted = Wanted.parse({"command": ["sh"], "input": ["1"], "output": ["1"], "error": ["1"], "tty": ["1"]})
    assert wanted.streams == {"error", "stdin", "stdout", "resize"}


def test_whoever_reads_slowly_holds_the_container_up_and_loses_nothing() -> None:
    ours, theirs = socket.socketpair()
    errors, _errors = socket.socketpair()
    watched: dict[int, Any] = {}
    resumed: list[bool] = []
    audience = pod_streams.Audience(
        lambda fd, handler, _: watched.__setitem__(fd, handler), watched.pop, lambda: resumed.append(True)
    )
    audience.join(pod_streams.Attached(theirs.detach(), errors.detach()))
    written = b""
    while not audience.tell("stdout", b"x" * 65536):
        written += b"x" * 65536
    written += b"x" * 65536
    read = b""
    ours.settimeout(5)
    while watched:
        read += ours.recv(1 << 20)
        for handler in list(watched.values()):
            handler()
    assert resumed == [True]
    audience.finish()
    while data := ours.recv(1 << 20):
        read += data
    assert read == written


def test_one_who_has_gone_does_not_hold_the_container_up() -> None:
    ours, theirs = socket.socketpair()
    errors, _errors = socket.socketpair()
    audience = pod_streams.Audience(lambda *_: None, lambda _: None, lambda: None)
    audience.join(pod_streams.Attached(theirs.detach(), errors.detach()))
    ours.close()
    assert not audience.tell("stdout", b"x" * 10_000_000)
