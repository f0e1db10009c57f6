"""What a transfer holds in memory, and what its threads may do at the same time."""

from __future__ import annotations

import threading
from typing import Any

from mistral_on_l4.jobs.weights_limits import MIB, Limits, Stop
from mistral_on_l4.jobs.weights_record import Notes, OpenUpload, SeededFile
from mistral_on_l4.jobs.weights_store import Store
from mistral_on_l4.jobs.weights_transfer import Transfer


def test_buffers_that_are_free_and_in_use_are_never_more_than_the_bound() -> None:
    limits = Limits(connections=2, uploads=2, part_mib=5)
    nothing: Any = None
    transfer = Transfer(nothing, nothing, nothing, nothing, limits, nothing, Stop())
    transfer._in_flight = limits.parts_in_flight
    for _ in range(limits.parts_in_flight):
        transfer._release(bytearray(5 * MIB))
    # Last parts and small files have sizes of their own.
    for number in range(1, limits.parts_in_flight + 1):
        transfer._in_flight += 1
        assert len(transfer._buffer(5 * MIB - number)) == 5 * MIB - number
        assert transfer._in_flight + len(transfer._free) <= limits.parts_in_flight


def test_a_small_file_is_not_noted_while_the_notes_are_being_written() -> None:
    notes = Notes("k", uploads={"config.json": OpenUpload("u", 5 * MIB, "git:x")})
    writing, go_on, noted = threading.Event(), threading.Event(), threading.Event()

    class SlowStore:
        def put(self, key: str, data: bytes) -> None:
            writing.set()
            go_on.wait(10)

    store: Any = SlowStore()
    writer = threading.Thread(target=notes.write, args=(store,))
    writer.start()
    writing.wait(10)
    file = SeededFile("config.json", 1, "a", "b")

    def note() -> None:
        notes.proven(file)
        noted.set()

    other = threading.Thread(target=note)
    other.start()
    assert not noted.wait(0.1)
    go_on.set()
    writer.join(10)
    other.join(10)
    assert (notes.done, notes.uploads) == ({"config.json": file}, {})


def test_on_a_server_that_lists_uploads_by_whole_key_only_they_are_found_by_their_keys() -> None:
    class MinIO(Store):
        def __init__(self) -> None: ...

        def uploads(self, prefix: str) -> list[tuple[str, str]]:
            return [found for found in (("m/a", "1"), ("m/a", "2"), ("m/b", "3")) if found[0] == prefix]

    assert MinIO().all_uploads("m/", ["m/a", "m/b", "m/c"]) == {("m/a", "1"), ("m/a", "2"), ("m/b", "3")}
