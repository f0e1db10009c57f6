"""One question, as a stream that may break in every way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mistral_on_l4.cluster.chat import ChatError, ask

PIECE = b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'


@pytest.fixture
def answers() -> Iterator[Callable[[bytes], str]]:
    """answers(body) -> base URL of a service that streams this body."""
    body = [b""]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body[0])

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(text: bytes) -> str:
        body[0] = text
        return f"http://127.0.0.1:{server.server_port}"

    yield answer
    server.shutdown()
    server.server_close()


def test_pieces_are_joined_until_the_stream_says_that_it_is_done(answers: Callable[[bytes], str]) -> None:
    assert ask(answers(PIECE + PIECE + b"data: [DONE]\n\n" + PIECE), "m", "q", None).text == "HelHel"


def test_an_error_in_the_middle_of_a_stream_is_said_and_is_no_answer(answers: Callable[[bytes], str]) -> None:
    # As vLLM sends it, after the status is out.
    broken = PIECE + b'data: {"error": {"message": "EngineCore encountered an issue.", "code": 500}}\n\ndata: [DONE]\n\n'
    with pytest.raises(ChatError, match=r"EngineCore encountered an issue\."):
        ask(answers(broken), "m", "q", None)


def test_a_stream_of_something_else_is_no_traceback(answers: Callable[[bytes], str]) -> None:
    with pytest.raises(ChatError, match="sent what is no chat: 'surprise'"):
        ask(answers(b"data: surprise\n\n"), "m", "q", None)


def test_a_stream_without_a_piece_is_called_empty(answers: Callable[[bytes], str]) -> None:
    with pytest.raises(ChatError, match="empty answer"):
        ask(answers(b"data: [DONE]\n\n"), "m", "q", None)
