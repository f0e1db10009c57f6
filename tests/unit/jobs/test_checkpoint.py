"""A checkpoint that proves nothing is refused before anything is written; the hub here is a dict of contents."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import create_autospec

import pytest

from embedded.hub.safetensors_file import Tensor, header
from mistral_on_l4.jobs import weights_checkpoint
from mistral_on_l4.jobs.weights_files import HubFile
from mistral_on_l4.jobs.weights_hub import Hub, Snapshot
from mistral_on_l4.jobs.weights_limits import Failure

SHARD, INDEX = "model-00001-of-00001.safetensors", "model.safetensors.index.json"
GOOD = header([Tensor("w", "BF16", (4, 4)), Tensor("b", "BF16", (4,))]) + bytes(40)


def contents(**changes: Any) -> dict[str, bytes]:
    files: dict[str, Any] = {"config": {}, "index": {"weight_map": {"w": SHARD}}, "shard": GOOD, **changes}
    names = {"config": "config.json", "index": INDEX, "shard": SHARD}
    return {names[name]: data if isinstance(data, bytes) else json.dumps(data).encode() for name, data in files.items()}


def check(files: dict[str, bytes], sizes: dict[str, int] | None = None) -> None:
    hub = create_autospec(Hub, instance=True)

    def read(_snapshot: Snapshot, file: HubFile, start: int, into: memoryview) -> None:
        into[:] = files[file.path][start : start + len(into)]

    hub.read.side_effect = read
    listed = tuple(HubFile(path, (sizes or {}).get(path, len(data)), None, "0" * 40) for path, data in files.items())
    weights_checkpoint.check(hub, Snapshot("o/r", "c0ffee", listed), listed)


def with_header(document: Any, data_bytes: int = 0) -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data_bytes)


def test_a_checkpoint_that_makes_sense_passes() -> None:
    check(contents())


def test_a_header_that_is_longer_than_the_first_read_passes_too() -> None:
    tensors = [Tensor(f"layer.{number}", "BF16", (1,)) for number in range(500)]
    assert len(header(tensors)) > 16 * 1024
    check(contents(shard=header(tensors) + bytes(1000)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"index": {"weight_map": {}}}, f"{INDEX} of o/r at c0ffee names no tensor: its weight_map is empty"),
        ({"index": {}}, "its weight_map is no map of tensors to shards"),
        ({"index": {"weight_map": {"w": 1}}}, "its weight_map is no map of tensors to shards"),
        ({"index": b"{"}, f"{INDEX} of o/r at c0ffee is damaged: Expecting"),
        ({"index": {"weight_map": {"w": "gone"}}}, "o/r at c0ffee lacks 1 shards of its index, such as gone"),
        ({"config": b""}, r"config.json of o/r at c0ffee is empty"),
        ({"config": b"<html>"}, "config.json of o/r at c0ffee is damaged"),
        ({"config": []}, "config.json of o/r at c0ffee is damaged: it holds a list, not an object"),
        ({"shard": b""}, f"{SHARD} of o/r at c0ffee is empty"),
        ({"shard": b"<!doctype html>" * 10}, f"{SHARD} of o/r at c0ffee is no safetensors file: its header would have"),
        ({"shard": b"short"}, "is no safetensors file: its header would have"),
        ({"shard": with_header(b"{nonsense}")}, "its header is damaged"),
        ({"shard": with_header({"__metadata__": {}})}, "its header names no tensor"),
        ({"shard": with_header({"w": {"dtype": "BF16"}})}, "a tensor has no data_offsets"),
        ({"shard": GOOD[:-1]}, "its tensors end at byte"),
        ({"shard": GOOD + b"more"}, "its tensors end at byte"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Failure) as refused:
        check(contents(**changes))
    assert says in str(refused.value)


def test_an_index_that_would_not_fit_into_memory_is_refused_unread() -> None:
    with pytest.raises(Failure, match=r"index\.json of o/r at c0ffee has 1099\.51 GB"):
        check(contents(), {INDEX: 2**40})
    with pytest.raises(Failure, match=r"config\.json of o/r at c0ffee has 99\.00 MB, and at most 67\.11 MB are read as JSON"):
        check(contents(), {"config.json": 99_000_000})


def test_a_file_that_is_too_large_for_the_jobs_memory_is_refused_with_its_size() -> None:
    with pytest.raises(
        Failure, match=rf"^{SHARD} of o/r at c0ffee has 512\.00 GB, and the seed job brings files of up to 400\.00 GB"
    ):
        check(contents(), {SHARD: 512 * 10**9})
