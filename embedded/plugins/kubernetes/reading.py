"""The inputs that a live object stands for: for refresh those that were set before, for import all that say something.

As pulumi-kubernetes does, a refresh sees drift only in fields that the program set; what others set is theirs.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from embedded.plugins.values import UNKNOWN, Secret, reveal

_SERVER_METADATA = {
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
}
# What elements of a list of maps are told apart by, in the order tried.
_MERGE_KEYS = ("name", "mountPath", "devicePath", "containerPort", "port", "key", "ip", "type", "topologyKey")
# Below these keys a value is a quantity, which the server writes in a form of its own.
_QUANTITIES = {"resources", "limits", "requests", "capacity", "hard", "sizeLimit", "divisor", "overhead"}
_MISSING = object()


def imported(live: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs for an object that the program has not declared yet."""
    inputs = {key: value for key, value in live.items() if key not in ("status", "metadata")}
    meta = live.get("metadata") or {}
    inputs["metadata"] = {key: value for key, value in meta.items() if key not in _SERVER_METADATA}
    if inputs.get("kind") == "Secret":
        inputs |= {key: Secret(inputs[key]) for key in ("data", "stringData") if key in inputs}
    return inputs


def refreshed(live: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as the live object has them now; those that still hold come back unchanged, to the letter."""
    seen = dict(live)
    given = inputs.get("stringData")
    if seen.get("kind") == "Secret" and given is not None:
        data = seen.get("data") or {}
        text = {key: _text(data[key]) for key in (reveal(given) or {}) if key in data}
        seen["stringData"] = text
    kept = _pruned(dict(inputs), seen)
    return kept if isinstance(kept, dict) else dict(inputs)


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")


def _pruned(given: Any, live: Any, quantity: bool = False) -> Any:
    if isinstance(given, Secret):
        found = _pruned(given.value, live, quantity)
        return found if found is _MISSING else Secret(found)
    if live is _MISSING:
        return given if _means_nothing(given) else _MISSING
    if isinstance(given, dict) and isinstance(live, Mapping):
        pruned = {key: _pruned(value, live.get(key, _MISSING), quantity or key in _QUANTITIES) for key, value in given.items()}
        return {key: value for key, value in pruned.items() if value is not _MISSING}
    if isinstance(given, list) and isinstance(live, list):
        return _pruned_list(given, live)
    return given if given is UNKNOWN or same(given, live, quantity) else live


def _pruned_list(given: list[Any], live: list[Any]) -> list[Any]:
    plain = [reveal(item) for item in given]
    if not plain or not all(isinstance(item, dict) for item in plain):
        return given if plain == live else live
    key = next((key for key in _MERGE_KEYS if all(key in item for item in plain)), None)
    if key is None or len({str(item[key]) for item in plain}) < len(plain):
        paired = [_pruned(item, found) for item, found in zip(given, live, strict=False)]
    else:
        by_key = {str(item.get(key)): item for item in live if isinstance(item, Mapping)}
        paired = [_pruned(item, by_key.get(str(item_plain[key]), _MISSING)) for item, item_plain in zip(given, plain, strict=True)]
    return [item for item in paired if item is not _MISSING]


def _means_nothing(value: Any) -> bool:
    """Values that the API server does not keep: an empty map is as good as none."""
    value = reveal(value)
    return value is None or value in ({}, [], "", False) or (value == 0 and not isinstance(value, bool))


_QUANTITY = re.compile(r"^([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?$")
_SCALE = {
    **{"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")},
    **{suffix: Decimal(10) ** (3 * power) for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}


def same(given: Any, live: Any, quantity: bool = False) -> bool:
    """Whether the live value is the given one; as a quantity, 1000m is 1, 0.5 is 500m and 4 is "4"."""
    if isinstance(given, bool) or isinstance(live, bool):
        return given is live
    if given == live:
        return True
    if not quantity:
        return False
    first, second = _quantity(given), _quantity(live)
    return first is not None and first == second


def _quantity(value: Any) -> Decimal | None:
    match = _QUANTITY.match(str(value)) if isinstance(value, str | int | float) else None
    if match is None:
        return None
    number, suffix = match[1], match[2] or ""
    try:
        if suffix and suffix[0] in "eE" and len(suffix) > 1 and suffix != "Ei":
            return Decimal(number + suffix)
        return Decimal(number) * _SCALE.get(suffix, Decimal(1))
    except InvalidOperation:
        return None
