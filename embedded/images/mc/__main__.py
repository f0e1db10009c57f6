"""Runs as `mc ...`: the commands of the object store's setup script, with the real client's words, and nothing else."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from embedded.images.mc.policies import NoChange, Policies, PolicyError
from embedded.images.mc.store import Alias, Store, StoreError

_READY_SECONDS = 120.0
_HEALTH_PATH = "/minio/health/live"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
SUPPORTED = (
    "mc ready ALIAS",
    "mc mb [--ignore-existing] ALIAS/BUCKET",
    "mc admin policy create ALIAS NAME FILE",
    "mc admin policy attach ALIAS NAME --user KEY",
    "mc admin user add ALIAS (key and secret on two lines of standard input)",
)


class Failed(Exception):
    """The command ends with exit code 1. One line, without secrets."""


class Client:
    """The commands. environment holds MC_HOST_<alias> and MC_CONFIG_DIR."""

    def __init__(self, environment: Mapping[str, str], standard_input: TextIO) -> None:
        self._environment = environment
        self._input = standard_input
        self._folder = Path(environment.get("MC_CONFIG_DIR") or Path(environment.get("HOME", "/")) / ".mc")

    def run(self, words: Sequence[str]) -> str:
        """Does what the words say, returns what to print. Raises Failed."""
        self._save_configuration()
        match list(words):
            case ["ready", alias]:
                return self._ready(alias)
            case ["mb", target]:
                return self._make_bucket(target, ignore_existing=False)
            case ["mb", ("--ignore-existing" | "-p"), target] | ["mb", target, ("--ignore-existing" | "-p")]:
                return self._make_bucket(target, ignore_existing=True)
            case ["admin", "policy", "create", alias, name, file]:
                return self._create_policy(alias, name, Path(file))
            case ["admin", "policy", "attach", alias, name, "--user", user]:
                return self._attach(alias, name, user)
            case ["admin", "user", "add", alias]:
                return self._add_user(alias)
            case ["admin", "user", "add", _, _, *_]:
                raise Failed("not supported by the stand-in: user names and secrets as arguments; give them on standard input")
        raise Failed(f"not supported by the stand-in: mc {' '.join(words[:3])}; it knows: {'; '.join(SUPPORTED)}")

    def _save_configuration(self) -> None:
        """As the real one before every command; nothing reads it here."""
        file = self._folder / "config.json"
        if file.exists():
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.write_text('{"version": "10", "aliases": {}}\n')
        except OSError as error:
            raise Failed(f"Unable to save new mc config. open {file}: {(error.strerror or str(error)).lower()}") from error

    def _store(self, alias: str) -> Store:
        value = self._environment.get(f"MC_HOST_{alias}")
        if not value:
            raise Failed(f"alias {alias!r} is unknown: set MC_HOST_{alias} (the stand-in reads no config.json)")
        return Store(Alias.read(alias, value), self._folder / "certs" / "CAs")

    def _ready(self, alias: str) -> str:
        store = self._store(alias)
        deadline = time.monotonic() + _READY_SECONDS
        while not store.healthy(_HEALTH_PATH):
            if time.monotonic() > deadline:
                raise Failed(f"the cluster {alias!r} is not ready after {_READY_SECONDS:.0f} s: no answer at {_HEALTH_PATH}")
            time.sleep(0.25)
        return f"The cluster '{alias}' is ready"

    def _make_bucket(self, target: str, ignore_existing: bool) -> str:
        alias, _, bucket = target.partition("/")
        if not _BUCKET.fullmatch(bucket.rstrip("/")):
            raise Failed(f"Unable to make bucket `{target}`. Bucket name is not valid.")
        bucket = bucket.rstrip("/")
        store = self._store(alias)
        try:
            store.make_bucket(bucket)
        except StoreError as error:
            if not (ignore_existing and error.code in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")):
                raise Failed(f"Unable to make bucket `{target}`. {error}") from error
        return f"Bucket created successfully `{alias}/{bucket}`."

    def _create_policy(self, alias: str, name: str, file: Path) -> str:
        if not _NAME.fullmatch(name):
            raise Failed(f"policy name {name!r} is not supported by the stand-in: use letters, digits, - and _")
        try:
            text = file.read_text()
        except OSError as error:
            raise Failed(f"Unable to open policy file `{file}`: {error.strerror}") from error
        Policies(self._store(alias), self._policies(alias)).create(name, text)
        return f"Created policy `{name}` successfully."

    def _attach(self, alias: str, name: str, user: str) -> str:
        try:
            Policies(self._store(alias), self._policies(alias)).attach(name, user)
        except NoChange:
            raise Failed(
                "Unable to make user/group policy association. The specified policy change is already in effect. "
                "(Specified policy update has no net effect)."
            ) from None
        return f"Attached Policies: [{name}]\nTo User: {user}"

    def _policies(self, alias: str) -> Path:
        return self._folder / "stand-in-policies" / alias

    def _add_user(self, alias: str) -> str:
        key, secret = self._input.readline().strip(), self._input.readline().strip()
        if len(key) < 3 or len(secret) < 8:
            raise Failed(
                "Unable to add new user. Give an access key of 3 characters or more and a secret of 8 or more, a line each."
            )
        self._store(alias).set_user(key, secret)
        return f"Added user `{key}` successfully."


def main() -> int:
    try:
        print(Client(os.environ, sys.stdin).run(sys.argv[1:]), flush=True)
    except (Failed, PolicyError, StoreError) as error:
        print(f"mc: <ERROR> {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
