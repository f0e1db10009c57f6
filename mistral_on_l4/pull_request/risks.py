"""What a reviewer must see before anything else: doors that open, rights that grow, weights and data that go, nodes that idle."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from mistral_on_l4.pull_request.events import Change, Preview
from mistral_on_l4.pull_request.plans import Plan

# Files that decide what the gates refuse, and whether they are asked at all.
_GATES = re.compile(r"^(policies/.*|\.github/.*|\.ci/.*|mistral_on_l4/pull_request/.*|bench/mutation/.*|[^/]*policy[^/]*\.json)$")
_WEIGHTS = "mistral-on-l4/weights"


def changed_gates(paths: Sequence[str]) -> list[str]:
    """Of the changed files those that judge the change, prose left out."""
    return sorted(path for path in paths if _GATES.match(path) and PurePosixPath(path).suffix != ".md")


def risks(preview: Preview, before: Plan, after: Plan) -> Iterator[str]:
    """One sentence for each, plain text."""
    for change in preview.changes:
        # A stack that does not exist yet opens what the program opens.
        if change.op in ("update", "replace") or (change.op == "create" and not preview.first):
            yield from _doors(change)
            yield from _rights(change)
        if change.op in ("update", "replace") and change.kept[0] != change.kept[1]:
            kept, now = change.kept
            yield f"{_label(change)}: {f'now outlives a destroy ({now})' if now else f'no longer kept by {kept}'}"
        if change.op in ("update", "replace") and _capacity(change.before) == "ON_DEMAND" and _capacity(change.after) == "SPOT":
            yield f"{_label(change)}: spot from now on: AWS takes its nodes back at two minutes' notice"
    yield from _weights(preview)
    idle, was = after.idle_usd_per_hour, before.idle_usd_per_hour
    if after.services and idle >= 0.005 and idle > was + 0.005 and after.usd("usd_per_hour") is not None:
        yield f"GPU nodes for ${idle:.2f} an hour would serve nothing"


def _doors(change: Change) -> Iterator[str]:
    if change.token.endswith(":NetworkPolicy"):
        old, new = (_peers(state) for state in (change.before, change.after))
        for peer in new:
            if peer not in old and (change.op != "create" or _is_wide(peer)):
                yield f"{_label(change)}: lets in {peer}"
    if change.token.endswith(":Service"):
        kind, was = _at(change.after, "spec", "type"), _at(change.before, "spec", "type")
        if kind in ("LoadBalancer", "NodePort") and kind != was:
            yield f"{_label(change)}: becomes a {kind}"
    cidrs, were = (_at(state, "vpcConfig", "publicAccessCidrs") or [] for state in (change.after, change.before))
    for cidr in cidrs if isinstance(cidrs, list) else ():
        if cidr not in were:
            yield f"{_label(change)}: the cluster's API lets in {cidr}"


def _peers(inputs: Mapping[str, Any]) -> list[str]:
    found = []
    for rule in _at(inputs, "spec", "ingress") or ():
        peers = rule.get("from") if isinstance(rule, Mapping) else None
        if not peers:
            found.append("everybody")
        for peer in peers or ():
            found.append(json.dumps(peer, sort_keys=True, ensure_ascii=True))
    return found


def _is_wide(peer: str) -> bool:
    return peer == "everybody" or "0.0.0.0/0" in peer or "::/0" in peer or '"namespaceSelector": {}' in peer


def _rights(change: Change) -> Iterator[str]:
    if "RolePolicyAttachment" in change.token or change.token.endswith(":PolicyAttachment"):
        arn = change.after.get("policyArn")
        if arn != change.before.get("policyArn") and isinstance(arn, str):
            yield f"{_label(change)}: attaches {arn.rpartition('/')[2] or arn}"
    if change.token.startswith("aws:iam/") and change.token.endswith(("RolePolicy", ":Policy")):
        yield f"{_label(change)}: an IAM policy of its own"
    cluster_role = change.token.startswith("kubernetes:") and change.token.endswith((":Role", ":ClusterRole"))
    if cluster_role and _changes(change, "rules"):
        yield f"{_label(change)}: its rights change"
    if change.token.endswith("Binding") and _changes(change, "subjects"):
        yield f"{_label(change)}: others are bound to it"
    if change.token == "aws:iam/role:Role" and _changes(change, "assumeRolePolicy"):
        yield f"{_label(change)}: others may take it on"


def _changes(change: Change, key: str) -> bool:
    return change.op != "create" and change.before.get(key) != change.after.get(key)


def _weights(preview: Preview) -> Iterator[str]:
    """A service that loads other weights than before, and what becomes of the old ones."""
    for change in preview.changes:
        if change.token.endswith(":InferenceService") and change.op in ("update", "replace"):
            was, now = (_at(state, "metadata", "annotations", _WEIGHTS) for state in (change.before, change.after))
            path, new_path = (
                _at(state, "spec", "predictor", "model", "storage", "path") for state in (change.before, change.after)
            )
            if isinstance(was, str) and isinstance(now, str) and was != now:
                where = f"the old weights below {path} are replaced" if path == new_path else f"the old ones stay below {path}"
                yield f"{_label(change)}: serves {now} in place of {was}; {where}"


def _capacity(inputs: Mapping[str, Any]) -> Any:
    return inputs.get("capacityType") or ("ON_DEMAND" if inputs else None)


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _label(change: Change) -> str:
    name = _at(change.after or change.before, "metadata", "name")
    return f"{change.token.rpartition(':')[2]} {name if isinstance(name, str) else change.name}"
