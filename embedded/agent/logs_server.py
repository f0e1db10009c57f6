"""The kubelet's HTTPS API as far as kubectl needs it (logs, exec, attach, port-forward), and the agent's own health check."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from embedded.agent import container_reader, streaming
from embedded.agent.container_reader import Line
from embedded.agent.spdy import Session
from embedded.agent.streaming import NoSuchContainer, Target, Wanted

_POLL_SECONDS = 0.1


class NoSuchLog(Exception):
    """The pod, container or attempt has no log. One sentence."""


@dataclass(frozen=True)
class Source:
    """A container's log file. following: whether it may still grow (asked again and again)."""

    path: Path
    following: Callable[[], bool]


@dataclass(frozen=True)
class Options:
    """What a reader of a log wants; None where it does not say."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since_seconds: float | None = None  # epoch

    @classmethod
    def parse(cls, query: dict[str, list[str]]) -> Options:
        """From a query string. Raises ValueError."""

        def number(name: str) -> int | None:
            return int(query[name][0]) if name in query else None

        def flag(name: str) -> bool:
            return query.get(name, ["false"])[0] in ("true", "1")

        since = number("sinceSeconds")
        moment = time.time() - since if since is not None else None
        if "sinceTime" in query and (line := container_reader.parse(query["sinceTime"][0].encode() + b" stdout F ")) is not None:
            moment = line.seconds
        return cls(flag("follow"), flag("previous"), flag("timestamps"), number("tailLines"), number("limitBytes"), moment)


def read(source: Source, options: Options) -> Iterator[bytes]:
    """The log as the reader wants it, piece by piece; with `follow`, until the container has ended."""
    left = options.limit_bytes

    def shown(line: Line) -> bytes:
        end = b"\n" if line.whole else b""
        return (line.stamp.encode() + b" " if options.timestamps else b"") + line.text + end

    def cut(data: bytes) -> bytes:
        nonlocal left
        if left is not None:
            data = data[:left]
            left -= len(data)
        return data

    follower = _Follower(source.path) if options.follow else None
    wanted: Iterator[Line] = (
        line
        for line in (container_reader.lines(source.path) if follower is None else follower.so_far())
        if options.since_seconds is None or line.seconds >= options.since_seconds
    )
    if options.tail_lines is not None:
        wanted = iter(deque(wanted, maxlen=options.tail_lines))
    for line in wanted:
        yield cut(shown(line))
        if left == 0:
            return
    while follower is not None:
        alive = source.following()
        for line in follower.more():
            yield cut(shown(line))
            if left == 0:
                return
        if not alive:
            return
        yield b""  # lets the server see whether its client is still there
        time.sleep(_POLL_SECONDS)


class _Follower:
    """Every line once, those written later too, across one rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""

    def so_far(self) -> Iterator[Line]:
        """What there is, the rotated part first. `more` goes on where it ends."""
        older = container_reader.rotated(self._path)
        if not (older.exists() and os.path.samestat(older.stat(), os.fstat(self._file.fileno()))):
            yield from container_reader.lines_of(older)
        yield from self.more()

    def more(self) -> Iterator[Line]:
        data = self._rest + self._file.read()
        try:
            if self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
                self._file.close()
                self._file = self._path.open("rb")
                data += self._file.read()
        except FileNotFoundError:
            pass
        *whole, self._rest = data.split(b"\n")
        for raw in whole:
            if (line := container_reader.parse(raw)) is not None:
                yield line


Find = Callable[[str, str, str, bool], Source]
# (namespace, pod, container) -> what a command may run in, or a port be reached. Raises NoSuchContainer.
Enter = Callable[[str, str, str], Target]
# Path, protocol, parts of the path.
_UPGRADES = {
    "exec": (streaming.EXEC_PROTOCOL, 4),
    "attach": (streaming.EXEC_PROTOCOL, 4),
    "portForward": (streaming.FORWARD_PROTOCOL, 3),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mistral-on-l4-agent"
    find: Find
    enter: Enter
    healthy: Callable[[], str]

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        pieces = [piece for piece in parts.path.split("/") if piece]
        if parts.path in ("/healthz", "/livez", "/readyz"):
            problem = self.healthy()
            self._answer(503 if problem else 200, problem or "ok")
        elif not isinstance(self.connection, ssl.SSLSocket):
            # Whoever else may connect here has shown no certificate.
            self._answer(403, "the local node agent serves pods to the API server alone")
        elif len(pieces) == 4 and pieces[0] == "containerLogs":
            self._logs(pieces[1], pieces[2], pieces[3], parse_qs(parts.query))
        elif pieces and (known := _UPGRADES.get(pieces[0])) is not None and len(pieces) == known[1]:
            self._upgrade(pieces, known[0], parse_qs(parts.query))
        else:
            kinds = ", ".join(f"/{kind}" for kind in _UPGRADES)
            self._answer(404, f"the local node agent serves /containerLogs, {kinds} and /healthz, not {parts.path}")

    do_POST = do_GET

    def _upgrade(self, pieces: list[str], protocol: str, query: dict[str, list[str]]) -> None:
        """exec, attach and port-forward: the connection becomes a SPDY session, and ends with it."""
        offered = {word.strip() for text in self.headers.get_all("X-Stream-Protocol-Version", []) for word in text.split(",")}
        wanted = Wanted.parse(query)
        try:
            if self.headers.get("Upgrade", "").upper() != "SPDY/3.1":
                raise ValueError("an upgrade to SPDY/3.1 is needed")
            if protocol not in offered:
                raise ValueError(f"{protocol} is spoken here, not {', '.join(sorted(offered)) or 'nothing'}")
            if pieces[0] == "exec" and not wanted.argv:
                raise ValueError("no command is given")
            target = self.enter(pieces[1], pieces[2], pieces[3] if len(pieces) > 3 else "")
        except (ValueError, NoSuchContainer) as problem:
            self._answer(400, str(problem))
            return
        self.send_response(101)
        for name, value in (("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", protocol)):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        session = Session(self.connection)
        if pieces[0] == "portForward":
            streaming.forward(session, target)
        else:
            work = streaming.execute if pieces[0] == "exec" else streaming.attach
            streaming.converse(session, wanted, work(target, wanted))

    def _logs(self, namespace: str, pod: str, container: str, query: dict[str, list[str]]) -> None:
        try:
            options = Options.parse(query)
            source = self.find(namespace, pod, container, options.previous)
            pieces = read(source, options)
        except NoSuchLog as problem:
            # Of a 404 the API server keeps the number and drops the sentence.
            self._answer(400, str(problem))
            return
        except (ValueError, OSError) as problem:
            self._answer(400, str(problem))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces:
                if piece:
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    self.wfile.flush()
                elif self._client_left():
                    return
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def _client_left(self) -> bool:
        # A follower never sends; a readable connection is one that was closed.
        import select

        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable:
            self.close_connection = True
        return bool(readable)

    def _answer(self, status: int, text: str) -> None:
        data = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Quiet: the API server asks often."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake belongs to the connection's own thread: a silent client must not hold the others up.
        if self.context is not None:
            request.settimeout(10.0)
            request = self.context.wrap_socket(request, server_side=True)
            request.settimeout(None)
        super().finish_request(request, client_address)

    def handle_error(self, *_: Any) -> None:
        """A client that breaks off or has no certificate is its own problem."""


def serve(port: int, find: Find, enter: Enter, healthy: Callable[[], str], pki: Path | None) -> ThreadingHTTPServer:
    """Serves on 127.0.0.1, in the background. With `pki` by TLS, for clients with a certificate of its CA only; else health alone.

    find(namespace, pod, container, previous) raises NoSuchLog; healthy() is "" or the problem. Raises OSError if the port is taken.
    """
    handler = type(
        "Handler", (_Handler,), {"find": staticmethod(find), "enter": staticmethod(enter), "healthy": staticmethod(healthy)}
    )
    server = _Server(("127.0.0.1", port), handler)
    if pki is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "kubelet.crt", pki / "kubelet.key")
        context.load_verify_locations(pki / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        server.context = context
    threading.Thread(target=server.serve_forever, name=f"http-{port}", daemon=True).start()
    return server
