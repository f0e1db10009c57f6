"""What the bucket remembers of a checkpoint: the manifest, written last, and the notes of a job that is not done.

Both lie outside every model's prefix, because KServe's storage-initializer downloads whatever is below one, hidden or not:
checkpoint `mistral-24b/` has its manifest at `_manifests/mistral-24b.json`. Downstream trusts that object alone.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mistral_on_l4.jobs.weights_files import SELECTION, HubFile, combined_digest
from mistral_on_l4.jobs.weights_limits import Failure
from mistral_on_l4.jobs.weights_store import Store, StoredObject

FOLDER = "_manifests/"
FORMAT = 1


_UNFINISHED = ".unfinished"
# Names that begin with a dot are the stores' own (.minio.sys, .sgwtmp), or lead elsewhere. The settings refuse the same
# (config/fields.py), before anything starts.
_PREFIX = re.compile(rf"(?!{FOLDER})([A-Za-z0-9_-][A-Za-z0-9._-]*/)+")


def manifest_key(prefix: str) -> str:
    """Key of the manifest of a prefix. Raises Failure for a prefix that is none."""
    name = prefix[:-1]
    if not _PREFIX.fullmatch(prefix) or name.endswith(_UNFINISHED):
        raise Failure(f"prefix {prefix!r} must be a plain folder name that ends with '/', such as 'mistral-24b/'")
    return f"{FOLDER}{name}.json"


@dataclass(frozen=True)
class SeededFile:
    """A file in the bucket, proven: its SHA-256 was computed here and is what the hub promised. size: bytes."""

    path: str
    size: int
    sha256: str
    etag: str

    def is_at(self, stored: StoredObject | None) -> bool:
        return stored is not None and (stored.size, stored.etag) == (self.size, self.etag)


@dataclass(frozen=True)
class Manifest:
    """A finished checkpoint. revision: as it was asked for; commit: what that was; finished: UTC, ISO 8601."""

    repository: str
    revision: str
    commit: str
    prefix: str
    finished: str
    files: tuple[SeededFile, ...]
    selection: int = SELECTION

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        return combined_digest((file.path, file.size, file.sha256) for file in self.files)

    def to_json(self) -> bytes:
        document = {
            "format": FORMAT,
            "repository": self.repository,
            "revision": self.revision,
            "commit": self.commit,
            "prefix": self.prefix,
            "finished": self.finished,
            "selection": self.selection,
            "bytes": self.size,
            "digest": self.digest,
            "files": [asdict(file) for file in self.files],
        }
        return (json.dumps(document, indent=1) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> Manifest | None:
        """None for what is no whole manifest, so that it is made again."""
        try:
            document = json.loads(data)
            manifest = cls(
                document["repository"],
                document["revision"],
                document["commit"],
                document["prefix"],
                document["finished"],
                tuple(SeededFile(**file) for file in document["files"]),
                document["selection"],
            )
            return manifest if document["format"] == FORMAT and document["digest"] == manifest.digest else None
        except (ValueError, KeyError, TypeError):
            return None

    def serves(self, repository: str, revision: str) -> bool:
        """Whether this is what somebody asks for who asks for that. A branch stays what it was when it was resolved."""
        return self.repository == repository and revision in (self.revision, self.commit) and self.selection == SELECTION

    def problems(self, objects: Mapping[str, StoredObject]) -> list[str]:
        """How the listing of the prefix differs from what was written."""
        problems = []
        for file in self.files:
            listed = objects.get(self.prefix + file.path)
            if listed is None:
                problems.append(f"{file.path} is missing")
            elif listed.size != file.size:
                problems.append(f"{file.path} has {listed.size} bytes, not {file.size}")
            elif listed.etag != file.etag:
                problems.append(f"{file.path} was written again by somebody (ETag {listed.etag}, not {file.etag})")
        return problems

    def strangers(self, objects: Mapping[str, StoredObject]) -> list[str]:
        """Keys below the prefix that are no part of the checkpoint; a model server downloads them too."""
        return sorted(set(objects) - {self.prefix + file.path for file in self.files})


def read_manifest(store: Store, prefix: str) -> Manifest | None:
    data = store.read(manifest_key(prefix))
    return None if data is None else Manifest.parse(data)


@dataclass(frozen=True)
class OpenUpload:
    """An unfinished upload of a file. identity: of the content that its parts are of."""

    upload: str
    part_bytes: int
    identity: str


@dataclass
class Notes:
    """What a job has done so far, kept in the bucket beside the manifest until that is written.

    done: files that were proven and are whole; uploads: those under way; previous: paths that earlier manifests and jobs may have
    written to.
    """

    key: str
    done: dict[str, SeededFile] = field(default_factory=dict)
    uploads: dict[str, OpenUpload] = field(default_factory=dict)
    previous: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def read(cls, store: Store, prefix: str) -> Notes:
        """Notes that cannot be read are none: what they spoke of is then read back, or sent again."""
        notes = cls(manifest_key(prefix).removesuffix(".json") + f"{_UNFINISHED}.json")
        try:
            document: dict[str, Any] = json.loads(store.read(notes.key) or b"{}")
            notes.done = {path: SeededFile(**file) for path, file in document.get("done", {}).items()}
            notes.uploads = {path: OpenUpload(**upload) for path, upload in document.get("uploads", {}).items()}
            notes.previous = set(document.get("previous", []))
        except (ValueError, TypeError, AttributeError):
            notes.done, notes.uploads, notes.previous = {}, {}, set()
        return notes

    @property
    def paths(self) -> set[str]:
        """Whatever it speaks of."""
        return {*self.done, *self.uploads, *self.previous}

    def write(self, store: Store) -> None:
        with self._lock:
            document = {
                "done": {path: asdict(file) for path, file in self.done.items()},
                "uploads": {path: asdict(upload) for path, upload in self.uploads.items()},
                "previous": sorted(self.previous),
            }
            store.put(self.key, json.dumps(document).encode())

    def began(self, store: Store, path: str, upload: OpenUpload) -> None:
        """Must be told before the first part is sent, or the parts are of nobody's upload after a kill."""
        with self._lock:
            self.uploads = {**self.uploads, path: upload}
        self.write(store)

    def proven(self, file: SeededFile) -> None:
        """Kept with the next write. For small files, which are soon read back."""
        with self._lock:
            self.uploads = {path: upload for path, upload in self.uploads.items() if path != file.path}
            self.done = {**self.done, file.path: file}

    def finished(self, store: Store, file: SeededFile) -> None:
        self.proven(file)
        self.write(store)


def serves_file(done: SeededFile | None, wanted: HubFile) -> bool:
    """Whether a proven file is the one wanted now: for git blobs the SHA-256 is ours, so they are read again."""
    return done is not None and wanted.sha256 == done.sha256 and wanted.size == done.size
