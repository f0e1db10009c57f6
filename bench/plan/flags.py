"""Reads what `vllm serve` takes on its command line from the syntax trees of vLLM's own parsers: data/flags.yaml, by engine.

Two files declare it: engine/arg_utils.py (the engine's arguments, one `add_argument` each) and cli_args.py of the entrypoints (the
server's: fields of dataclasses that become flags, and a few `add_argument`). A third one, where it is there, is the parser itself.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

ENGINE = "vllm/engine/arg_utils.py"
# Where the server's arguments are; the newer of them first.
SERVER = ("vllm/entrypoints/common/cli_args.py", "vllm/entrypoints/openai/cli_args.py")
PARSER = "vllm/utils/argparse_utils.py"
_DATACLASSES = ("EngineArgs", "AsyncEngineArgs", "BaseFrontendArgs", "FrontendArgs")
_SERVED = ("BaseFrontendArgs", "FrontendArgs")


def sources(read: Callable[[str], str]) -> tuple[str, str, str]:
    """The texts of the files. read: gives the text of a path; KeyError or FileNotFoundError where there is none."""
    server = _first(read, SERVER)
    if not server:
        raise SystemExit(f"this is no wheel of vLLM: it has none of {', '.join(SERVER)}")
    return read(ENGINE), server, _first(read, (PARSER,))


def _first(read: Callable[[str], str], paths: tuple[str, ...]) -> str:
    for path in paths:
        try:
            return read(path)
        except (KeyError, FileNotFoundError):
            continue
    return ""


def flags_of(engine: str, server: str, parser: str) -> dict[str, Any]:
    """{flags: names that take a value, switches: names that take none (--no-NAME turns each off), short: {short name: name}}.

    inverses: whether the parser takes --disable-x for --no-enable-x.
    """
    trees = [ast.parse(engine), ast.parse(server)]
    booleans = {name for tree in trees for name, is_bool, _ in _fields(tree) if is_bool}
    names: set[str] = {_flag(name) for tree in trees for name, _, served in _fields(tree) if served}
    switches = {_flag(name) for name in booleans}
    short: dict[str, str] = {}
    for tree in trees:
        for call in _arguments(tree):
            strings = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            options = [name for name in strings if name.startswith("-")]
            long = [name for name in options if name.startswith("--")]
            if not long:
                continue
            names |= set(long)
            short |= {name: long[0] for name in options if not name.startswith("--")}
            if any(word.arg == "action" and _is_switch(word.value) for word in call.keywords):
                switches |= set(long)
    # Names in a list that a loop adds, each with its type: they take a value, whatever it is.
    listed = {name for tree in trees for name in _listed(tree)} - names
    names, switches = names | listed, switches - listed
    return {
        "flags": sorted(names - switches),
        "inverses": "EnableDisableAction" in parser,
        "short": dict(sorted(short.items())),
        "switches": sorted(names & switches),
    }


def _fields(tree: ast.Module) -> Iterator[tuple[str, bool, bool]]:
    """(field, whether it is true or false, whether it becomes a flag without an `add_argument`)."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in _DATACLASSES:
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    kinds = {each.id for each in ast.walk(line.annotation) if isinstance(each, ast.Name)}
                    yield line.target.id, "bool" in kinds and kinds <= {"bool", "Optional"}, node.name in _SERVED


def _arguments(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            yield node


def _listed(tree: ast.Module) -> Iterator[str]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name == "add_cli_args":
            for node in ast.walk(function):
                if isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[0], ast.Constant):
                    name = str(node.elts[0].value)
                    if name.startswith("--"):
                        yield name


def _is_switch(value: ast.expr) -> bool:
    text = ast.unparse(value)
    return "store_true" in text or "store_false" in text or "BooleanOptionalAction" in text


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
