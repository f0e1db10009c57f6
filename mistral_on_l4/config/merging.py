"""Maps by name in a stack file, merged over the defaults: `services` and `pools.groups`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mistral_on_l4.config.defaults import Entries


@dataclass(frozen=True)
class Merged:
    """The entries of a map as the model takes them.

    entries: a mapping each, with its name; names: of the entries, by which mistakes are located, None where the file has a list;
    problems, deprecations: one line each.
    """

    entries: Any
    names: Sequence[str] | None = None
    problems: Sequence[str] = ()
    deprecations: Sequence[str] = ()


def merged(where: str, given: Any, defaults: Entries) -> Merged:
    """The defaults with what the file says about them, in their order, then the file's own entries in its order.

    where: path of the map in the file. A null takes a default away. A list, which earlier releases read, replaces the defaults.
    """
    if isinstance(given, list):
        example = next(iter(defaults))
        text = (
            f"{where}: a list is read for the last time in this release, and replaces the defaults; write a map by name, which is "
            f"merged over them (`pulumi config set --path 'mistral-on-l4:{where}.{example}.KEY' VALUE`)"
        )
        return Merged(given, deprecations=[text])
    if not isinstance(given, Mapping):
        return Merged([], problems=[f"{where}: should be a map by name, got {given!r}"])
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    changes = {str(name): change for name, change in given.items()}
    for name in dict.fromkeys((*defaults, *changes)):
        change = changes.get(name, {})
        if change is None and name in defaults:
            continue
        if problem := _problem(name, change, defaults):
            problems.append(f"{where}.{name}: {problem}")
        else:
            entries.append({**_over(defaults.get(name, {}), change), "name": name})
    return Merged(entries, [entry["name"] for entry in entries], problems)


def _problem(name: str, change: Any, defaults: Entries) -> str | None:
    """What is wrong with an entry as a whole."""
    if change is None:
        near = get_close_matches(name, defaults, n=1)
        return f"null takes a default away, and the defaults are {', '.join(defaults)}" + _perhaps(near)
    if not isinstance(change, Mapping):
        return f"should be a section of keys, got {change!r}"
    if "name" in change:
        return "the name is the key of the map: leave 'name' out"
    return None


def incomplete(name: str, lacking: Sequence[str], defaults: Entries) -> str:
    """The line for an entry that is no default and lacks fields: perhaps a new one, perhaps a default's name misspelt."""
    near = get_close_matches(name, defaults, n=1)
    return f"is a new entry, and needs {', '.join(lacking)}" + _perhaps(near)


def _perhaps(near: list[str]) -> str:
    return f"; did you mean {near[0]!r}?" if near else ""


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with every field that `above` gives; sections are merged alike, lists and plain values are replaced."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = _over(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return result
