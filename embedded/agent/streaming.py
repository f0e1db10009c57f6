"""exec, attach and port-forward of the kubelet's API: from the streams of a SPDY session to a pod's processes and ports.

The protocols are v4.channel.k8s.io (k8s.io/apimachinery, util/remotecommand: one stream each for standard input, output, errors,
the terminal's size, and the exit status) and portforward.k8s.io (two streams a connection, tied by their requestid).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from embedded.agent.sandbox import SandboxFailed, SandboxGone
from embedded.agent.spdy import Broken, Session, Stream

EXEC_PROTOCOL = "v4.channel.k8s.io"
FORWARD_PROTOCOL = "portforward.k8s.io"
_CHUNK = 32 * 1024
# A command's children may keep its output open when it has ended itself.
_DRAIN_SECONDS = 2.0
_CONNECT_SECONDS = 10.0


class NoSuchContainer(Exception):
    """There is no such pod or container, or it does not run. One sentence."""


class Box(Protocol):
    """What is needed of a pod's Sandbox."""

    def channel(self) -> socket.socket: ...
    def run(self, channel: socket.socket, name: str, argv: Sequence[str], terminal: bool, fds: Sequence[int]) -> int: ...
    def attach_to(self, name: str, fds: Sequence[int]) -> int | None: ...
    def close_input(self, name: str) -> None: ...
    def socket(self) -> socket.socket: ...


@dataclass(frozen=True)
class Target:
    """A pod that runs, and in it a container ("" where the whole pod is meant). spec: of the container; address: of the pod."""

    box: Box
    container: str
    spec: Mapping[str, Any]
    address: str


@dataclass(frozen=True)
class Wanted:
    """What a client asks for: the command, and which of the standard streams."""

    argv: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    terminal: bool

    @classmethod
    def parse(cls, query: Mapping[str, Sequence[str]]) -> Wanted:
        """From the query of /exec and /attach."""

        def flag(name: str) -> bool:
            return query.get(name, ["0"])[0] in ("1", "true")

        terminal = flag("tty")
        return cls(tuple(query.get("command", ())), flag("input"), flag("output"), flag("error") and not terminal, terminal)

    @property
    def streams(self) -> set[str]:
        """What the client opens, by the name in each stream's headers."""
        named = {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr, "resize": self.terminal}
        return {"error", *(name for name, asked in named.items() if asked)}


# From the streams of a session to the status that ends it.
Work = Callable[[Session, Mapping[str, Stream]], dict[str, Any]]


def converse(session: Session, wanted: Wanted, work: Work) -> None:
    """Waits for the streams, lets `work` use them, and sends the status that it returns. Until the connection ends."""
    found: dict[str, Stream] = {}
    for stream in session.streams():
        found[stream.headers.get("streamtype", "")] = stream
        if wanted.streams <= set(found):
            threading.Thread(target=_work, args=(session, dict(found), work), name="exec", daemon=True).start()


def _work(session: Session, streams: Mapping[str, Stream], work: Work) -> None:
    try:
        status = work(session, streams)
    except (SandboxFailed, SandboxGone, OSError) as error:
        status = _failure("InternalError", str(error))
    with contextlib.suppress(Broken):
        streams["error"].write(json.dumps(status).encode())
    for stream in streams.values():
        stream.close()
    session.close()


def execute(target: Target, wanted: Wanted) -> Work:
    """Runs a command in the container; it is killed when the client goes."""

    def work(session: Session, streams: Mapping[str, Stream]) -> dict[str, Any]:
        with target.box.channel() as channel:
            session.at_end.append(lambda: _shut(channel))
            if wanted.terminal:
                ours, theirs = socket.socketpair()
                copiers = [threading.Thread(target=_terminal, args=(ours, streams), name="terminal", daemon=True)]
                copiers[0].start()
                fds = [theirs.detach()]
            else:
                fds, copiers = _pipes(streams)
            code = target.box.run(channel, target.container, wanted.argv, wanted.terminal, fds)
        for copier in copiers:
            copier.join(_DRAIN_SECONDS)
        return _ended(code)

    return work


def attach(target: Target, wanted: Wanted) -> Work:
    """Joins the container's main process, until it ends or the client goes."""

    def work(session: Session, streams: Mapping[str, Stream]) -> dict[str, Any]:
        outputs = {name: socket.socketpair() for name in ("stdout", "stderr")}
        stdin = target.box.attach_to(target.container, [theirs.detach() for _, theirs in outputs.values()])
        for ours, _ in outputs.values():
            session.at_end.append(partial(_shut, ours))
        if stdin is not None and "resize" in streams:
            threading.Thread(target=_resized, args=(streams["resize"], os.dup(stdin)), name="resize", daemon=True).start()
        if stdin is not None and "stdin" in streams:
            once = bool(target.spec.get("stdinOnce"))
            threading.Thread(target=_typed, args=(streams["stdin"], stdin, target, once), name="stdin", daemon=True).start()
        elif stdin is not None:
            os.close(stdin)
        copiers = [
            _copier(os.dup(ours.fileno()), streams.get("stdout" if wanted.terminal else name))
            for name, (ours, _) in outputs.items()
        ]
        for copier in copiers:
            copier.join()
        return _success()

    return work


def _typed(stream: Stream, stdin: int, target: Target, once: bool) -> None:
    _written(stream, stdin)
    if once:
        with contextlib.suppress(SandboxFailed, SandboxGone):
            target.box.close_input(target.container)


def _pipes(streams: Mapping[str, Stream]) -> tuple[list[int], list[threading.Thread]]:
    """(the other ends of standard input, output and errors, what copies the outputs), without a terminal."""
    stdin, write = os.pipe2(os.O_CLOEXEC)
    outputs = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
    if "stdin" in streams:
        threading.Thread(target=_written, args=(streams["stdin"], write), name="stdin", daemon=True).start()
    else:
        os.close(write)
    copiers = [_copier(begin, streams.get(name)) for name, (begin, _) in zip(("stdout", "stderr"), outputs, strict=True)]
    return [stdin, *(end for _, end in outputs)], copiers


def _shut(connection: socket.socket) -> None:
    """Wakes whoever waits for a connection, by ending it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _copier(begin: int, stream: Stream | None) -> threading.Thread:
    """Copies what is written to a descriptor into a stream, or nowhere, until its end."""

    def copy() -> None:
        with contextlib.suppress(OSError), os.fdopen(begin, "rb", buffering=0) as source:
            while data := source.read(_CHUNK):
                if stream is not None:
                    try:
                        stream.write(data)
                    except Broken:
                        return

    thread = threading.Thread(target=copy, name="output", daemon=True)
    thread.start()
    return thread


def _written(stream: Stream, descriptor: int) -> None:
    """Copies a stream into a descriptor, which it closes."""
    with contextlib.suppress(OSError), os.fdopen(descriptor, "wb", buffering=0) as out:
        while data := stream.read():
            view = memoryview(data)
            while view:
                view = view[out.write(view) :]


def _terminal(ours: socket.socket, streams: Mapping[str, Stream]) -> None:
    """Takes the terminal that the command's side opens, and copies both ways until nobody has it open any more."""
    with ours:
        try:
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        except OSError:
            return
    for master in fds:
        if "stdin" in streams:
            threading.Thread(target=_written, args=(streams["stdin"], os.dup(master)), name="stdin", daemon=True).start()
        threading.Thread(target=_resized, args=(streams["resize"], os.dup(master)), name="resize", daemon=True).start()
        _copier(master, streams.get("stdout")).join()


def _resized(stream: Stream, terminal: int) -> None:
    """Sets a terminal's size as the client says it: {"Width": columns, "Height": lines}, one after the other."""
    decoder, text = json.JSONDecoder(), ""
    with contextlib.suppress(OSError, ValueError, KeyError):
        while data := stream.read():
            text += data.decode()
            while text.strip():
                try:
                    size, end = decoder.raw_decode(text.lstrip())
                except ValueError:
                    break  # the rest is still to come
                text = text.lstrip()[end:]
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size["Height"], size["Width"], 0, 0))
    os.close(terminal)


def forward(session: Session, target: Target) -> None:
    """Connects each pair of streams with a port of the pod, until the connection ends."""
    errors: dict[str, Stream] = {}
    for stream in session.streams():
        request = stream.headers.get("requestid", "")
        if stream.headers.get("streamtype") == "error":
            errors[request] = stream
        elif (error := errors.pop(request, None)) is not None:
            threading.Thread(target=_forwarded, args=(target, stream, error), name="forward", daemon=True).start()


def _forwarded(target: Target, data: Stream, error: Stream) -> None:
    port = data.headers.get("port", "")
    try:
        connection = _connected(target, int(port))
    except (OSError, ValueError, SandboxFailed, SandboxGone) as problem:
        with contextlib.suppress(Broken):
            error.write(f"nothing listens on port {port} in the pod: {problem}".encode())
        connection = None
    error.close()
    if connection is not None:
        with connection:
            threading.Thread(target=_sent, args=(data, connection), name="forward", daemon=True).start()
            # As a kubelet does: it is over when the server has nothing more to say.
            _copier(os.dup(connection.fileno()), data).join()
            _shut(connection)
    data.close()


def _sent(stream: Stream, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := stream.read():
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _connected(target: Target, port: int) -> socket.socket:
    """To where a port-forward ends on a node as well: the pod's own loopback, else its address."""
    problem: OSError | None = None
    for address in ("127.0.0.1", target.address):
        connection = target.box.socket()
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect((address, port))
        except OSError as error:
            connection.close()
            problem = error
            continue
        connection.settimeout(None)
        return connection
    assert problem is not None
    raise problem


def _ended(code: int) -> dict[str, Any]:
    if code == 0:
        return _success()
    cause = {"reason": "ExitCode", "message": str(code)}
    return {**_failure("NonZeroExitCode", f"command terminated with exit code {code}"), "details": {"causes": [cause]}}


def _success() -> dict[str, Any]:
    return {"metadata": {}, "status": "Success"}


def _failure(reason: str, message: str) -> dict[str, Any]:
    return {"metadata": {}, "status": "Failure", "reason": reason, "message": message}
