"""What the hub says: JSON of its API, headers, error codes, ranges. No sockets here.

Shapes and header names as huggingface_hub 0.32 to 2.4 needs them: without X-Repo-Commit and ETag it does not download,
and without X-Linked-Size and X-Linked-Etag on a redirect older ones take the size of the redirect's own body.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from embedded.hub.repository import Entry, Repository


@dataclass(frozen=True)
class Refusal(Exception):
    """An error answer. code: X-Error-Code, by which clients choose the exception; headers: further ones."""

    status: int
    message: str
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def no_repository(repository: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, f"Repository not found: {repository}", "RepoNotFound")


def no_revision(revision: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", "RevisionNotFound")


def no_entry(repository: Repository, path: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, f"Entry not found: {path}", "EntryNotFound", {"X-Repo-Commit": repository.commit})


def gate_closed(repository: Repository, known: bool) -> Refusal:
    """known: the token is a real one, so what is missing is that its owner accepts the conditions."""
    if known:
        text = f"Access to model {repository.id} is restricted and you are not in the authorized list."
        return Refusal(HTTPStatus.FORBIDDEN, text, "GatedRepo")
    text = f"Access to model {repository.id} is restricted. You must be authenticated to access it."
    return Refusal(HTTPStatus.UNAUTHORIZED, text, "GatedRepo")


def info(repository: Repository, blobs: bool) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = []
    for entry in repository.entries.values():
        sibling: dict[str, Any] = {"rfilename": entry.path}
        if blobs:
            sibling |= {"size": entry.size, "blobId": entry.git_sha1}
            if entry.lfs:
                sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
        siblings.append(sibling)
    return {
        "_id": hashlib.sha256(repository.id.encode()).hexdigest()[:24],
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.id.partition("/")[0],
        "sha": repository.commit,
        "private": False,
        "disabled": False,
        "gated": "manual" if repository.gated else False,
        "downloads": 0,
        "likes": 0,
        "tags": ["safetensors", "mistral", "generated"],
        "lastModified": "2025-01-30T00:00:00.000Z",
        "createdAt": "2025-01-30T00:00:00.000Z",
        "siblings": siblings,
    }


def tree(repository: Repository, below: str, recursive: bool) -> list[dict[str, Any]]:
    """Entries under folder `below` ("" for all); folders appear once, before what they hold."""
    start = f"{below}/" if below else ""
    items: dict[str, dict[str, Any]] = {}
    for entry in repository.entries.values():
        if not entry.path.startswith(start):
            continue
        folders = entry.path[len(start) :].split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            path = start + "/".join(folders[:depth])
            items.setdefault(path, {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0})
            if not recursive:
                break
        if recursive or not folders:
            items[entry.path] = _file(entry)
    if below and not items:
        raise no_entry(repository, below)
    return list(items.values())


def _file(entry: Entry) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "file", "path": entry.path, "size": entry.size, "oid": entry.git_sha1}
    if entry.lfs:
        item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return item


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(first, count) of a Range header, None if there is none or it is not one simple range. Raises Refusal 416."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = max(0, size - int(last)) if not first else int(first)
    end = size - 1 if not first or not last else min(int(last), size - 1)
    if start > end:
        raise Refusal(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "Range not satisfiable",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end - start + 1


class Signer:
    """Signs storage URLs for a while, as a CDN does. The key lives as long as the process."""

    def __init__(self, key: bytes, valid_seconds: float) -> None:
        self._key = key
        self.valid_seconds = valid_seconds

    def query(self, path: str, now: float) -> str:
        expires = int(now + self.valid_seconds)
        return f"Expires={expires}&Signature={self._signature(path, expires)}"

    def accepts(self, path: str, expires: str, signature: str, now: float) -> bool:
        if not expires.isascii() or not expires.isdigit():
            return False
        return hmac.compare_digest(signature, self._signature(path, int(expires))) and now <= int(expires)

    def _signature(self, path: str, expires: int) -> str:
        return hmac.new(self._key, f"{path}\n{expires}".encode(), "sha256").hexdigest()
