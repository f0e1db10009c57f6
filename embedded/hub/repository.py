"""Repositories on disk: generated once into a folder, read by the server.

Layout: <root>/<owner>/<name>/<commit>/ holds the files, <root>/<owner>/<name>/repository.json their sizes and digests.
The commit is the SHA-1 of the listing, so it changes exactly when a file does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedded.hub import tokenizer
from embedded.hub.checkpoints import Checkpoint, config, native_tensors, params, tensors
from embedded.hub.safetensors_file import Tensor, write

_INDEX = "repository.json"
# Raised when what is generated changes: an older folder is then made anew.
GENERATION = 2
# What git-lfs stores in place of a file: 3 lines, "size" being the only variable part.
_POINTER_FIXED_BYTES = len("version https://git-lfs.github.com/spec/v1\noid sha256:\nsize \n") + 64


@dataclass(frozen=True)
class Entry:
    """A file of a repository. git_sha1 is its blob id: of the content, or of the pointer if the file is in LFS."""

    path: str
    size: int
    sha256: str
    git_sha1: str
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_sha1

    @property
    def pointer_size(self) -> int:
        return _POINTER_FIXED_BYTES + len(str(self.size))


@dataclass(frozen=True)
class Repository:
    """One repository at a commit. folder holds the files; refs are the names that lead there; branches: other commits."""

    id: str
    commit: str
    folder: Path
    entries: Mapping[str, Entry]
    refs: tuple[str, ...] = ("main",)
    gated: bool = False
    branches: tuple[Repository, ...] = ()

    def at(self, revision: str) -> Repository | None:
        """This repository at a revision, None where it has none of that name."""
        for one in (self, *self.branches):
            if revision == one.commit or revision in one.refs:
                return one
        return None


def prepare(root: Path, checkpoints: tuple[Checkpoint, ...]) -> dict[str, Repository]:
    """Opens every checkpoint's repository under `root`, generating those that are missing. Keyed by repository id."""
    return {checkpoint.repository: _open(root, checkpoint) or _generate(root, checkpoint) for checkpoint in checkpoints}


def with_branch(root: Path, repository: Repository, name: str, folder: Path) -> Repository:
    """The repository with another commit: the files of `folder`, which stay where they are. Their digests are kept under `root`."""
    kept = root / repository.id / f"{name}.json"
    try:
        index = json.loads(kept.read_text())
        sizes = {each["path"]: each["size"] for each in index["files"]}
        whole = index["folder"] == str(folder) and all((folder / path).stat().st_size == size for path, size in sizes.items())
    except (OSError, ValueError, KeyError):
        whole = False
    if not whole:
        index = {**_index(repository.id, folder), "folder": str(folder)}
        kept.write_text(json.dumps(index, indent=1))
    entries = {entry["path"]: Entry(**entry) for entry in index["files"]}
    branch = Repository(repository.id, index["commit"], folder, entries, refs=(name,), gated=repository.gated)
    return replace(repository, branches=(*repository.branches, branch))


def open_all(root: Path) -> dict[str, Repository]:
    """Every repository that was published under `root`. Keyed by repository id."""
    by_id = {}
    for file in sorted(root.glob(f"*/*/{_INDEX}")):
        repository = _repository(json.loads(file.read_text()), file.parent)
        by_id[repository.id] = repository
    return by_id


def add(root: Path, repository: str, source: Path) -> Repository:
    """Publishes the files of folder `source` as a repository, moving them under `root`."""
    place = root / repository
    index = _index(repository, source)
    place.mkdir(parents=True, exist_ok=True)
    target = place / index["commit"]
    if target.exists():
        shutil.rmtree(source)
    else:
        source.rename(target)
    temporary = place / f".{_INDEX}.{os.getpid()}"
    temporary.write_text(json.dumps(index, indent=1))
    temporary.replace(place / _INDEX)
    for other in place.iterdir():
        if other.is_dir() and other != target:
            shutil.rmtree(other, ignore_errors=True)
    return _repository(index, place)


def _open(root: Path, checkpoint: Checkpoint) -> Repository | None:
    place = root / checkpoint.repository
    try:
        index = json.loads((place / _INDEX).read_text())
        if index["generation"] != GENERATION:
            return None
        repository = _repository(index, place)
        if all((repository.folder / entry.path).stat().st_size == entry.size for entry in repository.entries.values()):
            return repository
    except (OSError, ValueError, KeyError):
        pass
    return None


def _repository(index: Mapping[str, Any], place: Path) -> Repository:
    entries = {entry["path"]: Entry(**entry) for entry in index["files"]}
    return Repository(index["id"], index["commit"], place / index["commit"], entries)


def _generate(root: Path, checkpoint: Checkpoint) -> Repository:
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".generating-") as name:
        folder = Path(name) / "files"
        folder.mkdir()
        _write_weights(folder, checkpoint)
        for path, text in _texts(checkpoint):
            (folder / path).write_text(text, encoding="utf-8")
        return add(root, checkpoint.repository, folder)


def _write_weights(folder: Path, checkpoint: Checkpoint) -> None:
    shards: list[list[Tensor]] = [[]]
    for tensor in tensors(checkpoint):
        if shards[-1] and sum(held.nbytes for held in shards[-1]) + tensor.nbytes > checkpoint.shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write(folder / name, shard, seed=2501)
        weight_map |= {tensor.name: name for tensor in shard}
    total = sum(tensor.nbytes for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    write(folder / "consolidated.safetensors", list(native_tensors(checkpoint)), seed=2502)


def _texts(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    documents: dict[str, dict[str, Any]] = {
        "config.json": config(checkpoint),
        "generation_config.json": {
            "_from_model_config": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "do_sample": True,
            "temperature": 0.15,
        },
        "params.json": params(checkpoint),
        "tokenizer.json": tokenizer.tokenizer_json(),
        "tokenizer_config.json": tokenizer.tokenizer_config(),
        "special_tokens_map.json": tokenizer.special_tokens_map(),
        "tekken.json": tokenizer.tekken(),
    }
    for path, document in documents.items():
        yield path, json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    yield (
        ".gitattributes",
        "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in ("*.safetensors", *sorted(_LFS_NAMES))),
    )
    base = f"base_model: {checkpoint.base}\n" if checkpoint.base else ""
    yield (
        "README.md",
        f"---\nlicense: apache-2.0\n{base}---\n# {checkpoint.repository.partition('/')[2]} (generated)\n\n"
        "Seeded noise in the shape of the real checkpoint, made by mistral-on-l4's local hub for trying the stack\n"
        "without internet. It is not the model: nothing sensible can be generated with it.\n",
    )


_LFS_NAMES = frozenset({"tokenizer.json", "tekken.json"})


def _index(repository: str, folder: Path) -> dict[str, Any]:
    entries = [_entry(folder, path) for path in sorted(path for path in folder.rglob("*") if path.is_file())]
    listing = "".join(f"{entry.path} {entry.sha256}\n" for entry in entries)
    commit = hashlib.sha1(f"{repository}\n{listing}".encode(), usedforsecurity=False).hexdigest()
    return {"generation": GENERATION, "id": repository, "commit": commit, "files": [asdict(entry) for entry in entries]}


def _entry(folder: Path, file: Path) -> Entry:
    path, size = file.relative_to(folder).as_posix(), file.stat().st_size
    lfs = file.suffix == ".safetensors" or file.name in _LFS_NAMES
    content, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            content.update(block)
            if not lfs:
                blob.update(block)
    if lfs:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{content.hexdigest()}\nsize {size}\n".encode()
        blob = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False)
    return Entry(path, size, content.hexdigest(), blob.hexdigest(), lfs)
