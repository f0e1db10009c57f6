"""A resource's inputs as plain data, with what a preview cannot know yet marked as such.

pulumi_policy raises when a policy touches an unknown value, and the whole policy is then skipped for that resource. Here an
unknown is a value like others: a rule says nothing about it and still judges everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pulumi_policy import deserialize
from pulumi_policy.proxy import UnknownValueError


class _Unknown:
    """Known only after `pulumi up`."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        return False


UNKNOWN: Final = _Unknown()


class SecretText(str):
    """A text that Pulumi keeps encrypted. seen: whether this run has shown any, as the engine does and older recordings do not."""

    seen = False

    __slots__ = ()


def _keep_marks() -> None:
    """Lets texts keep Pulumi's mark of a secret: pulumi_policy 1.21 takes it off, except for remediations."""
    original = deserialize._deserialize_property

    def marking(prop: Any, proxy_secrets: bool = False) -> Any:
        value = original(prop, proxy_secrets)
        secret = isinstance(prop, dict) and prop.get(deserialize.SPECIAL_SIG_KEY) == deserialize.SPECIAL_SECRET_SIG
        return _marked(value) if secret and not proxy_secrets else value

    deserialize._deserialize_property = marking


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        SecretText.seen = True
        return SecretText(value)
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    return [_marked(item) for item in value] if isinstance(value, list) else value


_keep_marks()


def plain(value: Any) -> Any:
    """Dicts and lists in place of pulumi_policy's proxies, unknowns as UNKNOWN, whole floats as ints (the wire has no ints)."""
    if isinstance(value, Mapping):
        return {key: _item(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_item(value, index) for index in range(len(value))]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _item(container: Any, key: Any) -> Any:
    try:
        return plain(container[key])
    except UnknownValueError:
        return UNKNOWN


def at(value: Any, *path: str | int) -> Any:
    """What lies at a path: None if nothing does, UNKNOWN if the path leads through something unknown."""
    for step in path:
        if value is UNKNOWN:
            return UNKNOWN
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def mapping(value: Any, *path: str | int) -> Mapping[str, Any]:
    """The mapping at a path, or an empty one."""
    found = at(value, *path)
    return found if isinstance(found, Mapping) else {}


def items(value: Any, *path: str | int) -> list[Any]:
    """The list at a path, or an empty one; a single value counts as a list of it, as Pulumi writes some of AWS's blocks."""
    found = at(value, *path)
    if found is None or found is UNKNOWN:
        return []
    return list(found) if isinstance(found, list) else [found]


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every string below a value."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, f"{path}[{index}]")
