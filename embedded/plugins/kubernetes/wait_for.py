"""The annotation pulumi.com/waitFor: what must hold of an object before the program goes on.

`jsonpath={.status.phase}`, `jsonpath={.status.phase}=Running`, `condition=Ready`, `condition=Ready=False`, or a JSON array of
these, all of which must hold. A condition counts only if its observedGeneration (or the status's) is the object's, where
the object carries one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Given the object: None when it holds, else what is still missing.
Missing = str | None


class BadCondition(ValueError):
    """A waitFor that cannot be understood, in one line."""


@dataclass(frozen=True)
class Expectation:
    """One thing that must hold. missing(object) says in words what is not so yet, or None."""

    text: str
    missing: Callable[[Mapping[str, Any]], Missing]


def parse(text: str) -> list[Expectation]:
    """The expectations of an annotation's value. Raises BadCondition."""
    text = text.strip()
    if not text.startswith("["):
        return [_expectation(text)]
    try:
        parts = json.loads(text)
    except ValueError as error:
        raise BadCondition(f"waitFor is not a JSON array: {error}") from None
    if not parts or not all(isinstance(part, str) for part in parts):
        raise BadCondition("waitFor must be a JSON array of one string or more")
    return [_expectation(part.strip()) for part in parts]


def _expectation(text: str) -> Expectation:
    how, _, rest = text.partition("=")
    if how == "condition" and rest:
        kind, _, status = rest.partition("=")
        return Expectation(text, _condition(kind, status or "True"))
    if how == "jsonpath" and rest.startswith("{"):
        expression, closing, tail = rest[1:].rpartition("}")
        if not closing or (tail and not tail.startswith("=")):
            raise BadCondition(f"waitFor {text!r} must look like jsonpath={{.status.phase}}=Running")
        return Expectation(text, _path(expression, tail[1:] if tail else None))
    raise BadCondition(f"waitFor {text!r} must start with jsonpath={{...}} or condition=...")


def _condition(kind: str, status: str) -> Callable[[Mapping[str, Any]], Missing]:
    def missing(obj: Mapping[str, Any]) -> Missing:
        found = next((c for c in _conditions(obj) if str(c.get("type", "")).lower() == kind.lower()), None)
        if found is None:
            return f"it has no condition {kind} yet"
        generation = obj.get("metadata", {}).get("generation")
        observed = found.get("observedGeneration", (obj.get("status") or {}).get("observedGeneration"))
        if observed is not None and generation is not None and int(observed) < int(generation):
            return f"condition {kind} is about generation {observed}, not yet {generation}"
        if str(found.get("status", "")).lower() == status.lower():
            return None
        why = ": ".join(str(found[key]) for key in ("reason", "message") if found.get(key))
        return f"condition {kind} is {found.get('status')}, not {status}" + (f" ({why})" if why else "")

    return missing


def _conditions(obj: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return (obj.get("status") or {}).get("conditions") or []


def _path(expression: str, wanted: str | None) -> Callable[[Mapping[str, Any]], Missing]:
    steps = _steps(expression)

    def missing(obj: Mapping[str, Any]) -> Missing:
        found = _select([obj], steps)
        if not found:
            return f"it has no {expression} yet"
        if wanted is None:
            return None
        if len(found) > 1:
            return f"{expression} gives {len(found)} values, and one is needed"
        text = found[0] if isinstance(found[0], str) else json.dumps(found[0])
        return None if text == wanted else f"{expression} is {text}, not {wanted}"

    return missing


# -- the part of JSONPath (RFC 9535, and kubectl's leading dot) that conditions are written in -----------------------------

_Step = Callable[[Any], list[Any]]
_NAME = re.compile(r"\.((?:[A-Za-z0-9_-]|\\.)+)")
_WILDCARD = re.compile(r"\.\*|\[\*\]")
_QUOTED = re.compile(r"""\[(?:'([^']*)'|"([^"]*)")\]""")
_INDEX = re.compile(r"\[(-?\d+)\]")
_FILTER = re.compile(
    r"""\[\?\(?\s*@((?:\.[A-Za-z0-9_-]+)+)\s*(==|!=)\s*(?:'([^']*)'|"([^"]*)"|(true|false|null|-?\d+(?:\.\d+)?))\s*\)?\]"""
)


def _steps(expression: str) -> list[_Step]:
    rest = expression.strip().removeprefix("$")
    if rest and rest[0] not in ".[":
        rest = "." + rest
    steps: list[_Step] = []
    while rest:
        if match := _WILDCARD.match(rest):
            steps.append(lambda value: list(value.values()) if isinstance(value, dict) else _listed(value))
        elif match := _FILTER.match(rest):
            steps.append(_filter(match))
        elif match := _NAME.match(rest):
            steps.append(_member(re.sub(r"\\(.)", r"\1", match[1])))
        elif match := _QUOTED.match(rest):
            steps.append(_member(match[1] if match[1] is not None else match[2]))
        elif match := _INDEX.match(rest):
            steps.append(_element(int(match[1])))
        else:
            raise BadCondition(f"JSONPath {expression!r} is not understood from {rest!r} on")
        rest = rest[match.end() :]
    return steps


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _member(name: str) -> _Step:
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _element(index: int) -> _Step:
    return lambda value: _listed(value)[index:][:1] if index >= 0 else _listed(value)[index : index + 1 or None]


def _filter(match: re.Match[str]) -> _Step:
    names, operator = match[1].strip(".").split("."), match[2]
    literal: Any = match[3] if match[3] is not None else match[4] if match[4] is not None else json.loads(match[5])
    inner = [_member(name) for name in names]

    def select(value: Any) -> list[Any]:
        items = value.values() if isinstance(value, dict) else _listed(value)
        return [item for item in items if (_select([item], inner) == [literal]) == (operator == "==")]

    return select


def _select(values: list[Any], steps: list[_Step]) -> list[Any]:
    for step in steps:
        values = [found for value in values for found in step(value)]
    return values
