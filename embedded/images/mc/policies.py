"""MinIO's named policies, kept as statements of bucket policies: that is the only kind of policy versitygw has.

`policy create` keeps the document in mc's own configuration folder; `policy attach` writes its statements into the policy of
each bucket that they name, for one user. A statement's Sid, "NAME:N", says which policy it came from.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from embedded.images.mc.store import Store

_VERSION = "2012-10-17"
_BUCKET = re.compile(r"arn:aws:s3:::([a-z0-9][a-z0-9.-]*)(/.*)?")


class PolicyError(Exception):
    """A policy that cannot be kept faithfully, or is not there. One line."""


class NoChange(Exception):
    """The user already has the policy, as it is."""


def read(name: str, text: str) -> list[dict[str, Any]]:
    """The statements of a policy document. Raises PolicyError for what versitygw would not enforce."""
    try:
        document = json.loads(text)
        statements = document["Statement"]
    except (ValueError, KeyError, TypeError):
        raise PolicyError(f"policy {name} is not a policy document in JSON, with a list Statement") from None
    if not isinstance(statements, list) or not statements:
        raise PolicyError(f"policy {name} has no statement")
    for statement in statements:
        if unknown := sorted(set(statement) - {"Sid", "Effect", "Action", "Resource"}):
            raise PolicyError(f"policy {name}: {unknown[0]} is not supported by the stand-in (its server enforces no such thing)")
        for resource in _listed(statement.get("Resource")):
            if not _BUCKET.fullmatch(resource):
                raise PolicyError(f"policy {name}: resource {resource} names no single bucket: not supported by the stand-in")
        if statement.get("Effect") not in ("Allow", "Deny") or not _listed(statement.get("Action")):
            raise PolicyError(f"policy {name}: each statement needs Effect (Allow or Deny), Action and Resource")
    return statements


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def per_bucket(name: str, statements: list[dict[str, Any]], user: str) -> dict[str, list[dict[str, Any]]]:
    """bucket -> the statements of its policy that give `user` what the named policy says about it."""
    buckets: dict[str, list[dict[str, Any]]] = {}
    for index, statement in enumerate(statements):
        resources: dict[str, list[str]] = {}
        for resource in _listed(statement["Resource"]):
            match = _BUCKET.fullmatch(resource)
            assert match is not None
            resources.setdefault(match[1], []).append(resource)
        for bucket, own in resources.items():
            buckets.setdefault(bucket, []).append(
                {
                    "Sid": f"{name}:{index}",
                    "Effect": statement["Effect"],
                    "Principal": {"AWS": [user]},
                    "Action": _listed(statement["Action"]),
                    "Resource": own,
                }
            )
    return buckets


def merged(policy: str | None, name: str, user: str, wanted: list[dict[str, Any]]) -> str | None:
    """A bucket's policy with the named policy's statements for the user replaced; None if that changes nothing."""
    present = json.loads(policy)["Statement"] if policy else []

    def ours(statement: dict[str, Any]) -> bool:
        sid = str(statement.get("Sid", ""))
        return sid.rpartition(":")[0] == name and statement.get("Principal") == {"AWS": [user]}

    kept = [statement for statement in present if not ours(statement)]
    if [statement for statement in present if ours(statement)] == wanted:
        return None
    return json.dumps({"Version": _VERSION, "Statement": kept + wanted}, sort_keys=True)


def holders(policy: str | None, name: str) -> list[str]:
    """Users in a bucket's policy to whom the named policy was attached."""
    present = json.loads(policy)["Statement"] if policy else []
    return sorted(
        {
            user
            for statement in present
            if str(statement.get("Sid", "")).rpartition(":")[0] == name
            for user in _listed(statement.get("Principal", {}).get("AWS"))
        }
    )


class Policies:
    """The named policies of one alias, in a folder of mc's configuration."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def create(self, name: str, text: str) -> None:
        """Keeps a policy; who has one of that name already has the new one at once, as with MinIO."""
        statements = read(name, text)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{name}.json").write_text(text)
        for bucket in per_bucket(name, statements, ""):
            if not self._store.has_bucket(bucket):
                continue
            for user in holders(self._store.bucket_policy(bucket), name):
                self._write(bucket, name, user, per_bucket(name, statements, user)[bucket])

    def attach(self, name: str, user: str) -> None:
        """Raises NoChange, or PolicyError without such a policy or user."""
        try:
            statements = read(name, (self._folder / f"{name}.json").read_text())
        except FileNotFoundError:
            raise PolicyError(
                "Unable to make user/group policy association. The canned policy does not exist. "
                f"(Specified canned policy does not exist: {name}; the stand-in knows those created with this MC_CONFIG_DIR)."
            ) from None
        if user not in self._store.users():
            raise PolicyError(
                "Unable to make user/group policy association. The specified user does not exist. (Specified user does not exist)."
            )
        # Every bucket is written, so this must not stop at the first change.
        changes = [self._write(bucket, name, user, wanted) for bucket, wanted in per_bucket(name, statements, user).items()]
        if not any(changes):
            raise NoChange

    def _write(self, bucket: str, name: str, user: str, wanted: list[dict[str, Any]]) -> bool:
        if not self._store.has_bucket(bucket):
            raise PolicyError(f"policy {name} names bucket {bucket}, which does not exist: make it first")
        policy = merged(self._store.bucket_policy(bucket), name, user, wanted)
        if policy is None:
            return False
        self._store.put_bucket_policy(bucket, policy)
        return True
