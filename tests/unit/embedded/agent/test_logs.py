"""A container's log: how it is written, rotated and read."""

from __future__ import annotations

import re
import threading
import time

import pytest

from embedded.agent import container_log, container_reader, launch, logs_server
from embedded.agent.container_log import LogWriter
from embedded.agent.logs_server import Options, Source


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "main" / "0.log"


def text(path, **options):
    return b"".join(logs_server.read(Source(path, lambda: False), Options(**options))).decode()


def test_lines_of_both_streams_are_kept_apart_until_they_end(path):
    writer = LogWriter(str(path))
    writer.write("stdout", b"one\ntw")
    writer.write("stderr", b"problem\n")
    writer.write("stdout", b"o\nlast without an end")
    writer.finish()
    assert text(path) == "one\nproblem\ntwo\nlast without an end\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z stdout F one", path.read_text().splitlines()[0])


def test_a_line_longer_than_a_part_is_read_as_one_line_again(path):
    long = "x" * 50_000
    writer = LogWriter(str(path))
    writer.write("stdout", long.encode() + b"\nnext\n")
    writer.finish()
    assert [line.split(" ")[2] for line in path.read_text().splitlines()] == ["P", "P", "P", "F", "F"]
    assert text(path) == f"{long}\nnext\n"


def test_a_log_never_holds_more_than_two_files(path, monkeypatch):
    monkeypatch.setattr(container_log, "ROTATE_BYTES", 2000)
    writer = LogWriter(str(path))
    for number in range(200):
        writer.write("stdout", f"line {number}\n".encode())
    writer.finish()
    files = sorted(path.parent.iterdir())
    assert [each.name for each in files] == ["0.log", "0.log.1"]
    assert all(each.stat().st_size < 2100 for each in files)
    shown = text(path).splitlines()
    assert shown[-1] == "line 199"
    assert shown == [f"line {number}" for number in range(200 - len(shown), 200)]


def test_a_reader_gets_the_tail_the_limit_and_the_times_it_asked_for(path):
    writer = LogWriter(str(path))
    writer.write("stdout", b"one\ntwo\nthree\n")
    writer.finish()
    assert text(path, tail_lines=2) == "two\nthree\n"
    assert text(path, tail_lines=0) == ""
    assert text(path, limit_bytes=5) == "one\nt"
    assert re.fullmatch(r"\S+Z three\n", text(path, tail_lines=1, timestamps=True))
    assert text(path, since_seconds=time.time() + 10) == ""


def test_a_follower_sees_what_is_written_later_even_across_a_rotation_and_ends_with_the_container(path, monkeypatch):
    monkeypatch.setattr(container_log, "ROTATE_BYTES", 500)
    writer = LogWriter(str(path))
    writer.write("stdout", b"before\n")
    running = True
    seen = []

    def follow():
        seen.extend(piece for piece in logs_server.read(Source(path, lambda: running), Options(follow=True)) if piece)

    reader = threading.Thread(target=follow)
    reader.start()
    deadline = time.monotonic() + 30
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in range(12):
        writer.write("stdout", f"after {number}\n".encode())
    writer.finish()
    running = False
    reader.join(30)
    assert not reader.is_alive()
    assert b"".join(seen).decode().splitlines() == ["before", *[f"after {number}" for number in range(12)]]


def test_what_is_written_while_a_follower_reads_the_beginning_comes_once(path):
    writer = LogWriter(str(path))
    writer.write("stdout", b"one\ntwo\n")
    running = True
    pieces = logs_server.read(Source(path, lambda: running), Options(follow=True))
    seen = [next(pieces)]
    writer.write("stdout", b"three\n")
    writer.finish()
    running = False
    assert b"".join([*seen, *pieces]) == b"one\ntwo\nthree\n"


def test_the_query_of_kubectl_is_understood():
    found = Options.parse({"follow": ["true"], "tailLines": ["5"], "sinceTime": ["2026-01-01T00:00:00Z"], "previous": ["false"]})
    assert (found.follow, found.tail_lines, found.previous) == (True, 5, False)
    assert found.since_seconds == 1767225600.0
    with pytest.raises(ValueError, match="invalid literal"):
        Options.parse({"tailLines": ["many"]})


def test_the_last_words_are_the_termination_file_or_where_asked_for_the_end_of_a_failed_log(tmp_path):
    container = {"name": "main", "terminationMessagePolicy": "FallbackToLogsOnError"}
    said = launch.termination_file(tmp_path, "main", 0)
    said.parent.mkdir(parents=True)
    writer = LogWriter(str(launch.log_file(tmp_path, "main", 0)))
    writer.write("stderr", b"".join(b"line %d\n" % number for number in range(200)))
    writer.finish()
    said.write_text("")
    assert container_reader.last_words(tmp_path, container, 0, 1).splitlines() == [f"line {number}" for number in range(120, 200)]
    assert container_reader.last_words(tmp_path, container, 0, 0) == ""
    assert container_reader.last_words(tmp_path, {"name": "main"}, 0, 1) == ""
    said.write_text("x" * 5000)
    assert container_reader.last_words(tmp_path, container, 0, 1) == "x" * 4096
