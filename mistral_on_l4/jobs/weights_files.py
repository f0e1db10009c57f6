"""Which files of a repository are the checkpoint, and what is known about each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mistral_on_l4.jobs.weights_limits import Failure

INDEX = "model.safetensors.index.json"
# Raised when the rules below change: a manifest made by older rules is then not trusted to be complete.
SELECTION = 2

_WANTED = re.compile(
    r"""(?!consolidated).*\.safetensors      # shards in Hugging Face's format, or a lone model.safetensors
    | (?!params\.json$)[^/]*\.json           # config, index, generation_config, tokenizer and its config, tekken
    | tokenizer\.model(\.v\d+)? | vocab\.txt | merges\.txt
    | [^/]*\.jinja                           # chat template
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class HubFile:
    """A file at a commit. sha256: of LFS files, as the hub knows it; git_sha1: blob id of the others' content."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None

    @property
    def identity(self) -> str:
        """What the hub says that the content is, by the digest that it keeps."""
        return f"sha256:{self.sha256}" if self.sha256 else f"git:{self.git_sha1}"


class Digest:
    """Digests of a file's content, fed in order."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        # Git names a blob by the SHA-1 of a header and the content; no secret depends on it.
        self._git = None if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._sha256.update(data)
        if self._git is not None:
            self._git.update(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def problem(self) -> str | None:
        """How the content differs from what the hub promised, or None if it is that."""
        wanted, kind, actual = self._file.sha256, "SHA-256", self._sha256.hexdigest()
        if self._git is not None:
            wanted, kind, actual = self._file.git_sha1, "git SHA-1", self._git.hexdigest()
        return None if wanted == actual else f"its {kind} is {actual}, the hub promised {wanted}"


def selected(path: str) -> bool:
    """Whether a file is part of what vLLM loads in Hugging Face's format: nothing of it lies in a folder."""
    return "/" not in path and _WANTED.fullmatch(path) is not None


def select(repository: str, files: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """The checkpoint's files, by path. Raises Failure if they are not a checkpoint in Hugging Face's format."""
    chosen = tuple(sorted((file for file in files if selected(file.path)), key=lambda file: file.path))
    names = {file.path for file in chosen}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise Failure(f"{repository} holds no config.json with *.safetensors: it is no checkpoint in Hugging Face's format")
    if "model.safetensors" not in names and INDEX not in names:
        raise Failure(f"{repository} holds shards without {INDEX}")
    return chosen


def missing_shards(weight_map: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Shards that the index names and the repository lacks. weight_map: tensor -> shard."""
    return sorted(set(weight_map.values()) - set(names))


def combined_digest(files: Iterable[tuple[str, int, str]]) -> str:
    """One SHA-256 for a whole checkpoint, from (path, size, SHA-256) of its files in any order."""
    lines = "".join(f"{sha256} {size} {path}\n" for path, size, sha256 in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
