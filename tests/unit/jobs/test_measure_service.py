"""The probe: what it counts, and what it makes of answers that are late, short or absent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mistral_on_l4.jobs.measure_service import NothingMeasured, Profile, Request, asker, document, measured, run, statistics_ms
from mistral_on_l4.measuring.results import impossible, problems_of, results_in

PROFILE = Profile(levels=(1, 3), input_tokens=4, output_tokens=3, prompts_per_user=2, least_prompts=2)


@pytest.fixture
def service() -> Iterator[tuple[str, list[dict[str, Any]], list[str]]]:
    """(base URL of an engine, the bodies that it was asked, how it answers next: "whole" unless told)."""
    bodies: list[dict[str, Any]] = []
    modes: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            mode = modes.pop() if modes else "whole"
            if mode == "busy":
                self.send_response(429)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"busy")
                return
            count = body["max_tokens"] - (1 if mode == "short" else 0)
            events: list[Any] = [{"choices": [{"text": "x"}]} for _ in range(count)]
            events.append({"choices": [], "usage": {"completion_tokens": count}})
            if mode == "error":
                events[1:] = [{"error": {"message": "gone"}}]
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            for event in events:
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", bodies, modes
    server.shutdown()
    server.server_close()


def test_every_user_waits_for_its_answer_and_all_prompts_are_asked_once(service: Any) -> None:
    url, bodies, _ = service
    found = measured(asker(url, "m", "key"), PROFILE, 3)
    assert (found["num_prompts"], found["completed"], found["total_output_tokens"], found["errors"]) == (6, 6, 18, [])
    assert len({tuple(body["prompt"]) for body in bodies}) == 6
    assert {len(body["prompt"]) for body in bodies} == {4}
    assert all(body["ignore_eos"] for body in bodies)
    assert impossible(found) is None


@pytest.mark.parametrize(("mode", "said"), [("busy", "429: busy"), ("short", "2 of 3 tokens"), ("error", "gone")])
def test_an_answer_that_is_not_whole_counts_as_failed_with_its_reason_and_never_as_throughput(
    service: Any, mode: str, said: str
) -> None:
    url, _, modes = service
    modes.append(mode)
    found = measured(asker(url, "m", None), PROFILE, 1)
    assert (found["num_prompts"], found["completed"], found["total_output_tokens"]) == (2, 1, 3)
    assert said in found["errors"][0]
    assert problems_of([found], Profile((1,), 4, 3))[0].startswith("1 users: 1 of 2 requests failed: ")


def test_results_are_printed_level_by_level_so_that_those_before_a_failure_are_kept(
    service: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(PROFILE, asker(service[0], "m", None))
    log = capsys.readouterr().out
    assert [result["max_concurrency"] for result in results_in(log)] == [1, 3]
    assert [result["max_concurrency"] for result in results_in(log.partition("3 users")[0])] == [1]


def test_a_service_that_is_away_is_one_sentence() -> None:
    with pytest.raises(NothingMeasured, match="no request was answered: ConnectionError"):
        run(PROFILE, asker("http://127.0.0.1:9", "m", None))


def test_times_are_of_output_tokens_after_the_first() -> None:
    one = Request(ttft=0.1, itls=[0.05, 0.05], latency=0.2, tokens=3)
    found = document([one], PROFILE, 1, 0.2)
    assert found["mean_tpot_ms"] == pytest.approx(50)
    assert found["median_ttft_ms"] == pytest.approx(100)
    assert found["output_throughput"] == pytest.approx(15)


def test_percentiles_are_interpolated() -> None:
    assert statistics_ms("x", [0.001, 0.002, 0.003])["p95_x_ms"] == pytest.approx(2.9)
    assert statistics_ms("x", [])["mean_x_ms"] is None


def test_levels_follow_each_other_and_users_of_one_run_at_once() -> None:
    running = most = 0
    lock = threading.Lock()

    def ask(_: Sequence[int], tokens: int) -> Request:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return Request(0.001, [0.001] * (tokens - 1), 0.01, tokens)

    seen: list[int] = []
    done: Callable[[int, int], None] = lambda count, _: seen.append(count)  # noqa: E731
    measured(ask, PROFILE, 3, done)
    assert most == 3
