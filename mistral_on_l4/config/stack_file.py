"""Reads a Pulumi.<stack>.yaml as Pulumi does, which is neither YAML 1.1 nor quite 1.2, or says why Pulumi would not.

Pulumi decodes with gopkg.in/yaml.v3: `off` and `yes` are text, 0123 is octal, 1.30 is 1.3, a date becomes a time. A plain value
reaches the program as text, an object as JSON. A key without a namespace is the project's. Where Pulumi reads on in silence but
cannot be meant (a second document, a key both with and without namespace, a tag), this refuses.
Sources: sdk/go/common/workspace/loaders.go and sdk/go/common/resource/config of pulumi/pulumi; resolve.go of go-yaml/yaml v3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.problems import SettingsError

# Bound the time: a stack has a few hundred values. Pulumi's own bound is a ratio of aliases to nodes, about as many for a bomb.
MOST_VALUES = 200_000
_MOST_ALIASED = 100_000
_MOST_DEPTH = 1_000

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOM = b"\xef\xbb\xbf"
_STR_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[oO]([0-7]+)|0[bB]([01]+)|0([0-7]+)|(0|[1-9][0-9]*))")
_TIME = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:(?:[Tt](\d{1,2}):(\d{1,2}):(\d{1,2})(\.\d+)?(Z|[-+]\d\d:\d\d))|(?: (\d{1,2}):(\d{1,2}):(\d{1,2})(\.\d+)?))?"
)


@dataclass(frozen=True)
class StackFile:
    """config: by key with its namespace, a plain value as the text that a program gets; rest: what else the file holds."""

    config: dict[str, Any]
    rest: dict[str, Any]


class _Refused(Exception):
    """One sentence, without the file's name."""


def read_stack_file(path: Path) -> StackFile:
    """Raises SettingsError, OSError."""
    return parse_stack_file(path.read_bytes(), path.name)


def parse_stack_file(data: bytes, source: str) -> StackFile:
    """source: the file's name in errors. Raises SettingsError."""
    try:
        document = _document(data.removeprefix(_BOM).decode())
        if document is None:
            return StackFile({}, {})
        if not isinstance(document, dict):
            raise _Refused(f"holds no keys under 'config:', but {str(document)[:40]!r}")
        if document.get("environment"):
            raise _Refused("environment: names Pulumi ESC environments, whose values are not read here: write them under config:")
        config = document.pop("config", None)
        if config is None:
            config = {}
        if not isinstance(config, dict):
            raise _Refused(f"holds no keys under 'config:', but {str(config)[:40]!r}")
        return StackFile(_namespaced(config), document)
    except _Refused as refused:
        raise SettingsError(source, [str(refused)]) from None
    except UnicodeDecodeError as error:
        raise SettingsError(source, [f"cannot be read: is not text in UTF-8 (byte {error.start})"]) from None
    except yaml.YAMLError as error:
        raise SettingsError(source, [f"is not YAML: {_said(error)}"]) from None


def _said(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + (getattr(error, "problem", None) or str(error).splitlines()[0])


def _namespaced(config: Mapping[str, Any]) -> dict[str, Any]:
    keys: dict[str, str] = {}
    found: dict[str, Any] = {}
    for written, value in config.items():
        if isinstance(written, _Unquoted):
            raise _Refused(f"{str(written)!r} is no key: write it in quotes")
        key = written if ":" in written else f"{PROJECT}:{written}"
        parts = key.split(":")
        # What Pulumi once demanded, and still reads.
        if len(parts) == 3 and parts[1] == "config":
            key = f"{parts[0]}:{parts[2]}"
        elif len(parts) != 2:
            raise _Refused(f"{written!r} is no key: Pulumi reads <namespace>:<name>")
        if key in found:
            raise _Refused(f"{keys[key]!r} and {written!r} are one key, and Pulumi takes either: leave one of them")
        keys[key], found[key] = written, _as_text(value)
    return found


def _as_text(value: Any) -> Any:
    """What a program gets of a key's value: text, unless it is a list or map."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _go_float(value)
    return str(value) if isinstance(value, int) else value


def _go_float(value: float) -> str:
    """As Go's encoding/json writes it."""
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.removesuffix(".0") if text.endswith(".0") else text
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{exponent[0]}{exponent[1:].lstrip('0')}"


# -- YAML ----------------------------------------------------------------------------------------------------------------


@dataclass
class _Frame:
    """A collection that is being read. count: nodes in it with aliases expanded; key: of a map, the one whose value comes."""

    value: Any
    anchor: str | None
    line: int
    count: int = 1
    key: Any = None
    has_key: bool = False
    lines: dict[str, int] = field(default_factory=dict)
    merged: list[Any] = field(default_factory=list)


class _Unquoted(str):
    """A key that is a number or a bool, as Pulumi spells it within a value; among its own keys it refuses one."""


class _Merge:
    """The key <<."""


_MERGE = _Merge()


class _Reader:
    """Puts values together from the parser's events: no recursion, so that no depth of nesting can end the process."""

    def __init__(self) -> None:
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.open: set[str] = set()
        self.aliased = 0
        self.root: Any = None

    def event(self, event: Any) -> None:
        kind = type(event).__name__
        if kind == "ScalarEvent":
            value = _scalar(event, key=bool(self.stack) and isinstance(self.stack[-1].value, dict) and not self.stack[-1].has_key)
            if event.anchor:
                self.anchors[event.anchor] = (value, 1)
            self._put(value, 1, event)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            if event.tag is not None and event.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
                raise _Refused(f"line {event.start_mark.line + 1} has the tag {event.tag}: leave it out")
            if len(self.stack) >= _MOST_DEPTH:
                raise _Refused(f"line {event.start_mark.line + 1} is nested more than {_MOST_DEPTH} deep")
            self.stack.append(_Frame({} if kind[0] == "M" else [], event.anchor, event.start_mark.line + 1))
            if event.anchor:
                self.open.add(event.anchor)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            frame = self.stack.pop()
            for merged in frame.merged:
                frame.value = {**merged, **frame.value}
            if frame.anchor:
                self.open.discard(frame.anchor)
                self.anchors[frame.anchor] = (frame.value, frame.count)
            self._put(frame.value, frame.count, event)
        elif kind == "AliasEvent":
            self._alias(event)

    def _alias(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if event.anchor in self.open:
            raise _Refused(f"line {line}: the anchor {event.anchor!r} contains itself")
        if event.anchor not in self.anchors:
            raise _Refused(f"line {line}: no anchor {event.anchor!r} is above")
        value, count = self.anchors[event.anchor]
        self.aliased += count
        if self.aliased > _MOST_ALIASED:
            raise _Refused(f"line {line}: aliases stand for more than {_MOST_ALIASED:,} values, which Pulumi refuses as excessive")
        self._put(value, count, event)

    def _put(self, value: Any, count: int, event: Any) -> None:
        if not self.stack:
            self.root = value
            return
        frame = self.stack[-1]
        frame.count += count
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif not frame.has_key:
            frame.key, frame.has_key = self._key(value, frame, event), True
        else:
            frame.has_key = False
            if frame.key is _MERGE:
                frame.merged += self._merged(value, event)
            else:
                frame.value[frame.key] = value

    def _key(self, value: Any, frame: _Frame, event: Any) -> Any:
        line = event.start_mark.line + 1
        if value is _MERGE:
            return _MERGE
        if isinstance(value, bool):
            value = _Unquoted("true" if value else "false")
        elif isinstance(value, int):
            value = _Unquoted(value)
        if not isinstance(value, str):
            raise _Refused(f"line {line}: a key is no text: write it in quotes")
        if value in frame.lines:
            raise _Refused(f"line {line}: the key {value!r} is already in line {frame.lines[value]}, and Pulumi refuses it twice")
        frame.lines[value] = line
        return value

    def _merged(self, value: Any, event: Any) -> list[Any]:
        """The maps of a <<; of a list the first counts most."""
        maps = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) for each in maps):
            raise _Refused(f"line {event.start_mark.line + 1}: << takes a map or a list of maps")
        return maps


def _document(text: str) -> Any:
    """The first document. Raises _Refused, yaml.YAMLError."""
    reader, documents, values = _Reader(), 0, 0
    parser = _Parser(text)
    try:
        while parser.check_event():
            event: Any = parser.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
            elif documents == 1:
                reader.event(event)
            elif documents > 1 and _holds_something(event):
                line = event.start_mark.line + 1
                raise _Refused(f"line {line} begins a second document, and Pulumi reads the first alone: join them")
            values += 1
            if values > MOST_VALUES:
                raise _Refused(f"holds more than {MOST_VALUES:,} values")
    finally:
        parser.dispose()
    return reader.root


def _holds_something(event: Any) -> bool:
    return isinstance(event, yaml.NodeEvent) and getattr(event, "value", None) != ""


def _scalar(event: Any, *, key: bool) -> Any:
    line = event.start_mark.line + 1
    if event.tag is not None and event.tag not in _STR_TAGS:
        raise _Refused(f"line {line} has the tag {event.tag}: leave it out, or write the value in quotes")
    text: str = event.value
    if event.tag is not None or event.style in ("'", '"', "|", ">"):
        return text
    if key and text == "<<":
        return _MERGE
    if _NO_NUMBER.fullmatch(text):
        raise _Refused(f"line {line}: {text} is no number that a program could be given: write it in quotes")
    return plain_scalar(text)


def plain_scalar(text: str) -> Any:
    """What a value without quotes is: None, a bool, an int, a float or text; a date is the text that Pulumi makes of it."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first == ".":
        # Go reads a number there; "_" and names of numbers are none.
        return _float(text) if _FLOAT.fullmatch(text) else text
    if not (first.isdecimal() and first.isascii()) and first not in "+-":
        return text
    if (time := _time(text)) is not None:
        return time
    plain = text.replace("_", "")
    whole = _INTEGER.fullmatch(plain)
    if whole:
        sign, digits = (
            whole[1],
            next((group, base) for group, base in zip(whole.groups()[1:], (16, 8, 2, 8, 10), strict=True) if group),
        )
        value = int(digits[0], digits[1]) * (-1 if sign == "-" else 1)
        # Of the larger ones Go takes a float where they are written in tens, and text where not.
        if -(2**63) <= value < 2**63 or (not sign and value < 2**64):
            return value
    return _float(plain) if _FLOAT.fullmatch(plain) else text


def _float(text: str) -> float | str:
    value = float(text)
    # Go's YAML writes -0.0 as -0, and reads that as an integer.
    return text if math.isinf(value) else value or 0.0


def _time(text: str) -> str | None:
    """A date, or a date with a time, as Go prints it; None for what is neither."""
    found = _TIME.fullmatch(text)
    if not found:
        return None
    year, month, day, *rest = found.groups()
    hour, minute, second, fraction = rest[0:4] if rest[0] else rest[5:9]
    zone = rest[4]
    try:
        when = datetime(*(int(part or 0) for part in (year, month, day, hour, minute, second)))  # type: ignore[arg-type]
    except ValueError:
        return None
    offset = "+0000 UTC" if zone in (None, "Z", "+00:00", "-00:00") else f"{zone.replace(':', '')} {zone.replace(':', '')}"
    part = (fraction or "").rstrip("0").rstrip(".")[:10]
    return f"{when:%Y-%m-%d %H:%M:%S}{part} {offset}"
