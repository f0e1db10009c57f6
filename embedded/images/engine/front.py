"""The HTTP server on vLLM's port: checks the API key as vLLM does, passes on what vLLM and the simulator both have.

A thread a connection and blocking sockets: it holds few megabytes, and adds less than a millisecond. Answers are passed on
as they come, so that streamed tokens keep their times. Requests are written anew, never copied: no header that could end in
another reading, and no key, reaches the simulator.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from embedded.images.engine import bodies

_LONGEST_HEAD = 64 * 1024
_LONGEST_BODY = 16 * 2**20
_IDLE_SECONDS = 75.0
_ANSWER_SECONDS = 3600.0
_CHUNK = 64 * 1024
# Paths of vLLM that the simulator answers as vLLM would, and their methods.
PASSED = {
    "/health": "GET",
    "/metrics": "GET",
    "/tokenize": "POST",
    "/v1/models": "GET",
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    "/v1/responses": "POST",
}
# Paths that vLLM 0.11 has for a text-generating model, and the simulator has not. Newer ones of vLLM's are not found here.
NOT_SIMULATED = {
    "/detokenize": "POST",
    "/invocations": "POST",
    "/load": "GET",
    "/openapi.json": "GET",
    "/docs": "GET",
    "/v1/embeddings": "POST",
    "/pooling": "POST",
    "/classify": "POST",
    "/score": "POST",
    "/v1/score": "POST",
    "/rerank": "POST",
    "/v1/rerank": "POST",
    "/v2/rerank": "POST",
    "/v1/audio/transcriptions": "POST",
    "/v1/audio/translations": "POST",
}
_QUIET = ("/health", "/metrics", "/ping")
_KEPT_HEADERS = ("content-type", "accept", "x-request-id", "user-agent")


class BadRequest(Exception):
    """What came is no HTTP request that can be read in one way only. The connection is closed after the answer."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Request:
    """path: decoded, without the query; target: as it is passed on; headers: names in lower case."""

    method: str
    path: str
    target: str
    version: str
    headers: Mapping[str, str]

    @property
    def keeps_connection(self) -> bool:
        return self.version == "HTTP/1.1" and self.headers.get("connection", "").lower() != "close"


def parse_head(head: bytes) -> Request:
    """A request's first line and headers, up to and without the empty line. Raises BadRequest."""
    try:
        lines = head.decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
    except ValueError:
        raise BadRequest("400 Bad Request", "Invalid HTTP request received.") from None
    if version not in ("HTTP/1.1", "HTTP/1.0") or not method.isalpha():
        raise BadRequest("400 Bad Request", "Invalid HTTP request received.")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            raise BadRequest("400 Bad Request", "Invalid HTTP request received.")
        if name in headers and name in ("content-length", "transfer-encoding", "host", "authorization"):
            raise BadRequest("400 Bad Request", f"Two headers {name}.")
        headers[name] = value.strip()
    if "content-length" in headers and "transfer-encoding" in headers:
        raise BadRequest("400 Bad Request", "Both Content-Length and Transfer-Encoding.")
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        raise BadRequest("501 Not Implemented", "Only chunked transfer encoding is understood.")
    if not target.startswith("/"):
        url = urlsplit(target)  # the absolute form, which proxies send
        if url.scheme not in ("http", "https") or not url.netloc:
            raise BadRequest("400 Bad Request", "Invalid HTTP request received.")
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return Request(method, unquote(target.partition("?")[0]), target, version, headers)


class Keys:
    """The keys that open the guarded paths (AuthenticationMiddleware in vLLM); without any they are open."""

    def __init__(self, keys: Sequence[str], guarded: tuple[str, ...] = ("/v1",)) -> None:
        self._guarded = guarded
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys if key]

    @property
    def asked_for(self) -> bool:
        return bool(self._digests)

    def admit(self, request: Request, root_path: str = "") -> bool:
        if not self._digests or request.method == "OPTIONS" or not request.path.removeprefix(root_path).startswith(self._guarded):
            return True
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.encode("latin-1")).digest()
        found = False
        for known in self._digests:
            found |= secrets.compare_digest(digest, known)
        return scheme.lower() == "bearer" and found


class _Reader:
    """Bytes of a connection, with what was read too far kept for the next read."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._left = bytearray()

    def until(self, mark: bytes, longest: int) -> bytes | None:
        """Up to and with `mark`; None if the other side closed before the first byte."""
        start = 0
        while (found := self._left.find(mark, start)) < 0:
            if len(self._left) > longest:
                raise BadRequest("431 Request Header Fields Too Large", "Too long.")
            start = max(0, len(self._left) - len(mark))
            if not self._more():
                if not self._left:
                    return None
                raise ConnectionError("closed in the middle of a message")
        return self._take(found + len(mark))

    def exactly(self, count: int) -> bytes:
        while len(self._left) < count:
            if not self._more():
                raise ConnectionError("closed in the middle of a message")
        return self._take(count)

    def some(self) -> bytes:
        """Whatever is there, or comes next; empty at the end."""
        return self._take(len(self._left)) if self._left else self._connection.recv(_CHUNK)

    def _more(self) -> bool:
        data = self._connection.recv(_CHUNK)
        self._left += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._left[:count])
        del self._left[:count]
        return taken


def read_body(reader: _Reader, headers: Mapping[str, str]) -> bytes:
    """The whole body. Raises BadRequest if it is malformed or longer than 16 MiB."""
    if "transfer-encoding" in headers:
        pieces: list[bytes] = []
        while size := _hexadecimal(reader.until(b"\r\n", 1024) or b""):
            pieces.append(reader.exactly(size))
            if sum(map(len, pieces)) > _LONGEST_BODY:
                raise BadRequest("413 Payload Too Large", "Request body too large.")
            if reader.exactly(2) != b"\r\n":
                raise BadRequest("400 Bad Request", "Invalid HTTP request received.")
        while (reader.until(b"\r\n", _LONGEST_HEAD) or b"\r\n") != b"\r\n":
            pass  # trailers
        return b"".join(pieces)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequest("400 Bad Request", "Invalid HTTP request received.")
    if int(length) > _LONGEST_BODY:
        raise BadRequest("413 Payload Too Large", "Request body too large.")
    return reader.exactly(int(length))


def _hexadecimal(line: bytes) -> int:
    digits = line.split(b";")[0].strip().decode("latin-1")
    if not digits or any(digit not in "0123456789abcdefABCDEF" for digit in digits) or len(digits) > 8:
        raise BadRequest("400 Bad Request", "Invalid HTTP request received.")
    if (size := int(digits, 16)) > _LONGEST_BODY:
        raise BadRequest("413 Payload Too Large", "Request body too large.")
    return size


class Front:
    """Listens, checks, passes on. started by serve(), ended by drain()."""

    def __init__(self, host: str, port: int, simulator_port: int, keys: Keys, version: str, root_path: str, quiet: bool) -> None:
        self._simulator = ("127.0.0.1", simulator_port)
        self._keys = keys
        self._version = version
        self._root_path = root_path.rstrip("/")
        self._quiet = quiet
        self._lock = threading.Condition()
        self._running = 0
        self._draining = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=2048)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accepts until drain() closes the listener."""
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(connection, address), daemon=True).start()

    def drain(self, seconds: float) -> bool:
        """Takes no new request and waits for the running ones. False if some were still running at the end."""
        self._draining = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        deadline = time.monotonic() + seconds
        with self._lock:
            return self._lock.wait_for(lambda: self._running == 0, max(0.0, deadline - time.monotonic()))

    def _connection(self, connection: socket.socket, address: tuple[str, int]) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = _Reader(connection)
            again = True
            while again and not self._draining:
                connection.settimeout(_IDLE_SECONDS)
                try:
                    head = reader.until(b"\r\n\r\n", _LONGEST_HEAD)
                    if head is None:
                        return
                    with self._one_more():
                        again = self._request(connection, reader, parse_head(head[:-4]), address)
                except BadRequest as bad:
                    connection.sendall(_answer(bad.status, str(bad).encode(), "text/plain; charset=utf-8", close=True))
                    return

    @contextlib.contextmanager
    def _one_more(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._lock.notify_all()

    def _request(self, connection: socket.socket, reader: _Reader, request: Request, address: tuple[str, int]) -> bool:
        """Answers one request; False if the connection is to be closed."""
        connection.settimeout(_ANSWER_SECONDS)
        if request.headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = read_body(reader, request.headers)
        own = self._own_answer(request)
        if own is None and request.method == "POST":
            own = bodies.refusal(request.path.removeprefix(self._root_path), request.headers, body)
        if own is not None:
            status, content = own
            close = not request.keeps_connection
            sent = _answer(status, content, "application/json" if content else "", close, head_only=request.method == "HEAD")
            connection.sendall(sent)
            self._log(request, status, address)
            return not close
        return self._pass_on(connection, request, body, address)

    def _own_answer(self, request: Request) -> tuple[str, bytes] | None:
        """(status, JSON) of what vLLM's own front end answers; None for what the simulator answers."""
        if not self._keys.admit(request, self._root_path):
            return "401 Unauthorized", b'{"error":"Unauthorized"}'
        path = request.path.removeprefix(self._root_path)
        # The simulator's router would tidy such a path up, and reach what was not checked; vLLM knows none of them.
        known = {**PASSED, **NOT_SIMULATED, "/version": "GET", "/ping": "GET POST"}.get(path)
        if known is None:
            return "404 Not Found", b'{"detail":"Not Found"}'
        if request.method not in known.split():
            return "405 Method Not Allowed", b'{"detail":"Method Not Allowed"}'
        if path in NOT_SIMULATED:
            message = f"this simulation of vLLM does not simulate {path}"
            return "501 Not Implemented", json.dumps({"error": {"message": message, "type": "NotImplementedError"}}).encode()
        if path == "/version":
            return "200 OK", json.dumps({"version": self._version}, separators=(",", ":")).encode()
        if path == "/ping":
            return "200 OK", b""
        return None

    def _pass_on(self, connection: socket.socket, request: Request, body: bytes, address: tuple[str, int]) -> bool:
        target = request.target.removeprefix(self._root_path)
        lines = [f"{request.method} {target} {request.version}", "Host: simulator", "Connection: close"]
        lines += [f"{name}: {request.headers[name]}" for name in _KEPT_HEADERS if name in request.headers]
        if body or request.method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        with contextlib.ExitStack() as stack:
            try:
                upstream = stack.enter_context(socket.create_connection(self._simulator, timeout=_ANSWER_SECONDS))
                upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                upstream.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
                reader = _Reader(upstream)
                head = reader.until(b"\r\n\r\n", _LONGEST_HEAD)
                if head is None:
                    raise ConnectionError("no answer")
                status, passed, framed = _answer_head(head)
            except (OSError, BadRequest, ValueError) as error:
                message = {"message": f"the simulator does not answer: {error}", "type": "InternalServerError", "code": 500}
                content = json.dumps({"error": message}).encode()
                connection.sendall(_answer("500 Internal Server Error", content, "application/json", close=True))
                self._log(request, "500 Internal Server Error", address)
                return False
            # A body that ends where the connection ends leaves no way to use that connection again.
            keeps = request.keeps_connection and framed and not self._draining
            connection.sendall(
                f"{status}\r\n{passed}{'' if keeps else 'connection: close' + chr(13) + chr(10)}\r\n".encode("latin-1")
            )
            ending = b""
            while data := reader.some():
                connection.sendall(data)
                ending = (ending + data[-5:])[-5:]
            self._log(request, status.partition(" ")[2], address)
            # Cut off in the middle: closing is the only way left to say so.
            return keeps and ("transfer-encoding: chunked" not in passed or ending == b"0\r\n\r\n")

    def _log(self, request: Request, status: str, address: tuple[str, int]) -> None:
        if not self._quiet and request.path not in _QUIET:
            line = f'INFO:     {address[0]}:{address[1]} - "{request.method} {request.path} {request.version}" {status}'
            print(line.encode("unicode_escape").decode(), file=sys.stderr, flush=True)


def _answer(status: str, content: bytes, kind: str, close: bool, head_only: bool = False) -> bytes:
    lines = [f"HTTP/1.1 {status}", "server: uvicorn", f"content-length: {len(content)}"]
    if kind:
        lines.append(f"content-type: {kind}")
    if close:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head_only else content)


def _answer_head(head: bytes) -> tuple[str, str, bool]:
    """(status line, headers to pass on, whether they say where the body ends)."""
    status, *lines = head[:-4].decode("latin-1").split("\r\n")
    kept, framed = "", False
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        if name in ("connection", "server", "keep-alive"):
            continue
        framed |= name == "content-length" or (name == "transfer-encoding" and value.lower() == "chunked")
        kept += f"{name}: {value}\r\n"
    return status, f"server: uvicorn\r\n{kept}", framed
