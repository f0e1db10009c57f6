"""One question, as a stream that may break in every way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mistral_on_l4.cluster.chat import ChatError, ask

PIECE = b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'
END = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def answers() -> Iterator[Callable[..., str]]:
    """answers(body, status) -> base URL of a service that responds with this body."""
    body, code = [b""], [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(code[0])
            self.end_headers()
            self.wfile.write(body[0])

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(text: bytes, status: int = 200) -> str:
        body[0], code[0] = text, status
        return f"http://127.0.0.1:{server.server_port}"

    yield answer
    server.shutdown()
    server.server_close()


def test_pieces_are_joined_until_the_stream_says_that_it_is_done(answers: Callable[..., str]) -> None:
    assert ask(answers(PIECE + PIECE + END + DONE + PIECE), "m", "q", None).text == "HelHel"


def test_an_error_in_the_middle_of_a_stream_is_said_and_is_no_answer(answers: Callable[..., str]) -> None:
    # As vLLM sends it, after the status is out.
    broken = PIECE + b'data: {"error": {"message": "EngineCore encountered an issue.", "code": 500}}\n\ndata: [DONE]\n\n'
    with pytest.raises(ChatError, match=r"EngineCore encountered an issue\."):
        ask(answers(broken), "m", "q", None)


def test_a_stream_of_something_else_is_no_traceback(answers: Callable[..., str]) -> None:
    with pytest.raises(ChatError, match="sent what is no chat: "):
        ask(answers(b"data: surprise\n\n"), "m", "q", None)


def test_a_stream_without_a_piece_is_called_empty(answers: Callable[..., str]) -> None:
    with pytest.raises(ChatError, match="empty answer"):
        ask(answers(b"data: [DONE]\n\n"), "m", "q", None)


def test_tokens_are_the_services_count_and_not_the_number_of_pieces(answers: Callable[..., str]) -> None:
    answer = ask(answers(PIECE + PIECE + END + USAGE + DONE), "m", "q", None)
    assert (answer.tokens, answer.prompt_tokens, answer.finish) == (4, 7, "stop")


def test_a_stream_that_breaks_off_keeps_what_came(answers: Callable[..., str]) -> None:
    with pytest.raises(ChatError, match="stopped in the middle of its answer") as caught:
        ask(answers(PIECE + PIECE), "m", "q", None)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "HelHel"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b'{"error": "Unauthorized"}', r"answered 401: Unauthorized; the stack's key is in Secret vllm-api-key"),
        (404, b'{"error": {"message": "The model `m` does not exist."}}', "answered 404: The model `m` does not exist"),
        (429, b'{"message": "Too many requests"}', "answered 429: Too many requests; it has too many requests waiting"),
        (400, b'{"error": {"message": "maximum context length is 8192 tokens"}}', "answered 400: maximum context length"),
        (503, b"<html>no healthy upstream</html>", "answered 503: "),
    ],
)
def test_a_refusal_is_one_line_with_the_services_reason(answers: Callable[..., str], status: int, body: bytes, said: str) -> None:
    with pytest.raises(ChatError, match=said) as caught:
        ask(answers(body, status), "m", "q", "secret-key")
    assert "\n" not in str(caught.value)
    assert "secret-key" not in str(caught.value)


def test_a_service_that_nobody_listens_for_is_named_with_its_address() -> None:
    with pytest.raises(ChatError, match=r"^m at http://127.0.0.1:9 does not answer: "):
        ask("http://127.0.0.1:9", "m", "q", None)


def test_a_question_leaves_by_no_proxy(answers: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert ask(answers(PIECE + END + DONE), "m", "q", None).text == "Hel"
