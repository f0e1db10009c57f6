"""An outage of the hub or the store is waited out; the clock is a test's own, the servers and clients are real."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from mistral_on_l4.jobs.weights_files import HubFile
from mistral_on_l4.jobs.weights_hub import Hub, Snapshot
from mistral_on_l4.jobs.weights_limits import Failure, Limits, Stop, Stopped
from mistral_on_l4.jobs.weights_patience import Again, Patience
from mistral_on_l4.jobs.weights_progress import Progress
from mistral_on_l4.jobs.weights_store import Part, Store
from tests.support.http_server import Answer, Server, serving

CONTENT = b"weights" * 1000
FILE = HubFile("model.safetensors", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), None)
SNAPSHOT = Snapshot("o/r", "c" * 40, (FILE,))
HALF_AN_HOUR = 1800.0
# Few tries in half an hour of pauses.
LIMITS = Limits(connections=1, uploads=1, pause_most_seconds=200.0)


@dataclass
class Time:
    """A clock that only pauses move. waits: each pause, seconds."""

    now: float = 0.0
    waits: list[float] = field(default_factory=list)
    during: Callable[[], None] = lambda: None

    def sleep(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        self.during()
        return event.is_set()

    def stop(self) -> Stop:
        return Stop(lambda: self.now, self.sleep)


def whole_file(_method: str, path: str) -> Answer | None:
    """A hub whose content lies behind a redirect, as a CDN's does."""
    if "/resolve/" in path:
        return 302, {"Location": "http://localhost:" + path.partition("port=")[2] + "/cdn/file"}, b""
    return 206, {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}, CONTENT


def read(hub: Hub) -> bytes:
    data = bytearray(len(CONTENT))
    hub.read(SNAPSHOT, FILE, 0, memoryview(data))
    return bytes(data)


@pytest.mark.parametrize(
    ("path", "outage"),
    [
        ("/cdn/", (503, {}, b"")),
        ("/cdn/", (403, {}, b"<Error>Access denied</Error>")),
        ("/cdn/", None),
        ("/resolve/", (502, {}, b"")),
        ("/resolve/", (403, {}, b"<html>Request blocked.</html>")),
    ],
)
def test_half_an_hour_without_the_hub_or_its_cdn_is_waited_out_with_growing_pauses(path: str, outage: Answer | None) -> None:
    time = Time()

    def answer(method: str, asked: str) -> Answer | None:
        if path in asked and time.now < HALF_AN_HOUR:
            return outage
        return (302, {"Location": cdn.url + "/cdn/file"}, b"") if "/resolve/" in asked else whole_file(method, asked)

    with serving(answer) as hub, serving(answer) as cdn:
        assert read(Hub(hub.url, None, LIMITS, time.stop())) == CONTENT
    assert HALF_AN_HOUR <= time.now < HALF_AN_HOUR + LIMITS.pause_most_seconds
    assert time.waits[0] <= 0.5
    assert time.waits[3] > 2
    assert max(time.waits) <= LIMITS.pause_most_seconds


def test_half_an_hour_in_which_the_hub_refuses_connections_is_waited_out() -> None:
    time, ended = Time(), Server(whole_file)
    port = ended.server_address[1]
    ended.end()
    back: list[Server] = []

    def comes_back() -> None:
        if time.now >= HALF_AN_HOUR and not back:
            back.append(Server(lambda _method, _path: whole_file("GET", "/cdn/file"), port))

    time.during = comes_back
    assert read(Hub(f"http://127.0.0.1:{port}", None, LIMITS, time.stop())) == CONTENT
    back[0].end()


def test_a_hub_that_stays_away_is_given_up_within_the_jobs_deadline_and_the_sentence_names_it() -> None:
    time = Time()
    with (
        serving(lambda _method, _path: (503, {}, b"")) as hub,
        pytest.raises(
            Failure, match=rf"^model\.safetensors: the hub at {hub.url} answers 503, for 1 h 00 min; check hub\.endpoint$"
        ),
    ):
        read(Hub(hub.url, None, LIMITS, time.stop()))
    assert time.now == LIMITS.outage_seconds


def test_a_hub_whose_name_never_resolved_is_given_up_in_minutes() -> None:
    time = Time()
    with pytest.raises(Failure, match=r"does not answer \(its name cannot be resolved\), for 2 min 00 s; check hub\.endpoint"):
        read(Hub("http://hub.invalid", None, LIMITS, time.stop()))


# -- the store ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


PARTS = b"<ListPartsResult><Bucket>b</Bucket></ListPartsResult>"


@pytest.mark.parametrize(
    "outage",
    [(503, {}, error("SlowDown")), (500, {}, error("InternalError")), (502, {"Content-Type": "text/html"}, b"<html>"), None],
)
def test_half_an_hour_without_the_store_is_waited_out(outage: Answer | None) -> None:
    time = Time()

    def answer(method: str, _path: str) -> Answer | None:
        if time.now < HALF_AN_HOUR:
            return outage
        return (200, {}, PARTS) if method == "GET" else (200, {"ETag": '"e"'}, b"")

    with serving(answer) as server:
        part = Store("b", LIMITS, time.stop(), endpoint=server.url).put_part("k", "u", 1, bytearray(b"data"))
    assert part.etag == "e"
    assert HALF_AN_HOUR <= time.now < HALF_AN_HOUR + 2 * LIMITS.pause_most_seconds


def test_a_store_that_stays_away_is_given_up_and_named() -> None:
    time, server = Time(), Server(whole_file)
    server.end()
    with pytest.raises(
        Failure, match=rf"cannot list m/: the S3 store at {server.url} cannot be reached \(connection refused\), for 1 h 00"
    ):
        Store("b", LIMITS, time.stop(), endpoint=server.url).objects("m/")


def test_keys_that_were_good_a_minute_ago_are_tried_again_and_wrong_ones_are_not() -> None:
    time, calls = Time(), [0]

    def answer(_method: str, _path: str) -> Answer | None:
        calls[0] += 1
        return (403, {}, error("AccessDenied")) if calls[0] in (2, 3) else (200, {"ETag": '"e"'}, b"")

    with serving(answer) as server:
        store = Store("b", LIMITS, time.stop(), endpoint=server.url)
        store.put("k", b"1")
        store.put("k", b"2")
        assert calls == [4]
        calls[0] = 1
        with pytest.raises(Failure, match="refuses the credentials, or their right to delete k in bucket b"):
            store.delete("k")
        assert calls == [2]


def test_a_pod_that_is_told_to_stop_does_not_wait_for_the_store() -> None:
    time = Time()
    stop = time.stop()
    time.during = lambda: stop.because(None)
    with serving(lambda *_: (503, {}, error("SlowDown"))) as server, pytest.raises(Stopped):
        Store("b", LIMITS, stop, endpoint=server.url).put("k", b"1")
    assert len(time.waits) == 1


# -- who is waited for -------------------------------------------------------------------------------------------------


def test_the_line_of_progress_names_who_is_waited_for_and_since_when() -> None:
    time, lines = Time(), list[str | None]()
    patience = Patience("the hub at https://hub.example", "hub.endpoint", LIMITS, time.stop())
    progress = Progress(print, 60, patience.waiting)
    time.during = lambda: lines.append(progress.line(time.now))
    answers: list[Any] = [Again("a", "answers 503"), Again("a", "answers 503"), "there"]

    def work() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Again):
            raise answer
        return str(answer)

    assert patience.call(work) == "there"
    assert re.fullmatch(r"waiting for the hub at https://hub\.example, which answers 503, for \d+ s", lines[0] or "")
    progress.began({"a": 10**9}, {"a": 5 * 10**8}, now=0.0)
    assert progress.line(5.0) == "progress 50% 0.50 GB of 1.00 GB, 0.0 MB/s"
    answers = [Again("a", "answers 503"), "there"]
    patience.call(work)
    assert re.search(r"0\.0 MB/s, waiting for the hub at https://hub\.example, which answers 503, for \d s$", lines[-1] or "")
    assert patience.waiting() is None


def test_parts_that_came_without_a_checksum_make_the_upload_useless() -> None:
    bare = b"<ListPartsResult><Part><PartNumber>1</PartNumber><Size>4</Size><ETag>e</ETag></Part></ListPartsResult>"
    good = bare.replace(b"<Size>", b"<ChecksumCRC32>AAAAAA==</ChecksumCRC32><Size>")
    other = good.replace(b"<Part>", b"<ChecksumAlgorithm>SHA256</ChecksumAlgorithm><Part>", 1)
    for listing, expected in ((bare, None), (other, None), (good, [Part(1, 4, "e", "AAAAAA==")])):
        with serving(lambda *_, listing=listing: (200, {}, listing)) as server:  # type: ignore[misc]
            assert Store("b", LIMITS, Time().stop(), endpoint=server.url).parts("k", "u") == expected
