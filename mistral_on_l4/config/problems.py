"""What is wrong with a configuration, in the words and at the places of the file that it was written in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mistral_on_l4.config.defaults import DEFAULT_POOLS, DEFAULT_SERVICES, Entries
from mistral_on_l4.config.merging import incomplete
from mistral_on_l4.config.sections import Settings

Location = tuple[int | str, ...]
# Names of the entries of a map by the map's place, where the model has a tuple.
Names = Mapping[Location, Sequence[str]]

# The maps by name of the configuration, with their defaults.
MAPS: Mapping[Location, Entries] = {("services",): DEFAULT_SERVICES, ("pools", "groups"): DEFAULT_POOLS}

# What a value must look like in the file, for pydantic's words of Python's types.
_SHAPES = {"tuple_type": "a list", "model_type": "a section of keys", "dict_type": "a section of keys"}


class SettingsError(Exception):
    """The configuration cannot be used. `problems` holds one line each: where, what is wrong, what would work."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


def problems_of(error: ValidationError, names: Names, *, whole: bool = True) -> Iterator[str]:
    """One line per mistake that pydantic reports. whole: also those about the configuration as a whole."""
    lacking: dict[Location, list[str]] = {}
    for detail in error.errors():
        location: Location = detail["loc"]
        if not location and not whole:
            continue
        entry = location[:-1]
        if detail["type"] == "missing" and entry[:-1] in names:
            lacking.setdefault(entry, []).append(str(location[-1]))
            continue
        yield _line(detail, names)
    for entry, fields in lacking.items():
        name = _name(entry, names)
        yield f"{_where(entry, names)}: {incomplete(name, fields, MAPS[entry[:-1]])}"


def _line(detail: Any, names: Names) -> str:
    """One line of pydantic's error for a person: the key as written in the file, then what to do."""
    where = _where(detail["loc"], names)
    kind, message = detail["type"], detail["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = _keys_beside(detail["loc"], names)
        near = get_close_matches(str(detail["loc"][-1]), known, n=1)
        message = f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; known are {', '.join(known)}"
    elif kind == "missing":
        message = "is missing"
    elif kind == "string_type" and isinstance(detail["input"], (bool, int, float)):
        what = "true or false" if isinstance(detail["input"], bool) else "a number"
        message = f"is {what} without quotes, {str(detail['input']).lower()}: write it in quotes"
    elif kind in _SHAPES:
        message = f"should be {_SHAPES[kind]}, got {detail['input']!r}"
    elif kind not in ("value_error",):
        message = f"{message[0].lower()}{message[1:]}, got {detail['input']!r}"
    return f"{where}: {message}" if where else message


def _where(location: Location, names: Names) -> str:
    """A place as the file spells it: services.mistral-24b-fp8.pool, or services[1].pool in a list."""
    where = ""
    for depth, part in enumerate(location):
        # Branches of a union appear in pydantic's path; they are not keys of the file.
        if isinstance(part, str) and (
            part.startswith(("literal[", "function-", "constrained-")) or part in ("float", "str", "[key]")
        ):
            continue
        known = names.get(location[:depth])
        if isinstance(part, int) and known is not None:
            where += f".{known[part]}"
        elif isinstance(part, int):
            where += f"[{part}]"
        elif part == "name" and location[: depth - 1] in names:
            continue  # the entry's key, which is there already
        else:
            where += f".{part}" if where else part
    return where


def _name(entry: Location, names: Names) -> str:
    return names[entry[:-1]][int(entry[-1])]


def _keys_beside(location: Location, names: Names) -> list[str]:
    """The keys that the configuration knows at the place of an unknown one, as the file spells them."""
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        for field in model.model_fields.values():
            if part == field.alias:
                model = next(found for found in (field.annotation, *get_args(field.annotation)) if _is_section(found))
    keys = {str(field.alias) for field in model.model_fields.values()}
    return sorted(keys - {"name"} if location[:-2] in names else keys)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
