"""HTTP in front of the registry: one thread per connection, small, and quiet about its health checks."""

from __future__ import annotations

import json
import socket
import socketserver
import sqlite3
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from embedded.images.model_registry import routes
from embedded.images.model_registry.kinds import Fields, load_object
from embedded.images.model_registry.problems import Problem
from embedded.images.model_registry.registry import Registry

_MAX_BODY_BYTES = 1 << 20
_MAX_DISCARDED_BYTES = 8 << 20
_NO_DATABASE = "Datastore service is down or unavailable. Please check that the database is reachable and try again later."


def log(line: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}", file=sys.stderr, flush=True)


class RegistryServer(ThreadingHTTPServer):
    """Listens at once; API paths answer 503 until `registry` is set, as the real server does without its database."""

    daemon_threads = True
    request_queue_size = 64
    registry: Registry | None = None

    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port), _Handler)
        self._busy = 0
        self._quiet = threading.Condition()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def server_bind(self) -> None:
        # The base class looks its own name up in DNS here, which a pod without DNS waits for.
        self.allow_reuse_address = True
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def begin(self) -> None:
        with self._quiet:
            self._busy += 1

    def end(self) -> None:
        with self._quiet:
            self._busy -= 1
            self._quiet.notify_all()

    def drain(self, seconds: float) -> bool:
        """Waits until no request is being answered. False: some still are after `seconds`."""
        with self._quiet:
            return self._quiet.wait_for(lambda: self._busy == 0, seconds)


class _Handler(BaseHTTPRequestHandler):
    server: RegistryServer
    protocol_version = "HTTP/1.1"
    server_version = "model-registry-stand-in"
    sys_version = ""
    timeout = 75  # seconds an idle connection is kept

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def _answer(self, method: str) -> None:
        self.server.begin()
        try:
            started = time.monotonic()
            url = urlsplit(self.path)
            status = self._dispatch(method, unquote(url.path), url.query)
            if not url.path.startswith("/readyz/"):
                log(f'"{method} {self.path}" {status.value} {(time.monotonic() - started) * 1000:.1f}ms')
        finally:
            self.server.end()

    def _dispatch(self, method: str, path: str, query: str) -> HTTPStatus:
        body = self._read_body()
        if body is None:
            return HTTPStatus.BAD_REQUEST
        if path.endswith(("/readyz/isDirty", "/readyz/health")):
            return self._health()
        registry = self.server.registry
        if registry is None:
            return self._text(HTTPStatus.SERVICE_UNAVAILABLE, _NO_DATABASE)
        route = routes.resolve(path)
        if route is None:
            return self._text(HTTPStatus.NOT_FOUND, "404 page not found")
        handlers, parent = route
        if method not in handlers:
            # Nothing in this API can be deleted; the router of the real server answers an empty 405.
            return self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"", "text/plain", {"Allow": ", ".join(sorted(handlers))})
        try:
            decoded: Fields = load_object(body) if method != "GET" else {}
            parameters = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
            status, answer = handlers[method](registry, routes.Request(parent, parameters, decoded))
        except Problem as problem:
            return self._json(problem.status, problem.body())
        except sqlite3.Error as error:
            log(f"database error: {error}")
            message = {"code": HTTPStatus.INTERNAL_SERVER_ERROR.phrase, "message": f"database error: {error}"}
            return self._json(HTTPStatus.INTERNAL_SERVER_ERROR, message)
        return self._json(status, answer)

    def _read_body(self) -> bytes | None:
        """The request's body; None when it was refused, and then the connection is not used again."""
        self.close_connection = True
        if self.headers.get("Transfer-Encoding"):
            self._refuse_body(HTTPStatus.LENGTH_REQUIRED, "send Content-Length: chunked bodies are not read here")
            return None
        length = self.headers.get("Content-Length") or "0"
        if not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            self._refuse_body(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have {_MAX_BODY_BYTES} bytes, not {length}")
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self._refuse_body(HTTPStatus.BAD_REQUEST, "the body ended early")
            return None
        self.close_connection = self.headers.get("Connection", "").lower() == "close" or self.request_version == "HTTP/1.0"
        return body

    def _refuse_body(self, status: HTTPStatus, line: str) -> None:
        self._text(status, line)
        # Closing with unread bytes resets the connection, and a client still sending would never see the answer.
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(5)
        left = _MAX_DISCARDED_BYTES
        try:
            while left > 0 and (chunk := self.rfile.read1(65536)):
                left -= len(chunk)
        except OSError:
            pass  # the client went away first

    def _health(self) -> HTTPStatus:
        if (registry := self.server.registry) is None:
            return self._json(
                HTTPStatus.SERVICE_UNAVAILABLE,
                {"status": "fail", "message": "model registry service not yet initialized"},
            )
        try:
            registry.ping()
        except sqlite3.Error as error:
            return self._json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "fail", "message": str(error)})
        return self._json(HTTPStatus.OK, {"status": "pass"})

    def _json(self, status: HTTPStatus, answer: Fields | dict[str, str]) -> HTTPStatus:
        return self._send(status, json.dumps(answer, separators=(",", ":")).encode() + b"\n", "application/json; charset=UTF-8")

    def _text(self, status: HTTPStatus, line: str) -> HTTPStatus:
        return self._send(status, line.encode() + b"\n", "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> HTTPStatus:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        # Headers and body leave in one write: two small ones would wait for each other's acknowledgement.
        self._headers_buffer: list[bytes]
        self._headers_buffer.append(b"\r\n" + (b"" if self.command == "HEAD" else body))
        self.flush_headers()
        return status

    def log_message(self, format: str, *args: object) -> None:
        """Requests are logged once, with their status and time, in `_answer`."""
