"""What is in the stand-in's account: a file with every resource, and a journal of what was done, refused and made to fail."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from embedded.plugins.aws.faults import Switch
from mistral_on_l4.aws.account import REHEARSAL_ACCOUNT
from mistral_on_l4.files import write_whole

Status = Literal["CREATING", "ACTIVE", "DELETING", "FAILED"]
Deed = Literal["create", "created", "delete", "deleted", "update", "refused", "failed"]


class AwsError(Exception):
    """An answer of AWS that is not a success, in the words of AWS's own errors."""

    def __init__(self, operation: str, code: str, message: str) -> None:
        self.operation, self.code, self.message = operation, code, message
        super().__init__(f"operation error {operation}, api error {code}: {message}")


@dataclass
class Entry:
    """One resource. kind: `vpc`, `subnet`, ...; refs: what it is in or made of, by role (`vpc` -> id); ours: declared by the
    program, or made by AWS for something that was (a cluster's security group, a node's instance).
    """

    id: str
    kind: str
    name: str
    refs: dict[str, list[str]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    status: Status = "CREATING"
    ours: bool = True

    def ref(self, role: str) -> str:
        """The only id of a role."""
        (found,) = self.refs[role]
        return found


class Account:
    """The resources of an account, while its file is locked. switches: what is hard about it; more: what else its file says."""

    def __init__(
        self,
        entries: dict[str, Entry],
        journal: list[dict[str, Any]],
        region: str,
        switches: frozenset[Switch] = frozenset(),
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.entries, self.journal, self.region, self.switches, self.more = entries, journal, region, switches, more or {}

    def of(self, kind: str) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.kind == kind]

    def find(self, kind: str, key: str) -> Entry | None:
        """By id or name."""
        return next((entry for entry in self.of(kind) if key in (entry.id, entry.name)), None)

    def users(self, key: str, *kinds: str) -> list[Entry]:
        """Resources of the kinds (all, if none are named) that refer to an id."""
        return [
            entry
            for entry in self.entries.values()
            if (not kinds or entry.kind in kinds) and any(key in ids for ids in entry.refs.values())
        ]

    def linger(self, entry: Entry, seconds: float) -> None:
        """A resource that nobody declared, and that goes by itself: after a while, or never within one run of Pulumi (infinity)."""
        entry.status, entry.ours = "ACTIVE", False
        entry.data["until"] = time.time() + seconds
        self.add(entry)

    def add(self, entry: Entry) -> Entry:
        self.entries[entry.id] = entry
        return entry

    def remove(self, key: str) -> None:
        self.entries.pop(key, None)

    def note(self, deed: Deed, entry: Entry, urn: str = "", why: str = "") -> None:
        self.journal.append(
            {
                "at": round(time.time(), 3),
                "deed": deed,
                "kind": entry.kind,
                "id": entry.id,
                "name": entry.name,
                "urn": urn,
                "why": why,
            }
        )

    def arn(self, service: str, resource: str, regional: bool = True) -> str:
        return f"arn:aws:{service}:{self.region if regional else ''}:{REHEARSAL_ACCOUNT}:{resource}"


class Ledger:
    """The file. Every look and every change holds its lock, so that several processes and threads see one account."""

    def __init__(self, path: Path, region: str, switches: frozenset[Switch] = frozenset()) -> None:
        self.path, self.region, self.switches = path, region, switches

    @contextmanager
    def open(self) -> Iterator[Account]:
        """The account; what was changed is written when the block ends, also when it ends with an error of AWS."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            account = self._read()
            before = self._text(account)
            try:
                yield account
            finally:
                if (after := self._text(account)) != before:
                    write_whole(self.path, after)
        finally:
            os.close(lock)

    def _read(self) -> Account:
        try:
            document: Mapping[str, Any] = json.loads(self.path.read_text())
        except FileNotFoundError:
            document = {"resources": {}, "journal": []}
        entries = {key: Entry(**values) for key, values in document["resources"].items()}
        now = time.time()
        here = {key: entry for key, entry in entries.items() if entry.data.get("until", now) >= now}
        more = {key: value for key, value in document.items() if key not in ("account", "resources", "journal")}
        return Account(here, list(document["journal"]), self.region, self.switches, more)

    @staticmethod
    def _text(account: Account) -> str:
        resources = {key: asdict(entry) for key, entry in account.entries.items()}
        kept = {"account": REHEARSAL_ACCOUNT, "resources": resources, "journal": account.journal}
        return json.dumps({**account.more, **kept}, indent=1)


def new_id(prefix: str) -> str:
    """An id in EC2's form, such as vpc-0a1b2c3d4e5f60718."""
    return f"{prefix}-0{secrets.token_hex(8)}"


def new_name(prefix: str) -> str:
    """A unique name in the form of the official provider's prefixes: 26 digits behind it."""
    return f"{prefix}{time.strftime('%Y%m%d%H%M%S', time.gmtime())}{secrets.randbelow(10**12):012d}"
