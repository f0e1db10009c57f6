"""What a repository's files say of themselves, read from the hub before anything is written: a digest proves bytes, not sense.

Only vLLM would notice otherwise, on a GPU that bills: an index without shards, an empty file, a header that does not parse.
The header is as github.com/huggingface/safetensors has it: its length in 8 bytes, little-endian; that much JSON, name -> dtype,
shape and data_offsets (begin and end, bytes after the header); the tensors' bytes up to the file's end, without a hole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mistral_on_l4.jobs.weights_files import INDEX, HubFile, missing_shards
from mistral_on_l4.jobs.weights_hub import Hub, Snapshot
from mistral_on_l4.jobs.weights_limits import MIB, Failure
from mistral_on_l4.jobs.weights_progress import gigabytes

_READERS = 8
# Of 24 billion parameters: an index of 30 kB, a config of 1 kB.
_MOST_JSON_BYTES = 64 * MIB
# MAX_HEADER_SIZE of safetensors' own reader; a shard of 10 has 8 kB.
_MOST_HEADER_BYTES = 100_000_000
_FIRST_BYTES = 16 * 1024
_LENGTH_BYTES = 8
# S3 takes 10,000 parts, and this file's are 40 MB: as many as are in flight fill the memory that the pod may have.
MOST_FILE_BYTES = 400 * 10**9


def check(hub: Hub, snapshot: Snapshot, files: Sequence[HubFile]) -> None:
    """files: those that are to be brought. Raises Failure for the first that makes no sense, Stopped."""
    place = f"{snapshot.repository} at {snapshot.commit}"
    for file in files:
        if file.size > MOST_FILE_BYTES:
            raise Failure(
                f"{file.path} of {place} has {gigabytes(file.size)}, and the seed job brings files of up to "
                f"{gigabytes(MOST_FILE_BYTES)}: set the service's repository to one with smaller shards"
            )
        if not file.size and file.path.endswith((".safetensors", ".json")):
            raise Failure(f"{file.path} of {place} is empty: take another revision, or tell its owner")
    for file in files:
        if file.path == "config.json":
            _object(hub, snapshot, file)
        elif file.path == INDEX:
            _check_index(hub, snapshot, file, files)
    shards = [file for file in files if file.path.endswith(".safetensors")]
    with ThreadPoolExecutor(_READERS) as pool:
        problems = pool.map(lambda file: _header_problem(hub, snapshot, file), shards)
        for file, problem in zip(shards, problems, strict=True):
            if problem:
                raise Failure(f"{file.path} of {place} is no safetensors file: {problem}")


def _check_index(hub: Hub, snapshot: Snapshot, index: HubFile, files: Sequence[HubFile]) -> None:
    place = f"{snapshot.repository} at {snapshot.commit}"
    weight_map = _object(hub, snapshot, index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise Failure(f"{INDEX} of {place} is damaged: its weight_map is no map of tensors to shards")
    if not weight_map:
        raise Failure(f"{INDEX} of {place} names no tensor: its weight_map is empty")
    missing = missing_shards(weight_map, [file.path for file in files])
    if missing:
        raise Failure(f"{place} lacks {len(missing)} shards of its index, such as {missing[0]}")


def _object(hub: Hub, snapshot: Snapshot, file: HubFile) -> dict[str, Any]:
    """A JSON file whole."""
    place = f"{file.path} of {snapshot.repository} at {snapshot.commit}"
    if file.size > _MOST_JSON_BYTES:
        raise Failure(f"{place} has {gigabytes(file.size)}, and at most {gigabytes(_MOST_JSON_BYTES)} are read as JSON")
    document = _json(_read(hub, snapshot, file, 0, file.size))
    if isinstance(document, str):
        raise Failure(f"{place} is damaged: {document}")
    return document


def _header_problem(hub: Hub, snapshot: Snapshot, file: HubFile) -> str | None:
    first = _read(hub, snapshot, file, 0, min(_FIRST_BYTES, file.size))
    length = int.from_bytes(first[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if length > _MOST_HEADER_BYTES or begin > file.size or len(first) < _LENGTH_BYTES:
        return f"its header would have {length} bytes, and the file has {file.size}"
    rest = _read(hub, snapshot, file, len(first), begin - len(first)) if begin > len(first) else b""
    header = _json((first + rest)[_LENGTH_BYTES:begin])
    if isinstance(header, str):
        return f"its header is damaged: {header}"
    try:
        ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
    except (TypeError, KeyError, IndexError, ValueError):
        return "its header is damaged: a tensor has no data_offsets"
    if not ends:
        return "its header names no tensor"
    if begin + max(ends) != file.size:
        return f"its tensors end at byte {begin + max(ends)}, and the file at {file.size}"
    return None


def _json(data: bytes) -> dict[str, Any] | str:
    """The object, or what is wrong with it."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        return str(error)
    return document if isinstance(document, dict) else f"it holds a {type(document).__name__}, not an object"


def _read(hub: Hub, snapshot: Snapshot, file: HubFile, start: int, count: int) -> bytes:
    data = bytearray(count)
    hub.read(snapshot, file, start, memoryview(data))
    return bytes(data)
