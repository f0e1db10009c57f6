"""vLLM's command line: which flags there are, and what argparse makes of them.

The parser is argparse's own, fed from a table of one vLLM version, because vLLM's is too: abbreviations, `--a=b`, several
values and the messages come out the same. What vLLM does before argparse sees the words (FlexibleArgumentParser in
vllm/utils of 0.11.0, vllm/utils/argparse_utils.py of 0.33.0) is done here again: underscores, `--help=...`,
`--json-arg.key value`, -O.
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

    pairs: `--x` and `--no-x`, with other spellings of `--x` after a space; switches: `--x` alone; quantization, load_formats,
    tool_parsers: what those flags accept; guarded: beginnings of the paths that need the API key; inverses: whether
    `--enable-x` is also `--disable-x`, -O is --optimization-level, `vllm serve` takes --model, and sizes have suffixes inside
    JSON pieces, as in vLLM 0.33.
    """

    version: str
    pairs: Sequence[str]
    switches: Sequence[str]
    values: Mapping[str, Value]
    quantization: Sequence[str]
    load_formats: Sequence[str]
    tool_parsers: Sequence[str]
    guarded: tuple[str, ...] = ("/v1",)
    inverses: bool = False


_INVERSE = {"--enable-": "--disable-", "--disable-": "--enable-"}


class _EnableDisable(argparse.BooleanOptionalAction):
    """vLLM 0.33's pair of flags: `--enable-x` and `--disable-x`, the older `--no-enable-x` taken but not shown."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, dest, **keywords)
        inverses = [
            inverse + option.removeprefix(prefix)
            for option in option_strings
            for prefix, inverse in _INVERSE.items()
            if option.startswith(prefix)
        ]
        self.shown = [*option_strings, *inverses] if inverses else list(self.option_strings)
        self._negative = {*inverses, *(option for option in self.option_strings if option not in option_strings)}
        self.option_strings = [*self.option_strings, *inverses]

    def __call__(self, _parser: Any, namespace: argparse.Namespace, _values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, option_string not in self._negative)


def _size(text: str, tera: bool) -> int:
    text = text.strip()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text):
        number, suffix = match.groups()
        power = "kmgt".index(suffix.lower()) + 1
        if power == 4 and not tera:
            return int(text)  # 0.11 looks for the letter, and then knows no T
        if suffix.islower():
            return int(float(number) * float(1000**power))
        if "." in number:
            raise argparse.ArgumentTypeError(
                f"Decimals are not allowed with binary suffixes like {suffix}. "
                f"Did you mean to use {number}{suffix.lower()} instead?"
            )
        return int(number) * int(1024**power)
    return int(text)


def _named(name: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse puts a converter's name into its message."""
    convert.__name__ = name
    return convert


def human_readable_int(text: str) -> int:
    """1k = 1000, 1K = 1024, 25.6k = 25600; no decimals before K, M, G."""
    return _size(text, tera=False)


def human_readable_int_or_auto(text: str) -> int:
    """A size, or "auto" = -1 (vLLM 0.33)."""
    return -1 if text.strip().lower() in ("-1", "auto") else _size(text, tera=True)


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
    "size": _named("human_readable_int", lambda text: _size(text, tera=True)),
    "size-or-auto": human_readable_int_or_auto,
    "backend": lambda text: text.lower().replace("-", "_"),
    "devices": lambda text: [part.strip() for part in text.split(",")],
    "none-is-empty": lambda text: "" if text.lower() == "none" else text,
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
        flags: Table = import_module(f"embedded.images.engine.flags_{name}").TABLE
    except ModuleNotFoundError:
        raise LookupError(f"there is no table of vLLM {version}'s flags") from None
    return flags


def parser(flags: Table, program: str) -> argparse.ArgumentParser:
    """Ends the process with argparse's message and exit code 2 on anything that vLLM's parser would not take."""
    made = argparse.ArgumentParser(prog=program, usage=f"{program} [model_tag] [--flags of vLLM {flags.version}]")
    made.add_argument("model_tag", nargs="?")
    for line in flags.pairs:
        name, *spellings = line.split()
        if flags.inverses:
            action = made.add_argument(f"--{name}", *spellings, action=_EnableDisable)
            assert isinstance(action, _EnableDisable)
            action.option_strings = action.shown
        else:
            made.add_argument(f"--{name}", *spellings, action=argparse.BooleanOptionalAction)
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
    given = made.parse_args(prepared(list(words), flags.inverses))
    if given.config is not None:
        made.error("argument --config: this simulation of vLLM reads no configuration file: give the flags themselves")
    return given


def served_words(words: list[str], flags: Table) -> list[str]:
    """What follows `vllm serve`, with the model as first word. Raises Refused."""
    at = next((index for index, word in enumerate(words) if word == "--model" or word.startswith("--model=")), None)
    if not flags.inverses:
        if "--model" in words:
            raise Refused(
                "ValueError: With `vllm serve`, you should provide the model as a positional argument or in a config file instead "
                "of via the `--model` option."
            )
        return words
    if at is not None:
        _, equals, model = words[at].partition("=")
        if not equals and at + 1 == len(words):
            raise Refused("IndexError: list index out of range")
        return [model if equals else words[at + 1], *words[:at], *words[at + (1 if equals else 2) :]]
    if words and words[0].startswith("-") and any(re.match(r"--served[-_]model[-_]name(=|$)", word) for word in words):
        raise Refused(
            "ValueError: `model` should be provided as the first positional argument when using `vllm serve`. i.e. "
            "`vllm serve <model> --<arg> <value>`."
        )
    return words


def prepared(words: list[str], newer: bool = False) -> list[str]:
    """The words as argparse is to see them: dashes in names, JSON pieces (`--x.key value`, `-O3`) put together at the end."""
    plain = [word for index, each in enumerate(words) for word in _dashed(each, words[index + 1 :], newer)]
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
        inner: Any = _piece(value, newer)
        for part in reversed(path):
            inner = {part: inner}
        _merge(objects.setdefault(name, {}), inner)
    for name, value_object in objects.items():
        kept += [name, json.dumps(value_object)]
    return kept


def _piece(text: str, newer: bool) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return _size(text, tera=True) if newer else text
    except (ValueError, argparse.ArgumentTypeError):
        return text


def _dashed(word: str, following: Sequence[str], newer: bool) -> list[str]:
    if word.startswith("--help="):
        return ["--help"]
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        first, dot, path = name.partition(".")
        return [f"--{first[2:].replace('_', '-')}{dot}{path}{equals}{value}"]
    level = word[3:] if word[2:3] == "=" else word[2:]
    if word == "-O" and following and following[0] in ("0", "1", "2", "3"):
        return ["--optimization-level" if newer else "-O.level"]
    if word.startswith("-O") and word != "-O" and newer:
        return ["--optimization-level", level]
    if word.startswith("-O") and word != "-O" and word[2] != ".":
        return [f"-O.level={level}"]
    return [word]


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
