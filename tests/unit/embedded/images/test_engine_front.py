"""The front of the engine's stand-in: whom it lets through, and that a request is read in one way only."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from embedded.images.engine.front import BadRequest, Front, Keys, parse_head


class Behind:
    """In place of the simulator: keeps what it was sent, answers with `answer`, closes."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: sim\r\n\r\nok"
        self.received: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
                while len(body) < sum(lengths):
                    body += connection.recv(65536)
                self.received.append(head + b"\r\n\r\n" + body)
                connection.sendall(self.answer)

    def close(self) -> None:
        self._listener.close()


JSON = "Content-Type: application/json"


@pytest.fixture
def behind() -> Iterator[Behind]:
    server = Behind()
    yield server
    server.close()


@pytest.fixture
def ask(behind: Behind) -> Iterator[Callable[[bytes], bytes]]:
    """Sends bytes to a front with key "k1", returns all it answers until it closes or 0.5 s of silence."""
    front = Front("127.0.0.1", 0, behind.port, Keys(["k1", "k2"]), "0.11.0", "", quiet=True)
    threading.Thread(target=front.serve, daemon=True).start()

    def send(data: bytes) -> bytes:
        answer = b""
        with socket.create_connection(("127.0.0.1", front.port), timeout=5) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(65536):
                answer += received
        return answer

    yield send
    front.drain(1)


def request(line: str, *headers: str, body: str = "") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([line, "Host: x", *headers, *length, "", body]).encode()


@pytest.mark.parametrize(
    ("path", "header", "admitted"),
    [
        ("/v1/models", "Bearer k1", True),
        ("/v1/models", "bearer k2", True),
        ("/v1/models", "Bearer  k1", False),
        ("/v1/models", "Bearer k1 ", True),
        ("/v1/models", "k1", False),
        ("/v1/models", "Basic k1", False),
        ("/v1/models", "", False),
        ("/v10", "", False),
        ("/health", "", True),
        ("/metrics", "", True),
        ("/invocations", "", True),
        ("/%76%31/models", "", False),
    ],
)
def test_the_key_is_asked_for_where_vllm_asks_for_it(path: str, header: str, admitted: bool) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: x" + (f"\r\nAuthorization: {header}" if header else "")
    assert Keys(["k1", "k2"]).admit(parse_head(head.encode())) is admitted


def test_options_and_a_server_without_keys_ask_for_nothing() -> None:
    assert Keys(["k"]).admit(parse_head(b"OPTIONS /v1/models HTTP/1.1\r\nHost: x"))
    assert Keys([]).admit(parse_head(b"GET /v1/models HTTP/1.1\r\nHost: x"))
    assert not Keys(["", ""]).asked_for


def test_unauthorized_is_vllms_answer(ask: Callable[[bytes], bytes], behind: Behind) -> None:
    answer = ask(request("POST /v1/chat/completions HTTP/1.1", body="{}"))
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert answer.endswith(b'\r\n\r\n{"error":"Unauthorized"}')
    assert behind.received == []


def test_the_key_and_unknown_headers_stay_in_front(ask: Callable[[bytes], bytes], behind: Behind) -> None:
    answer = ask(
        request("POST /v1/completions?x=1 HTTP/1.1", "Authorization: Bearer k1", JSON, "Cookie: c", "X-Other: o", body='{"a":1}')
    )
    assert answer.endswith(b"\r\n\r\nok")
    assert b"server: sim" not in answer.lower()
    head, _, body = behind.received[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /v1/completions?x=1 HTTP/1.1"
    assert body == b'{"a":1}'
    for gone in (b"k1", b"Cookie", b"X-Other"):
        assert gone not in head


def test_a_chunked_body_arrives_whole(ask: Callable[[bytes], bytes], behind: Behind) -> None:
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k1\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ask(head.encode() + b'4;x=y\r\n{"a"\r\n3\r\n:1}\r\n0\r\nTrailer: t\r\n\r\n')
    assert behind.received[0].endswith(b'Content-Length: 7\r\n\r\n{"a":1}')


def test_requests_one_after_the_other_use_one_connection(ask: Callable[[bytes], bytes]) -> None:
    answer = ask(request("GET /version HTTP/1.1") + request("GET /ping HTTP/1.1") + request("GET /health HTTP/1.1"))
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert b'{"version":"0.11.0"}' in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /tokenize HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
        b"POST /tokenize HTTP/1.1\r\nContent-Length : 1\r\n\r\na",
        b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer no\r\nAuthorization: Bearer k1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX: a\n\tb\r\n\r\n",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(ask: Callable[[bytes], bytes], behind: Behind, sent: bytes) -> None:
    assert ask(sent).startswith(b"HTTP/1.1 400 ")
    assert behind.received == []


def test_too_much_is_refused(ask: Callable[[bytes], bytes]) -> None:
    assert ask(b"GET /health HTTP/1.1\r\nX: " + b"a" * 100_000).startswith(b"HTTP/1.1 431 ")
    assert ask(b"POST /tokenize HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    assert ask(b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n").startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", ["/admin/config", "//health", "/health/", "/health/ready", "/v1/../metrics", "/x%2f..%2fhealth"])
def test_only_vllms_own_paths_are_there(ask: Callable[[bytes], bytes], behind: Behind, path: str) -> None:
    answer = ask(request(f"GET {path} HTTP/1.1", "Authorization: Bearer k1"))
    assert answer.startswith(b"HTTP/1.1 404 Not Found")
    assert answer.endswith(b'{"detail":"Not Found"}')
    assert behind.received == []


def test_an_absolute_address_is_read_as_its_path(ask: Callable[[bytes], bytes], behind: Behind) -> None:
    assert b" 401 " in ask(request("GET http://elsewhere/v1/models HTTP/1.1"))
    assert b" 200 " in ask(request("GET http://elsewhere/health HTTP/1.1"))
    assert behind.received[0].startswith(b"GET /health HTTP/1.1\r\n")


def test_a_stream_that_is_cut_off_closes_the_connection(ask: Callable[[bytes], bytes], behind: Behind) -> None:
    behind.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    answer = ask(request("GET /health HTTP/1.1") + request("GET /version HTTP/1.1"))
    assert answer.endswith(b"5\r\nhello\r\n")


def test_a_dead_simulator_is_a_server_error(ask: Callable[[bytes], bytes], behind: Behind) -> None:
    behind.answer = b""
    answer = ask(request("GET /health HTTP/1.1"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == 500


def test_a_request_head_keeps_its_path_decoded() -> None:
    found = parse_head(b"GET /a%20b?c=%20 HTTP/1.1\r\nHost: x\r\nX-Y:  z ")
    assert (found.path, found.target, found.headers["x-y"]) == ("/a b", "/a%20b?c=%20", "z")
    with pytest.raises(BadRequest):
        parse_head(b"GET /\r\n x HTTP/1.1")
