"""Messages between the agent and a pod's first process: a length, JSON, and file descriptors that travel with it.

Used on both sides; inside the pod there are no site-packages, so it imports the standard library only.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

_MOST_FDS = 64
_MOST_BYTES = 64 * 2**20


class Closed(Exception):
    """The other side is gone."""


def encode(message: Any) -> bytes:
    data = json.dumps(message).encode()
    return struct.pack(">I", len(data)) + data


def send(connection: socket.socket, message: Any, fds: Sequence[int] = ()) -> None:
    data = encode(message)
    try:
        sent = connection.sendmsg(
            [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [], socket.MSG_NOSIGNAL
        )
        if sent < len(data):
            connection.sendall(data[sent:])
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Closed(str(error)) from error


def receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """The next message and the descriptors that came with it, which the caller owns. Raises Closed; TimeoutError as set."""
    fds: list[int] = []
    try:
        header = _exactly(connection, 4, fds)
        (length,) = struct.unpack(">I", header)
        if length > _MOST_BYTES:
            raise Closed(f"a message of {length} bytes")
        return json.loads(_exactly(connection, length, fds)), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _exactly(connection: socket.socket, count: int, fds: list[int]) -> bytes:
    parts: list[bytes] = []
    while count:
        try:
            data, ancillary, _, _ = connection.recvmsg(min(count, 2**20), socket.CMSG_SPACE(4 * _MOST_FDS), socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError as error:
            raise Closed(str(error)) from error
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
                fds.extend(received)
        if not data:
            raise Closed("end of stream")
        parts.append(data)
        count -= len(data)
    return b"".join(parts)
