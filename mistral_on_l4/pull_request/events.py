"""What the engine says during a preview, read from its event stream.

`pulumi preview --event-log FILE` writes one JSON object per line (github.com/pulumi/pulumi sdk/go/common/apitype/events.go,
3.259); `PULUMI_ENABLE_STREAMING_JSON_PREVIEW=true pulumi preview --json` writes the same to its standard output. Plain `--json`
would drop what policies say. Unknown kinds of events and of operations are skipped or kept by name: newer engines add some.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mistral_on_l4.manifests.metadata import KEYS_ANNOTATION
from mistral_on_l4.pull_request.redaction import redacted
from mistral_on_l4.pull_request.replacements import moved_by, needs_a_new_object

# The engine's operations (sdk/go/common/apitype/core.go, OpType) by what a person calls them; the rest changes nothing.
_OPERATIONS = {
    "create": "create",
    "import": "import",
    "update": "update",
    "delete": "delete",
    "replace": "replace",
    "create-replacement": "replace",
    "delete-replaced": "replace",
    "import-replacement": "replace",
    "discard": "delete",
    "discard-replaced": "replace",
}
_QUIET = frozenset({"same", "read", "read-replacement", "refresh", "read-discard", "discard-read", "remove-pending-replace"})
# What the engine adds to a failure that something else has explained.
_SAID_ALREADY = frozenset({"preview failed", "update failed"})
# Endings of names: AWS's resources with a prefix take a time and a counter, Pulumi's autonaming seven hexadecimal digits,
# Kubernetes' provider's eight.
_DRAWN_BY_TIME = re.compile(r"(?<=-)20\d{12}[0-9a-f]{8,14}$")
_DRAWN_AT_RANDOM = re.compile(r"-[0-9a-f]{7,8}$")
_COLORS = re.compile(r"<\{%[^%]*%\}>|\x1b\[[0-9;]*[mK]")


class EventsError(Exception):
    """The file is no event stream. One line, for people."""


@dataclass(frozen=True)
class Change:
    """A resource that a preview would touch. op: create, import, update, delete, replace, or the engine's own unknown word.

    before, after: its inputs, {} where it is not; paths: what the engine calls changed, for inputs that it hides; provider: its
    provider's URN; kept: how it outlives a destroy before and after, in the option's name, "" if it does not.
    """

    op: str
    urn: str
    token: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    provider: str = ""
    kept: tuple[str, str] = ("", "")

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2] or self.urn

    @property
    def parents(self) -> tuple[str, ...]:
        """Type tokens of the components around it, outermost first."""
        parts = self.urn.split("::")
        return tuple(parts[2].split("$")[:-1]) if len(parts) > 3 else ()


@dataclass(frozen=True)
class PolicyFinding:
    """A violation. level: mandatory, advisory or a word of a newer engine; text: what and how to fix; why: the rule's reason."""

    policy: str
    level: str
    severity: str
    urn: str
    why: str
    text: str

    @property
    def mandatory(self) -> bool:
        return self.level == "mandatory"


@dataclass(frozen=True)
class Preview:
    """complete: whether the engine came to its end; failed: whether it ended badly; errors: its error texts, redacted.

    without_state: whether the changes are differences from the base's declarations; incomparable: whether even those are unknown,
    since the base's own preview did not come to its end.
    """

    changes: tuple[Change, ...] = ()
    findings: tuple[PolicyFinding, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    complete: bool = False
    failed: bool = False
    seconds: int = 0
    unchanged: int = 0
    declared: Mapping[str, Change] = field(default_factory=dict)
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    without_state: bool = False
    incomparable: bool = False

    @property
    def first(self) -> bool:
        """Whether there was no stack before: everything is created."""
        return self.unchanged == 0 and bool(self.changes) and all(change.op == "create" for change in self.changes)

    @property
    def stopped_early(self) -> bool:
        """Whether resources may be missing: mandatory findings alone are reported after the whole program has run."""
        return self.failed and (not self.complete or bool(self.errors) or not any(finding.mandatory for finding in self.findings))


def read_events(path: Path) -> Preview:
    """Raises EventsError when the file is missing or holds no event at all."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise EventsError(f"cannot read the event stream {path}: {error.strerror}") from None
    # Not splitlines: JSON leaves separators in texts that are no ends of lines, such as U+0085.
    events = list(_events(text.split("\n")))
    if text.strip() and not events:
        raise EventsError(f"{path} holds no events of the engine: write it with `pulumi preview --event-log {path.name}`")
    return preview_of(events)


def _events(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            # A preview that was killed leaves half a line; a stream on standard output has other people's lines in it.
            continue
        if isinstance(event, dict) and "sequence" in event:
            yield event


def preview_of(events: Iterable[Mapping[str, Any]]) -> Preview:
    """Builds a Preview from decoded events, in any order of resources."""
    changes: dict[str, Change] = {}
    declared: dict[str, Change] = {}
    providers: dict[str, Mapping[str, Any]] = {}
    findings: dict[tuple[str, str, str], PolicyFinding] = {}
    errors: dict[str, None] = {}
    warnings: dict[str, None] = {}
    complete = failed = False
    seconds = unchanged = 0
    for event in events:
        if step := (event.get("resourcePreEvent") or {}).get("metadata"):
            unchanged += _take(step, changes, declared)
            if str(step.get("type")).startswith("pulumi:providers:"):
                providers[str(step.get("urn"))] = (step.get("new") or {}).get("inputs") or {}
        elif policy := event.get("policyEvent"):
            finding = _finding(policy)
            findings[finding.policy, finding.urn, finding.text] = finding
        elif diagnostic := event.get("diagnosticEvent"):
            text = redacted(plain_text(diagnostic.get("message", "")))
            # Ephemeral lines are progress; the rest of a traceback comes as "info#err".
            if text and text not in _SAID_ALREADY and not diagnostic.get("ephemeral"):
                if diagnostic.get("severity") == "error":
                    errors[text] = None
                elif diagnostic.get("severity") == "warning":
                    warnings[text] = None
        elif failure := event.get("resOpFailedEvent"):
            failed = True
            errors.setdefault(f"{(failure.get('metadata') or {}).get('urn', '').rpartition('::')[2]}: the operation failed")
        elif broken := event.get("errorEvent"):
            failed = True
            errors[redacted(plain_text(broken.get("error", "")))] = None
        elif (summary := event.get("summaryEvent")) is not None:
            complete, seconds = True, int(summary.get("durationSeconds") or 0)
            failed = failed or summary.get("result") in ("failed", "canceled")
    return Preview(
        tuple(changes.values()),
        tuple(findings.values()),
        tuple(errors),
        tuple(warnings),
        complete,
        failed or bool(errors) or not complete,
        seconds,
        unchanged,
        declared,
        providers,
    )


def _take(step: Mapping[str, Any], changes: dict[str, Change], declared: dict[str, Change]) -> int:
    """Adds a step's change; returns 1 for a resource that stays as it is."""
    op, token, urn = str(step.get("op")), str(step.get("type")), str(step.get("urn"))
    old, new = step.get("old") or {}, step.get("new") or {}
    # The stack itself and components are only names for what is inside them; `custom` is left out where it is false.
    if token == "pulumi:pulumi:Stack" or not (new or old).get("custom"):
        return 0
    provider_urn = str((new or old).get("provider") or "").rpartition("::")[0]
    before, after = old.get("inputs") or {}, new.get("inputs") or {}
    change = Change(_OPERATIONS.get(op, op), urn, token, before, after, tuple(_paths(step)), provider_urn, (_kept(old), _kept(new)))
    provider = token.startswith("pulumi:providers:")
    if new and not provider and (op == "same" or op not in _QUIET) and _OPERATIONS.get(op) != "delete" and op != "delete-replaced":
        declared[urn] = change
    if op in _QUIET and not (op == "same" and change.kept[0] != change.kept[1]):
        return int(op == "same" and not provider)
    if op == "same":
        # The options changed, and nothing else.
        change = replace(change, op="update")
    if provider and op == "create":
        return 0
    known = changes.get(urn)
    if known is None:
        changes[urn] = change
    elif "replace" in (known.op, change.op) or {known.op, change.op} == {"create", "delete"}:
        # A replacement comes as three steps, each with a part of the picture.
        changes[urn] = replace(
            known,
            op="replace",
            before=known.before or change.before,
            after=known.after or change.after,
            paths=known.paths or change.paths,
        )
    return 0


def _kept(state: Mapping[str, Any]) -> str:
    """The options by which a resource outlives a destroy, or stops it."""
    return " and ".join(option for option in ("protect", "retainOnDelete") if state.get(option))


def _paths(step: Mapping[str, Any]) -> Iterator[str]:
    yield from sorted(step.get("detailedDiff") or {}) or sorted(step.get("diffs") or [])


def _finding(policy: Mapping[str, Any]) -> PolicyFinding:
    why, _, text = plain_text(policy.get("message", "")).partition("\n")
    return PolicyFinding(
        str(policy.get("policyName")),
        str(policy.get("enforcementLevel")),
        str(policy.get("severity") or ""),
        str(policy.get("resourceUrn") or ""),
        redacted(why.strip()),
        redacted((text or why).strip()),
    )


def _without_drawn_names(value: Any, key: str = "") -> Any:
    """Inputs with `*` for what is generated again where no state keeps it: it would differ in every preview."""
    if isinstance(value, Mapping):
        return {name: _without_drawn_names(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_drawn_names(item, key) for item in value]
    if isinstance(value, str):
        # A mark of passwords, which are drawn where no state keeps them.
        if key == KEYS_ANNOTATION:
            return "*"
        value = _DRAWN_BY_TIME.sub("*", value)
        return _DRAWN_AT_RANDOM.sub("-*", value) if key.lower().endswith("name") else value
    return value


def plain_text(text: str) -> str:
    """Without the engine's colour directives and terminal codes."""
    return _COLORS.sub("", text).strip()


def between(before: Preview, after: Preview) -> Preview:
    """`after`, with its changes taken against what `before` declared instead of against a state.

    Without credentials there is no state, and every preview creates everything; what base and head declare still differs by
    exactly what the pull request changes. A base that stopped early declared less than it has, and nothing can be said.
    """
    if before.stopped_early:
        return replace(after, changes=(), incomparable=True)
    changes = []
    for urn, change in after.declared.items():
        old = before.declared.get(urn)
        if old is None:
            changes.append(replace(change, op="create", before={}))
            continue
        was, now = _without_drawn_names(old.after), _without_drawn_names(change.after)
        maker, provider = before.providers.get(old.provider, {}), after.providers.get(change.provider, {})
        if place := moved_by(maker, provider):
            was, now = {**was, place: maker[place]}, {**now, place: provider[place]}
            changes.append(replace(change, op="replace", before=was, after=now, paths=()))
        elif was != now or old.kept[1] != change.kept[1]:
            kept = (old.kept[1], change.kept[1])
            replaced = needs_a_new_object(change.token, was, now, provider)
            op = "replace" if replaced else "update"
            changes.append(replace(change, op=op, before=was, after=now, paths=(), kept=kept))
    for urn, old in before.declared.items():
        if urn not in after.declared:
            changes.append(replace(old, op="delete", before=old.after, after={}))
    # An aborted preview declares less than the program would: what is missing from it is not deleted.
    if after.stopped_early:
        changes = [change for change in changes if change.op != "delete"]
    unchanged = len(after.declared) - sum(change.op != "delete" for change in changes)
    return replace(after, changes=tuple(changes), unchanged=unchanged, without_state=True)
