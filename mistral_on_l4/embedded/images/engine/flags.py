"""vLLM's command line: which flags there are, and what argparse makes of them.

The parser is argparse's own, fed from a table of one vLLM version, because vLLM's is too: abbreviations, `--a=b`, several
values and the messages come out the same. What vLLM does before argparse sees the words (FlexibleArgumentParser in
vllm/utils of 0.11.0) is done here again: underscores, `--help=...`, `--json-arg.key value`, -O.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODULE = "vllm.entrypoints.openai.api_server"


class Refused(Exception):
    """vLLM would end with a traceback: `lines` are its last ones, exit code 1."""

    def __init__(self, *lines: str) -> None:
        super().__init__(lines[-1])
        self.lines = lines


@dataclass(frozen=True)
class Value:
    """A flag with a value. type: one of TYPES, or optional:TYPE where "None" and "" mean none; short: other spellings."""

    type: str
    short: str = ""
    nargs: str | None = None
    choices: tuple[Any, ...] | None = None
    append: bool = False


@dataclass(frozen=True)
class Table:
    """All flags of one vLLM version, without their leading dashes.

    pairs: `--x` and `--no-x`; switches: `--x` alone; quantization, load_formats, tool_parsers: what those flags accept.
    """

    version: str
    pairs: Sequence[str]
    switches: Sequence[str]
    values: Mapping[str, Value]
    quantization: Sequence[str]
    load_formats: Sequence[str]
    tool_parsers: Sequence[str]


def human_readable_int(text: str) -> int:
    """1k = 1000, 1K = 1024, 25.6k = 25600; no decimals before K, M, G."""
    text = text.strip()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text):
        number, suffix = match.groups()
        if suffix in "kmg":
            return int(float(number) * {"k": 10**3, "m": 10**6, "g": 10**9}[suffix])
        if suffix in "KMG":
            if "." in number:
                raise argparse.ArgumentTypeError(
                    f"Decimals are not allowed with binary suffixes like {suffix}. "
                    f"Did you mean to use {number}{suffix.lower()} instead?"
                )
            return int(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[suffix]
    return int(text)


def json_object(text: str) -> Any:
    """A JSON object. Its keys are vLLM's dataclass fields, which are not checked here."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


def _cast(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            named = convert if isinstance(convert, type) else f"<function {convert.__name__}>"
            raise argparse.ArgumentTypeError(f"Value {text} cannot be converted to {named}.") from error

    return parse


def _optional(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return None if text in ("", "None") else _cast(convert)(text)

    return parse


def _text_or_json(text: str) -> Any:
    return _optional(json.loads)(text) if re.match(r"(?s)^\s*{.*}\s*$", text) else text


TYPES: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "count": human_readable_int,
    "raw-json": json.loads,
    "json": _cast(json.loads),
    "object": _cast(json_object),
    "text-or-json": _text_or_json,
}
# Under optional:, a conversion that fails is reported by its own name, not by that of the wrapper around it.
_BARE: Mapping[str, Callable[[str], Any]] = {"json": json.loads, "object": json_object}


def _type(word: str) -> Callable[[str], Any]:
    kind, _, inner = word.partition(":")
    return _optional(_BARE.get(inner) or TYPES[inner]) if kind == "optional" else TYPES[word]


def table(version: str) -> Table:
    """The table for an engine version, by its first two numbers. Raises LookupError."""
    from importlib import import_module

    name = "_".join(version.split(".")[:2])
    try:
        found: Table = import_module(f"mistral_on_l4.embedded.images.engine.flags_{name}").TABLE
    except ModuleNotFoundError:
        raise LookupError(f"there is no table of vLLM {version}'s flags") from None
    return found


def parser(flags: Table, program: str) -> argparse.ArgumentParser:
    """Ends the process with argparse's message and exit code 2 on anything that vLLM's parser would not take."""
    made = argparse.ArgumentParser(prog=program, usage=f"{program} [model_tag] [--flags of vLLM {flags.version}]")
    made.add_argument("model_tag", nargs="?")
    for name in flags.pairs:
        made.add_argument(f"--{name}", action=argparse.BooleanOptionalAction)
    for name in flags.switches:
        made.add_argument(f"--{name}", action="store_true", default=None)
    for name, value in flags.values.items():
        keywords: dict[str, Any] = {"type": _type(value.type), "choices": value.choices}
        keywords |= {"action": "append"} if value.append else {"nargs": value.nargs}
        if name == "hf-token":
            keywords["const"] = True
        made.add_argument(f"--{name}", *value.short.split(), **keywords)
    return made


def parse(words: Sequence[str], flags: Table, program: str) -> argparse.Namespace:
    """Values of the flags that were given, None for the others. Raises Refused, or SystemExit(2) like argparse."""
    made = parser(flags, program)
    given = made.parse_args(prepared(list(words)))
    if given.config is not None:
        made.error("argument --config: this simulation of vLLM reads no configuration file: give the flags themselves")
    return given


def prepared(words: list[str]) -> list[str]:
    """The words as argparse is to see them: dashes in names, JSON pieces (`--x.key value`, `-O3`) put together at the end."""
    plain = [_dashed(word, words[index + 1 :]) for index, word in enumerate(words)]
    kept: list[str] = []
    objects: dict[str, dict[str, Any]] = {}
    rest = iter(plain)
    for word in rest:
        key, equals, value = word.partition("=")
        if not word.startswith("-") or "." not in key or _number(word):
            kept.append(word)
            continue
        if not equals:
            # vLLM fails with an IndexError here; an argument without its value is the same mistake.
            value = next(rest, "")
        if key.endswith("+"):
            key, value = key[:-1], json.dumps(value.split(","))
        name, *path = key.split(".")
        try:
            inner: Any = json.loads(value)
        except ValueError:
            inner = value
        for part in reversed(path):
            inner = {part: inner}
        _merge(objects.setdefault(name, {}), inner)
    for name, value_object in objects.items():
        kept += [name, json.dumps(value_object)]
    return kept


def _dashed(word: str, following: Sequence[str]) -> str:
    if word.startswith("--help="):
        return "--help"
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        first, dot, path = name.partition(".")
        return f"--{first[2:].replace('_', '-')}{dot}{path}{equals}{value}"
    if word == "-O" and following and following[0] in ("0", "1", "2", "3"):
        return "-O.level"
    if word.startswith("-O") and word != "-O" and word[2] != ".":
        return f"-O.level={word[3:] if word[2] == '=' else word[2:]}"
    return word


def _number(word: str) -> bool:
    return re.fullmatch(r"-\d*\.\d+", word) is not None


def _merge(into: dict[str, Any], update: dict[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, list) and isinstance(into.get(key), list):
            into[key] += value
        else:
            into[key] = value
