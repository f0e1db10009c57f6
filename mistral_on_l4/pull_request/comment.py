"""The comment itself: Markdown that a person reads in ten seconds, and the verdict that the check takes from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistral_on_l4.config.names import UP_STOPS
from mistral_on_l4.manifests.kept_data import place_of, sentence, why_lost
from mistral_on_l4.pull_request.differences import differences
from mistral_on_l4.pull_request.events import Change, PolicyFinding, Preview
from mistral_on_l4.pull_request.plans import Plan, loads
from mistral_on_l4.pull_request.redaction import redacted, visible
from mistral_on_l4.pull_request.risks import risks

# GitHub refuses a comment of more than 65,536 characters; bytes are counted here, so that no reading of "character" matters.
LIMIT_BYTES = 65_536
_ROOM_BYTES = 60_000
# preview.yml hands it on as --allow-data-loss; who may label is who may write, so no fork allows it to itself.
DATA_LOSS_LABEL = "allow-data-loss"
GATES_LABEL = "allow-gate-change"
_LISTED = (25, 10, 4, 1, 0)
_LONGEST_ERROR = 4_000

_AREAS = {
    "GPU nodes and cluster": (
        "mistral-on-l4:local:",
        "mistral-on-l4:eks:",
        "mistral-on-l4:aws:",
        "mistral-on-l4:openshift:",
        "mistral-on-l4:cluster:Charts",
        "mistral-on-l4:cluster:ImagePull",
    ),
    "Services": ("mistral-on-l4:serving:",),
    "Weights": ("mistral-on-l4:weights:",),
    "Object store": ("mistral-on-l4:storage:",),
    "Registry": ("mistral-on-l4:registry:",),
    "Namespaces": ("mistral-on-l4:cluster:Namespaces",),
    "Secrets": ("mistral-on-l4:secrets:",),
}
_OTHER = "Other"
_OPS = ("create", "import", "update", "replace", "delete")
# What may hold data that no commit brings back. A cluster, the network it lives in or a namespace takes all that is there along.
_KEEPS_DATA = re.compile(
    r":(PersistentVolumeClaim|PersistentVolume|Namespace|BucketV2|Bucket|Volume|FileSystem)$|^aws:(rds/|eks/cluster:|ec2/vpc:)"
)


@dataclass(frozen=True)
class Comment:
    """text: Markdown with the marker of its stack in the first line; blocked: why the check must fail, empty if it need not."""

    text: str
    blocked: tuple[str, ...]


def marker(stack: str) -> str:
    """The hidden line by which a stack's comment is found again, to be edited in place."""
    return f"<!-- mistral-on-l4 preview: {re.sub(r'[^A-Za-z0-9._-]', '-', stack)} -->"


@dataclass(frozen=True)
class Gates:
    """What the pull request changes of the gates themselves, and what the base's pack finds. allowed: by a maintainer's label."""

    changed: tuple[str, ...] = ()
    base_findings: tuple[PolicyFinding, ...] = ()
    allowed: bool = False

    def only_in_base(self, preview: Preview) -> list[PolicyFinding]:
        """Mandatory findings of the base's pack that the head's pack does not have."""
        known = {(finding.policy, finding.urn) for finding in preview.findings if finding.mandatory}
        return [found for found in self.base_findings if found.mandatory and (found.policy, found.urn) not in known]


def render(
    stack: str, preview: Preview, before: Plan, after: Plan, allow_data_loss: bool = False, gates: Gates | None = None
) -> Comment:
    """before, after: plans of base and head; a base without the stack has none. allow_data_loss: say it, but do not block."""
    gates = gates or Gates()
    losses = [change for change in preview.changes if loses_data(change)]
    blocked = tuple(_blocked(preview, after, [] if allow_data_loss else losses, gates))
    body = ""
    for listed in _LISTED:
        body = "\n\n".join(_sections(stack, preview, before, after, losses, blocked, listed, gates)) + "\n"
        if len(body.encode()) <= _ROOM_BYTES:
            break
    else:
        # Nothing more to shorten: thousands of findings or services. Cut at a line, and say so.
        cut = body.encode()[:_ROOM_BYTES].decode(errors="ignore").rpartition("\n")[0]
        body = f"{cut}\n\n(cut here: the whole is in the log of the check)\n"
    return Comment(f"{marker(stack)}\n{body}", blocked)


def loses_data(change: Change) -> bool:
    """As the program judges it where it knows the data; anything else that may hold data must neither go nor be replaced."""
    if change.op not in ("delete", "replace"):
        return _why_lost(change) is not None
    if change.token.endswith(":StatefulSet"):
        # The volumes of its own claims' templates go with it; others are claims in their own right.
        return bool(_at(change.before, "spec", "volumeClaimTemplates"))
    return _at(change.before, "persistentVolumeReclaimPolicy") != "Retain" and bool(_KEEPS_DATA.search(change.token))


def _why_lost(change: Change) -> str | None:
    """What a change does to data of the stack so that they are lost, in a sentence; None if it keeps them, or has none."""
    before = place_of(change.token, change.before)
    if before is None or change.op in ("create", "import"):
        return None
    why = why_lost(before, None if change.op == "delete" else place_of(change.token, change.after))
    if why is None and change.op == "replace":
        why = "is replaced"
    return None if why is None else sentence(before, why)


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _blocked(preview: Preview, after: Plan, losses: Sequence[Change], gates: Gates) -> Iterator[str]:
    for service in after.misfits:
        yield f"{service.get('name')} does not fit {service.get('gpus')}x {service.get('gpu')}"
    mandatory = [finding for finding in preview.findings if finding.mandatory]
    if mandatory:
        yield f"{_counted(len(mandatory), 'mandatory policy finding')}"
    if (others := gates.only_in_base(preview)) and not gates.allowed:
        yield f"the base's policies refuse what this pull request's let through ({_counted(len(others), 'finding')})"
    if losses:
        yield f"data would be lost: {', '.join(_label(change) for change in losses[:3])}{' …' if len(losses) > 3 else ''}"
    if after.problem:
        yield after.problem
    # A preview stops by itself on a misfit or a mandatory finding; then that is what is wrong, and not the stop.
    if preview.failed and not after.misfits and not mandatory:
        yield "the preview did not finish" if not preview.complete else "the preview failed"


def _sections(
    stack: str,
    preview: Preview,
    before: Plan,
    after: Plan,
    losses: Sequence[Change],
    blocked: Sequence[str],
    listed: int,
    gates: Gates,
) -> Iterator[str]:
    yield f"### `{_inline(stack)}`: {_headline(preview, before, after)}"
    if gates.changed:
        yield from _changed_gates(gates, preview, max(listed, 1))
    if blocked:
        yield f"**Blocked**: {_text('; '.join(blocked[:5]))}{_more(len(blocked) - 5)}."
    for warning in preview.warnings:
        if warning.startswith(UP_STOPS):
            yield f"**Before an up**: {_text(warning)}"
    yield from _misfits(after, max(listed, 3))
    if preview.errors and not (after.misfits and len(preview.errors) == 1):
        yield _errors(preview)
    if after.problem and not after.services:
        # A refused configuration: there is nothing to compare, and nothing is removed.
        yield from _policies(preview, listed)
        return
    if found := list(dict.fromkeys(risks(preview, before, after))):
        yield f"**Look at**: {'; '.join(map(_text, found[:10]))}{_more(len(found) - 10)}."
    yield _fit_table(before, after, listed)
    yield from _costs(before, after)
    if losses:
        lost = [_text(_why_lost(change) or "") or f"{change.op} {_label(change)}" for change in losses[:10]]
        yield (
            f"**Data at risk**: {'; '.join(lost)}{_more(len(losses) - 10)}. If that is meant, a maintainer's label "
            f"`{DATA_LOSS_LABEL}` on the pull request allows it here, and `allowDataLoss` in the stack file in the update."
        )
    yield from _resources(preview, listed)
    yield from _policies(preview, listed)


def _changed_gates(gates: Gates, preview: Preview, listed: int) -> Iterator[str]:
    names = ", ".join(f"`{_inline(path)}`" for path in gates.changed[:listed])
    others = gates.only_in_base(preview)
    judged = "The base's policies find nothing more." if not others else "The base's policies refuse it as well:"
    label = f" A maintainer's label `{GATES_LABEL}` allows that." if others and not gates.allowed else ""
    text = f"**This pull request changes what judges it**: {names}{_more(len(gates.changed) - listed)}. {judged}{label}"
    yield text + ("\n\n" + "\n".join(_findings(others, listed)) if others else "")


def _headline(preview: Preview, before: Plan, after: Plan) -> str:
    parts = []
    if preview.failed and not preview.changes:
        parts.append("no preview of resources")
    elif preview.incomparable:
        parts.append("no comparison of resources")
    elif preview.changes:
        parts.append(f"{_counted(len(preview.changes), 'resource')} {'change' if len(preview.changes) != 1 else 'changes'}")
    else:
        parts.append("no resource changes")
    if after.misfits:
        parts.append(f"**{_counted(len(after.misfits), 'service')} {'do' if len(after.misfits) > 1 else 'does'} not fit**")
    elif after.services:
        parts.append("every service fits" if len(after.services) > 1 else "the service fits")
    was, now = before.usd("usd_per_hour"), after.usd("usd_per_hour")
    if now is not None:
        parts.append(f"{_arrow(_usd(was), _usd(now))} an hour")
    elif was is not None and after.services:
        parts.append(f"{_usd(was)} → **unknown** an hour")
    return ", ".join(parts)


# -- fit, speed, cost --------------------------------------------------------------------------------------------------------


def _misfits(after: Plan, listed: int) -> Iterator[str]:
    for service in after.misfits[:listed]:
        lines = [
            f"**{_text(service.get('name'))}** does not fit {_text(service.get('gpus'))}x {_text(service.get('gpu'))}: "
            f"{_text(service.get('reason'))}"
        ]
        remedies = [remedy for remedy in service.get("remedies") or () if isinstance(remedy, Mapping)]
        if remedies:
            lines.append("Remedies:")
        for remedy in remedies[:5]:
            price = "price unknown" if remedy.get("usd_per_hour") is None else f"${remedy['usd_per_hour']:.2f}/h"
            speed = f"~{remedy['tpot_ms']:.0f} ms/token" if isinstance(remedy.get("tpot_ms"), (int, float)) else "speed unknown"
            lines.append(
                f"- {_text(remedy.get('change'))}: {speed}, {price}{'' if remedy.get('fits', True) else ' (does not fit)'}"
            )
        yield "\n".join(lines)


def _fit_table(before: Plan, after: Plan, listed: int) -> str:
    names = [*after.services, *(name for name in before.services if name not in after.services)]
    if not names:
        return f"_{_text(after.problem or 'The stack serves nothing.')}_"
    # Rows that change come first.
    names.sort(key=lambda name: before.services.get(name) == after.services.get(name))
    most = max(listed * 2, 5)
    rows = [
        "| service | fits | on | ms/token, 1 user | first token, 1 user | tokens/s, 10 users | $/h | ready in |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(name, before.services.get(name), after.services.get(name)) for name in names[:most]),
    ]
    text = "\n".join(rows)
    return text + (f"\n\n… and {_counted(len(names) - most, 'service')} more" if len(names) > most else "")


def _row(name: str, was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    if now is None:
        return f"| ~~{_text(name)}~~ | removed | {_text(_placed(was or {}))} | | | | {_usd_of(was or {})} → 0 | |"
    old = was or {}
    if not loads(now):
        return (
            f"| {_text(name)} | {_arrow(_fits(was), _fits(now))} | {_text(_placed(now))} | - | - | - | {_usd_of(now) or ''} | - |"
        )
    cells = [
        f"{_text(name)}{'' if was is not None else ' (new)'}",
        _arrow(_fits(was), _fits(now)),
        _arrow(_placed(old) if was else None, _placed(now)),
        _arrow(_speed(was), _speed(now)),
        _arrow(_figure(old, "ttft_ms", "1"), _figure(now, "ttft_ms", "1"), " ms"),
        _arrow(_figure(old, "output_tokens_per_s", "10"), _figure(now, "output_tokens_per_s", "10")),
        _arrow(_usd_of(old), _usd_of(now)),
        _arrow(_minutes(old), _minutes(now), " min"),
    ]
    return f"| {' | '.join(cells)} |"


def _fits(service: Mapping[str, Any] | None) -> str | None:
    if service is None:
        return None
    weights = service.get("weights_gib_per_gpu")
    held = f"{weights:.1f} GiB per GPU" if isinstance(weights, (int, float)) else ""
    if service.get("fits"):
        return f"yes, {held}".rstrip(", ")
    if loads(service):
        return f"with {service.get('cpu_offload_gib', 0):g} GiB offloaded"
    return "**no**"


def _placed(service: Mapping[str, Any]) -> str:
    place = f"{service.get('gpus')}x {service.get('gpu')}"
    return _text(f"{place} ({service['instance']})" if service.get("instance") else place)


def _speed(service: Mapping[str, Any] | None) -> str | None:
    """Milliseconds per token; said to be unmeasured where weights cross PCIe in every step."""
    if service is None:
        return None
    figure = _figure(service, "tpot_ms", "1")
    return f"~{figure}, unmeasured" if figure and service.get("cpu_offload_gib") and not service.get("fits") else figure


def _figure(service: Mapping[str, Any], key: str, users: str) -> str | None:
    values = service.get(key)
    value = values.get(users) if isinstance(values, Mapping) else None
    if not isinstance(value, (int, float)):
        return None
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _usd_of(service: Mapping[str, Any]) -> str | None:
    value = service.get("usd_per_hour")
    return _usd(float(value)) if isinstance(value, (int, float)) else None


def _minutes(service: Mapping[str, Any]) -> str | None:
    value = service.get("minutes_to_ready")
    return f"{value:.0f}" if isinstance(value, (int, float)) else None


def _costs(before: Plan, after: Plan) -> Iterator[str]:
    now = after.usd("usd_per_hour")
    was = before.usd("usd_per_hour")
    if now is None:
        if after.services:
            why = "the catalogue lacks a price of something here (`demo plan --live-prices` asks AWS)"
            yield f"**Cost**: {_arrow(_usd(was), 'unknown')}: {why}"
        return
    lines = [f"**Cost**: {_arrow(_usd(was), _usd(now))} an hour"]
    if was is not None and abs(now - was) >= 0.005:
        lines.append(f"{'+' if now > was else '-'}${abs(now - was) * 24:,.2f} a day")
    if fixed := after.usd("fixed_usd_per_hour"):
        lines.append(f"{_arrow(_usd(before.usd('fixed_usd_per_hour')), _usd(fixed))} of it without any GPU")
    if (idle := after.idle_usd_per_hour) >= 0.005:
        lines.append(f"{_usd(idle)} of it for GPU nodes that serve nothing")
    if up := after.usd("usd_per_up"):
        lines.append(f"{_arrow(_usd(before.usd('usd_per_up')), _usd(up))} per `up`")
    yield ", ".join(lines)


# -- resources ---------------------------------------------------------------------------------------------------------------


def _resources(preview: Preview, listed: int) -> Iterator[str]:
    if preview.incomparable:
        if not preview.failed:
            yield (
                "**Resources**: the base's own preview failed, so what changes, and whether data would be lost, is not known. "
                f"The head declares {_counted(len(preview.declared), 'resource')}."
            )
        return
    if not preview.changes:
        if not preview.failed:
            yield f"**Resources**: nothing changes ({_counted(preview.unchanged, 'resource')} as they are)."
        return
    counts = Counter(change.op for change in preview.changes)
    ops = [op for op in _OPS if counts[op]] + sorted(set(counts) - set(_OPS))
    total = ", ".join(f"{counts[op]:,} to {op}" for op in ops)
    unchanged = f"; {preview.unchanged:,} unchanged" if preview.unchanged else ""
    early = " The preview stopped early, so there may be more." if preview.stopped_early else ""
    # Objects in a cluster are replaced one by one; on AWS one thing is made from another's id.
    chained = preview.without_state and any(
        change.op == "replace" and change.token.startswith("aws:") for change in preview.changes
    )
    more = " Without a state, what AWS has replaced along with these is not known." if chained else ""
    lines = [f"**Resources**: {total}{unchanged}.{early}{more}", ""]
    areas: dict[str, list[Change]] = {}
    for change in preview.changes:
        areas.setdefault(_area(change), []).append(change)
    order = [*_AREAS, _OTHER]
    for area in sorted(areas, key=order.index):
        lines += _area_lines(area, areas[area], listed)
    text = "\n".join(lines)
    if preview.first and len(preview.changes) > 12:
        head, _, rest = text.partition("\n\n")
        title = "A stack that does not exist yet: everything is created"
        yield f"{head}\n\n<details><summary>{title}</summary>\n\n{rest}\n\n</details>"
    else:
        yield text


def _area_lines(area: str, changes: Sequence[Change], listed: int) -> Iterator[str]:
    yield f"- **{area}**"
    for op in dict.fromkeys((*_OPS, *(change.op for change in changes))):
        same = [change for change in changes if change.op == op]
        if op in ("update", "replace"):
            lines = list(_change_lines(op, same))
            yield from lines[:listed]
            if len(lines) > listed:
                yield f"  - {op} {_counted(len(lines) - listed, 'other') if listed else _by_kind(same, 0)}"
        elif same:
            yield f"  - {_text(op)} {_by_kind(same, min(listed, 8))}"


def _change_lines(op: str, changes: Sequence[Change]) -> Iterator[str]:
    """One line per change; one for all of those that change the same, such as a tag on everything."""
    alike: dict[tuple[str, ...], list[Change]] = {}
    for change in sorted(changes, key=lambda change: (_kind(change), _name(change))):
        alike.setdefault(tuple(differences(change)), []).append(change)
    for phrases, group in alike.items():
        shown = ", ".join(f"`{_inline(phrase)}`" for phrase in phrases[:4])
        what = f": {shown}{_more(len(phrases) - 4)}" if shown else ""
        if len(group) < 3:
            yield from (f"  - {op} {_label(change)}{what}" for change in group)
        else:
            yield f"  - {op} {_by_kind(group, 3)}{what}"


def _by_kind(changes: Sequence[Change], named: int) -> str:
    """`2 Job (a, b), 1 Secret`: however many there are, one phrase, and the same whatever order the engine took."""
    kinds: dict[str, list[str]] = {}
    for change in sorted(changes, key=lambda change: (_kind(change), _name(change))):
        kinds.setdefault(_kind(change), []).append(_name(change))
    phrases = []
    for kind, names in kinds.items():
        some = f" ({', '.join(f'`{_inline(name)}`' for name in names[:named])}{_more(len(names) - named)})" if named else ""
        phrases.append(f"{len(names):,} {_text(kind)}{some}")
    return ", ".join(phrases[:20]) + _more(len(phrases) - 20)


def _area(change: Change) -> str:
    for token in reversed((*change.parents, change.token)):
        for area, prefixes in _AREAS.items():
            if token.startswith(prefixes):
                return area
    return "GPU nodes and cluster" if change.token.startswith("aws:") else _OTHER


def _kind(change: Change) -> str:
    kind = change.token.rpartition(":")[2]
    return f"{change.token.split(':')[1]} provider" if change.token.startswith("pulumi:providers:") else kind


def _name(change: Change) -> str:
    meta = (change.after or change.before).get("metadata")
    name = meta.get("name") if isinstance(meta, Mapping) else None
    return redacted(name if isinstance(name, str) else change.name)


def _label(change: Change) -> str:
    return f"{_text(_kind(change))} `{_inline(_name(change))}`"


# -- policies and errors -----------------------------------------------------------------------------------------------------


def _policies(preview: Preview, listed: int) -> Iterator[str]:
    mandatory = [finding for finding in preview.findings if finding.mandatory]
    others = [finding for finding in preview.findings if not finding.mandatory]
    if mandatory:
        yield f"**Policies**: {_counted(len(mandatory), 'mandatory finding')}\n\n" + "\n".join(_findings(mandatory, listed))
    if others:
        title = f"{_counted(len(others), 'piece')} of advice from the policies"
        yield f"<details><summary>{title}</summary>\n\n" + "\n".join(_findings(others, listed)) + "\n\n</details>"


def _findings(findings: Sequence[PolicyFinding], listed: int) -> Iterator[str]:
    policies: dict[str, list[PolicyFinding]] = {}
    for finding in sorted(findings, key=lambda finding: finding.policy):
        policies.setdefault(finding.policy, []).append(finding)
    for policy, group in policies.items():
        severity = f" ({_text(group[0].severity)})" if group[0].severity else ""
        what = [finding.text.partition(". Fix: ") for finding in group]
        fixes = dict.fromkeys(fix for _, _, fix in what if fix)
        texts = sorted({text for text, _, _ in what})
        most = max(listed, 1)
        yield f"- **{_text(policy)}**{severity}: {'; '.join(_text(text) for text in texts[:most])}{_more(len(texts) - most)}"
        if group[0].why and group[0].why != group[0].text:
            yield f"  - why: {_text(group[0].why)}"
        for fix in list(fixes)[:2]:
            yield f"  - fix: {_text(fix)}"


def _errors(preview: Preview) -> str:
    reasons = [_without_traceback(error) for error in preview.errors]
    text = _fenced("\n\n".join(reasons))
    if reasons != list(preview.errors):
        text += f"\n\n<details><summary>With its traceback</summary>\n\n{_fenced(chr(10).join(preview.errors))}\n\n</details>"
    return f"**The preview {'failed' if preview.complete else 'did not finish'}**\n\n{text}"


def _without_traceback(error: str) -> str:
    """What a person needs of Python's traceback: its last lines, from the exception's name on."""
    if "Traceback (most recent call last):" not in error:
        return error
    lines = error.rstrip().splitlines()
    last = max(index for index, line in enumerate(lines) if line.startswith(("  ", "Traceback")))
    return "\n".join(lines[last + 1 :]) or error


def _fenced(text: str) -> str:
    if len(text) > _LONGEST_ERROR:
        # The last lines of an error say what went wrong, the first ones where.
        left_out = f"[... {len(text) - _LONGEST_ERROR:,} characters ...]"
        text = f"{text[: _LONGEST_ERROR // 4].rstrip()}\n{left_out}\n{text[-_LONGEST_ERROR * 3 // 4 :].lstrip()}"
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


# -- small words -------------------------------------------------------------------------------------------------------------


def _arrow(was: str | None, now: str | None, unit: str = "") -> str:
    """`before → after`, or one of them where nothing changes or there was nothing before."""
    if now is None:
        return "" if was is None else f"{was}{unit} → ?"
    return f"{now}{unit}" if was is None or was == now else f"{was} → {now}{unit}"


def _usd(value: float | None) -> str | None:
    return None if value is None else f"${value:,.2f}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""


def _text(value: Any) -> str:
    """Text inside Markdown: redacted, on one line, without markup, mentions or table bars of its own."""
    text = visible(redacted(" ".join(str(value).split())))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("](", "]\\(")
    text = re.sub(r"\*|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
    # A zero-width space keeps "@name" and "#12" from notifying people and linking issues.
    return re.sub(r"(?<![\w/.:])([@#])(?=\w)(?!sha256:)", "\\1\u200b", text)


def _inline(text: str) -> str:
    """Text inside backticks."""
    return visible(" ".join(redacted(text).split())).replace("`", "'").replace("|", "\\|")
