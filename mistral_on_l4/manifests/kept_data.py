"""Data of a stack that no commit brings back: where they lie, and which changes would lose them.

They lie on claims that carry a label with their key, `store` or `registry`. The program, the policies and the comment on a pull
request all judge here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from mistral_on_l4.config.names import DATA_LABEL, PROJECT, Kept

KEPT: tuple[Kept, ...] = get_args(Kept)

_WHAT: Mapping[str, str] = {"store": "the object store's data", "registry": "the registry's data"}
_COST: Mapping[str, str] = {
    "store": "the weights can be fetched again, anything else in the bucket cannot",
    "registry": "registered models and versions cannot be brought back",
}
# The component label of the StatefulSets whose own templates made the claims, in earlier releases.
_EARLIER: Mapping[str, Kept] = {"object-store": "store", "database": "registry"}
_CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
_STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True)
class Place:
    """A claim with data. storage_class: None where it is not known; size: as a Kubernetes quantity, "" where it is not known;
    earlier: an earlier release made it, in a way that this one cannot take over; name: of the claim, "" before it is made.
    """

    key: Kept
    namespace: str
    storage_class: str | None
    size: str
    name: str = ""
    earlier: bool = False

    @property
    def label(self) -> str:
        return f"claim {self.namespace}/{self.name}" if self.name else f"the claim in {self.namespace}"


def place_of(token: str, properties: Mapping[str, Any]) -> Place | None:
    """The place that a resource is; None if it keeps no data of the stack. properties: its inputs, or its outputs."""
    meta, spec = _section(properties, "metadata"), _section(properties, "spec")
    labels = _section(meta, "labels")
    if token == _CLAIM and (key := labels.get(DATA_LABEL)) in KEPT:
        return _place(key, meta, spec, str(meta.get("name") or ""))
    if token == _CLAIM and "app.kubernetes.io/part-of" in labels and str(meta.get("name")).endswith("-data"):
        return _place("registry", meta, spec, str(meta.get("name")), earlier=True)
    component = _EARLIER.get(str(labels.get("app.kubernetes.io/component")))
    templates = spec.get("volumeClaimTemplates")
    if token == _STATEFUL_SET and component and isinstance(templates, Sequence) and templates:
        return _place(component, meta, _section(templates[0], "spec"), f"data-{meta.get('name')}-0", earlier=True)
    return None


def why_lost(before: Place, after: Place | None) -> str | None:
    """What a change does to a place so that its data are lost, in words; None if they stay. after: None where it is gone."""
    if after is None:
        return "is no longer declared"
    if before.namespace != after.namespace:
        return f"moves from namespace {before.namespace} to {after.namespace}"
    if before.storage_class and after.storage_class and before.storage_class != after.storage_class:
        return f"moves from storage class {before.storage_class} to {after.storage_class}"
    if before.earlier and not after.earlier:
        return "was made by an earlier release, and is made in another way now"
    return f"shrinks from {before.size} to {after.size}" if shrinks(before, after) else None


def shrinks(before: Place, after: Place) -> bool:
    """Volumes grow in place and never shrink."""
    was, now = _bytes(before.size), _bytes(after.size)
    return was is not None and now is not None and now < was


def sentence(place: Place, why: str) -> str:
    """What would be lost, for people."""
    return f"{_WHAT[place.key]} would be lost: {place.label} {why} ({_COST[place.key]})"


def refusals(
    before: Iterable[Place], after: Mapping[Kept, Place], allowed: Iterable[str], cluster_moves: str | None = None
) -> list[str]:
    """One line for each place whose data a change would lose without leave. cluster_moves: why all that is in it would go."""
    given = list(allowed)
    lines: list[str] = []
    for place in before:
        why = cluster_moves or why_lost(place, after.get(place.key))
        if why and place.key not in given:
            position = len(given) + len(lines)
            allowing = f"pulumi config set --path '{PROJECT}:allowDataLoss[{position}]' {place.key}"
            lines.append(f"{sentence(place, why)}; undo the change, or allow it once with `{allowing}`")
    return lines


def _place(key: Kept, meta: Mapping[str, Any], claim: Mapping[str, Any], name: str, earlier: bool = False) -> Place:
    storage_class, size = claim.get("storageClassName"), _section(claim, "resources", "requests").get("storage")
    return Place(
        key,
        str(meta.get("namespace")),
        storage_class if isinstance(storage_class, str) else None,
        size if isinstance(size, str) else "",
        name,
        earlier,
    )


def _section(value: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _bytes(quantity: str) -> int | None:
    digits, factor = quantity[:-2], _UNITS.get(quantity[-2:])
    return int(digits) * factor if factor and digits.isdigit() else None
