"""An HTTP server whose every answer a test decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Status, headers, body.
Answer = tuple[int, dict[str, str], bytes]


class Server(ThreadingHTTPServer):
    """answer(method, path) says what comes back; None cuts the connection."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, str], Answer | None], port: int = 0) -> None:
        self.answer = answer
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One segment per answer: two would wait for the client's delayed acknowledgement.
    wbufsize = 65536
    server: Server

    def handle_expect_100(self) -> bool:
        went_on = super().handle_expect_100()
        self.wfile.flush()
        return went_on

    def _serve(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.answer(self.command, self.path)
        if answer is None:
            self.close_connection = True
            return
        status, headers, body = answer
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(answer: Callable[[str, str], Answer | None]) -> Iterator[Server]:
    server = Server(answer)
    try:
        yield server
    finally:
        server.end()
