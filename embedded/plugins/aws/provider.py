"""The life of one resource in the stand-in's account. Plain Python; the protocol around it is in server.py."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded.home import LocalHome
from embedded.plugins.aws import LEDGER_VARIABLE
from embedded.plugins.aws.bridge import Bridge, EmbeddedBridge
from embedded.plugins.aws.faults import Faults
from embedded.plugins.aws.kinds import KINDS, Kind
from embedded.plugins.aws.ledger import AwsError, Ledger
from embedded.plugins.aws.lookups import LOOKUPS
from embedded.plugins.aws.service_model import problems
from embedded.plugins.marks import MARK, MARK_VALUE
from embedded.plugins.values import UNKNOWN, has_unknown, reveal
from mistral_on_l4.aws.replacements import REPLACED_BY

Values = dict[str, Any]
# The twenty minutes for which the official provider tries a delete again, in small (timeouts of aws_subnet and others: 20m).
PATIENCE_SECONDS = 4.0


class Refused(Exception):
    """The operation did not happen. One line for people."""


class InitFailed(Exception):
    """The resource exists in AWS, in the state of failure, so the stack's state must hold it."""

    def __init__(self, identifier: str, inputs: Values, reason: str) -> None:
        self.identifier, self.inputs, self.reason = identifier, inputs, reason
        super().__init__(reason)


@dataclass(frozen=True)
class Differences:
    """Inputs that changed, and those of them that make a new resource."""

    changed: list[str]
    replaces: list[str]


def ledger_path(home: LocalHome) -> Path:
    return Path(os.environ.get(LEDGER_VARIABLE) or home.root / "aws-account.json")


class Provider:
    """One account. Safe to call from many threads at once."""

    def __init__(self, home: LocalHome | None = None, bridge: Bridge | None = None, faults: Faults | None = None) -> None:
        self._home = home or LocalHome.default()
        self._given_bridge = bridge
        self._faults = faults or Faults.from_environment()
        self.cancelled = threading.Event()
        # Of this process's run of Pulumi, which has a provider of its own.
        self._run = secrets.token_hex(8)
        self.configure("us-east-1")

    def configure(self, region: str, default_tags: Mapping[str, str] | None = None) -> None:
        self._default_tags = dict(default_tags or {})
        self.ledger = Ledger(ledger_path(self._home), region, self._faults.switches)
        self._bridge = self._given_bridge or EmbeddedBridge(self._home, region)

    def invoke(self, token: str, args: Mapping[str, Any]) -> Values:
        """The answer of a lookup. Raises Refused."""
        if token not in LOOKUPS:
            raise Refused(f"the stand-in for pulumi-aws does not know the function {token}: rehearse without it, or use AWS")
        try:
            with self.ledger.open() as account:
                return LOOKUPS[token](account, reveal(dict(args)))
        except AwsError as error:
            raise Refused(str(error)) from None

    # -- check and diff ------------------------------------------------------------------------------------------------

    def check(self, token: str, old: Values, new: Values) -> tuple[Values, list[str]]:
        """(inputs with made-up names, what AWS would not take of them)."""
        kind = _kind(token)
        if foreign := sorted(set(new) - kind.known):
            return new, [
                f"the stand-in for pulumi-aws does not know {', '.join(foreign)} of {token}: it refuses what it cannot check"
            ]
        inputs = self._with_all_tags(kind, _with_name(kind, reveal(old), reveal(new)))
        try:
            return inputs, [problem for call in kind.calls(_as_sent(inputs)) for problem in problems(call)]
        except ValueError as error:
            return inputs, [str(error)]

    def _with_all_tags(self, kind: Kind, inputs: Values) -> Values:
        """With `tagsAll`, as the official provider adds them to what can have tags: its default ones, and over them the own."""
        if "tags" not in kind.known:
            return inputs
        own = inputs.get("tags") or {}
        return {**inputs, "tagsAll": UNKNOWN if has_unknown(own) else {**self._default_tags, **own}}

    def diff(self, token: str, state: Values, old: Values, new: Values) -> Differences:
        _refuse_foreign(state)
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key) and not key.startswith("__"))
        return Differences(changed, [key for key in changed if key in REPLACED_BY.get(token, ())])

    # -- create --------------------------------------------------------------------------------------------------------

    def create(self, token: str, urn: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        """(id, outputs). Raises Refused, or InitFailed if AWS would keep what failed."""
        kind, inputs = _kind(token), reveal(inputs)
        if preview:
            return "", {**inputs, **dict.fromkeys(kind.computed, UNKNOWN)}
        with self.ledger.open() as account:
            try:
                entry = kind.enter(account, _as_sent(inputs))
            except AwsError as error:
                self._refused(account, kind, urn, error)
            entry.data.setdefault("tags", dict(_as_sent(inputs).get("tags") or {}))
            account.note("create", entry, urn)
        self._faults.wait(self.cancelled)
        try:
            if self._faults.strikes("create", token):
                code, message = kind.fault
                raise AwsError(f"Create {kind.kind}", code, f"{message} (chosen to fail once, by the rehearsal)")
            with self.ledger.open() as account:
                entry = account.entries[entry.id]
                outputs = kind.settle(account, entry, _as_sent(inputs), self._bridge)
            kind.outside(entry, inputs, self._bridge)
        except AwsError as error:
            self._failed(kind, entry.id, urn, error)
            if kind.half_made_on_failure:
                raise InitFailed(entry.id, {**inputs, MARK: MARK_VALUE}, str(error)) from None
            raise Refused(str(error)) from None
        with self.ledger.open() as account:
            entry = account.entries[entry.id]
            entry.status = "ACTIVE"
            account.note("created", entry, urn)
        return entry.id, {**inputs, **outputs, MARK: MARK_VALUE}

    def _failed(self, kind: Kind, key: str, urn: str, error: AwsError) -> None:
        with self.ledger.open() as account:
            entry = account.entries[key]
            account.note("failed", entry, urn, str(error))
            if kind.half_made_on_failure:
                entry.status = "FAILED"
            else:
                kind.gone(account, entry)

    @staticmethod
    def _refused(account: Any, kind: Kind, urn: str, error: AwsError) -> None:
        account.journal.append({"deed": "refused", "kind": kind.kind, "id": "", "name": "", "urn": urn, "why": str(error)})
        raise Refused(str(error)) from None

    # -- read, update, delete ------------------------------------------------------------------------------------------

    def read(self, identifier: str, state: Values) -> bool:
        """Whether the resource is there."""
        _refuse_foreign(state)
        with self.ledger.open() as account:
            return identifier in account.entries

    def update(self, token: str, urn: str, identifier: str, state: Values, inputs: Values, preview: bool) -> Values:
        """Outputs afterwards. Raises Refused."""
        _refuse_foreign(state)
        kind, inputs = _kind(token), reveal(inputs)
        if preview:
            # What AWS has added to a nested input (a cluster's security group, in vpcConfig) stays known.
            known = {
                key: {**state[key], **value} for key, value in inputs.items() if isinstance(value, dict) and key in kind.computed
            }
            return {**state, **inputs, **known}
        with self.ledger.open() as account:
            entry = account.entries.get(identifier)
            if entry is None or entry.status != "ACTIVE":
                raise Refused(f"{identifier} is {entry.status if entry else 'gone'}: destroy it, or `pulumi up --replace` it")
            changed = kind.update(account, entry, _as_sent(inputs))
            account.note("update", entry, urn)
        kind.outside(entry, inputs, self._bridge)
        return {**state, **inputs, **changed}

    def delete(self, token: str, urn: str, identifier: str, state: Values) -> None:
        """Returns when it is gone. Raises Refused, as AWS does while something is still in it."""
        _refuse_foreign(state)
        kind = _kind(token)
        self._wait_for_what_goes_by_itself(kind, identifier)
        with self.ledger.open() as account:
            entry = account.entries.get(identifier)
            if entry is None:
                return
            if blockers := kind.blockers(account, entry):
                error = kind.refusal(entry, blockers)
                account.note("refused", entry, urn, str(error))
                for blocker in blockers:
                    blocker.data.setdefault("refused_in", self._run)
                raise Refused(str(error))
            account.note("delete", entry, urn)
            before, entry.status = entry.status, "DELETING"
        if self._faults.strikes("delete", token):
            with self.ledger.open() as account:
                account.entries[identifier].status = before
                error = AwsError(
                    f"Delete {kind.kind}",
                    "InternalFailure",
                    "an internal error has occurred (chosen to fail once, by the rehearsal)",
                )
                account.note("failed", account.entries[identifier], urn, str(error))
            raise Refused(str(error))
        kind.leave(entry, self._bridge)
        self._faults.wait(self.cancelled)
        with self.ledger.open() as account:
            entry = account.entries[identifier]
            account.note("deleted", entry, urn)
            kind.gone(account, entry)

    def _wait_for_what_goes_by_itself(self, kind: Kind, identifier: str) -> None:
        """The official provider asks again for as long as AWS refuses, twenty minutes at most. Here only where time can help.

        What has outlasted that once is gone when the next `pulumi destroy` asks.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self.ledger.open() as account:
            for late in [entry for entry in account.entries.values() if entry.data.get("refused_in", self._run) != self._run]:
                if "until" in late.data:
                    account.remove(late.id)
        while time.monotonic() < deadline and not self.cancelled.is_set():
            with self.ledger.open() as account:
                entry = account.entries.get(identifier)
                blockers = kind.blockers(account, entry) if entry is not None else ()
            if not blockers or not all("until" in blocker.data for blocker in blockers):
                return
            self.cancelled.wait(0.1)


def _kind(token: str) -> Kind:
    if token not in KINDS:
        raise Refused(f"the stand-in for pulumi-aws does not know {token}: it knows {', '.join(sorted(KINDS))}")
    return KINDS[token]


def _with_name(kind: Kind, old: Values, new: Values) -> Values:
    """Inputs with the name of before, as long as what it was made from is the same; with a new one otherwise."""
    named = kind.named(new)
    for key in set(named) - set(new):
        if key in old and old.get(f"{key}Prefix") == new.get(f"{key}Prefix"):
            named = {**named, key: old[key]}
    return named


def _as_sent(inputs: Values) -> Values:
    """Inputs as AWS gets them: with all tags as the resource's, and none where there are none."""
    sent = {key: value for key, value in inputs.items() if key not in ("tags", "tagsAll")}
    tags = inputs.get("tagsAll", inputs.get("tags"))
    return {**sent, "tags": tags} if tags or tags is UNKNOWN else sent


def _refuse_foreign(state: Mapping[str, Any]) -> None:
    """A state written by the official plugin names resources of a real account."""
    if state and state.get(MARK) != MARK_VALUE:
        raise Refused(
            "this stack was brought up with the official pulumi-aws plugin, and the stand-in does not go on with it: use the "
            "official plugin (unset PULUMI_HOME)"
        )
