"""Requests checked against AWS's own description of its API, which botocore carries: required, types, lengths, enums, patterns."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from embedded.plugins.values import UNKNOWN

# An API call: (service, operation, parameters). Parameters may hold UNKNOWN where a preview does not know them yet.
Call = tuple[str, str, Mapping[str, Any]]

_NUMBERS: dict[str, type | tuple[type, ...]] = {"integer": int, "long": int, "float": (int, float), "double": (int, float)}


@functools.cache
def _session() -> Any:
    import botocore.session

    return botocore.session.get_session()


@functools.cache
def _service(name: str) -> Any:
    return _session().get_service_model(name)


def load() -> None:
    """Reads the models of the services that the kinds use, which the first check would wait for."""
    for service in ("iam", "eks", "ec2"):
        _service(service).operation_names  # noqa: B018  (the model is read when something of it is asked)


def problems(call: Call) -> list[str]:
    """What AWS would not take of a call's parameters, one line each."""
    service, operation, parameters = call
    shape = _service(service).operation_model(operation).input_shape
    return [f"{operation}: {problem}" for problem in _problems(shape, parameters, "")]


def _problems(shape: Any, value: Any, path: str) -> Iterator[str]:
    if value is UNKNOWN:
        return
    where = path or "the request"
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, Mapping):
            yield f"{where} must be a structure, not {value!r}"
            return
        for name in shape.required_members:
            if value.get(name) is None:
                yield f"{f'{path}.{name}'.lstrip('.')} is required"
        for name, item in value.items():
            if name not in shape.members:
                known = ", ".join(sorted(shape.members))
                yield f"{where} has no member {name!r}; it has {known}"
            elif item is not None:
                yield from _problems(shape.members[name], item, f"{path}.{name}".lstrip("."))
    elif kind == "list":
        if not isinstance(value, list | tuple):
            yield f"{where} must be a list, not {value!r}"
            return
        yield from _size(shape, len(value), where, "elements")
        for index, item in enumerate(value):
            yield from _problems(shape.member, item, f"{path}[{index}]")
    elif kind == "map":
        if not isinstance(value, Mapping):
            yield f"{where} must be a map, not {value!r}"
            return
        yield from _size(shape, len(value), where, "entries")
        for key, item in value.items():
            yield from _problems(shape.key, key, f"{path} (a key)")
            yield from _problems(shape.value, item, f"{path}.{key}")
    elif kind in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, _NUMBERS[kind]):
            yield f"{where} must be a number, not {value!r}"
            return
        number: Any = value
        yield from _size(shape, number, where, "")
    elif kind == "boolean":
        if not isinstance(value, bool):
            yield f"{where} must be true or false, not {value!r}"
    elif kind == "string":
        yield from _text(shape, value, where)


def _text(shape: Any, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where} must be a text, not {value!r}"
        return
    if shape.enum and value not in shape.enum:
        yield f"{where} is {value!r}, and AWS knows {', '.join(shape.enum)}"
    yield from _size(shape, len(value), where, "characters")
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(_python(pattern), value):
        yield f"{where} is {value!r} and must match {pattern}"


def _size(shape: Any, size: float, where: str, unit: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    unit = f" {unit}".rstrip()
    if low is not None and size < low:
        yield f"{where} has {size}{unit}, and AWS wants at least {low}" if unit else f"{where} is {size}, at least {low} it must be"
    if high is not None and size > high:
        yield f"{where} has {size}{unit}, and AWS takes at most {high}" if unit else f"{where} is {size}, at most {high} it may be"


@functools.cache
def _python(pattern: str) -> str:
    """AWS's patterns are Java's; of what ours need, only these names of character classes differ."""
    for name, characters in (("\\p{L}", "a-zA-Z\u00c0-\u024f"), ("\\p{Z}", " "), ("\\p{N}", "0-9"), ("\\p{Alnum}", "a-zA-Z0-9")):
        pattern = pattern.replace(name, characters)
    return pattern
