"""pulumi_aws' generated classes as a reference: which names the provider's schema has, by type token and by function token."""

from __future__ import annotations

import importlib
import inspect
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from pulumi import _types


def resource_class(token: str) -> tuple[type, type]:
    """(resource, its Args) of a type token such as aws:ec2/vpc:Vpc."""
    _, path, name = token.split(":")
    module = _module(path)
    return getattr(module, name), getattr(module, f"{name}Args")


def output_names(resource: type) -> set[str]:
    return set(_types.resource_py_to_pulumi_names(resource).values())


def unknown_inputs(value: Any, hint: Any, path: str = "") -> Iterator[str]:
    """Paths of keys that the schema does not have, at any depth."""
    args = _args_class(hint)
    if args is None:
        return
    if isinstance(value, Mapping):
        known = _types.input_type_types(args)
        for key, inner in value.items():
            if key in known:
                yield from unknown_inputs(inner, known[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from unknown_inputs(inner, hint, f"{path}[{index}]")


def function_names(token: str) -> tuple[set[str], set[str]]:
    """(arguments, answers) of a function token such as aws:ec2/getSubnet:getSubnet, in camelCase."""
    _, path, name = token.split(":")
    module = _module(path)
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    function, result = getattr(module, snake), getattr(module, f"{name[0].upper()}{name[1:]}Result")
    arguments = {_camel(argument) for argument in inspect.signature(function).parameters if argument != "opts"}
    answers = {_camel(argument) for argument in inspect.signature(result.__init__).parameters if argument != "self"}
    return arguments, answers


def _module(path: str) -> ModuleType:
    place = path.partition("/")[0]
    with warnings.catch_warnings():
        # Of classes that pulumi_aws itself has deprecated, as it defines them.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = importlib.import_module("pulumi_aws" if place == "index" else f"pulumi_aws.{place}")
        # It is only loaded when something is asked of it.
        hasattr(module, "loaded")
    return module


def _camel(snake: str) -> str:
    first, *others = snake.split("_")
    return first + "".join(other.capitalize() for other in others)


def _args_class(hint: Any) -> type | None:
    """The Args class in a hint such as Optional[Input[Sequence[Input[Args]]]]; None where the schema has no names."""
    if isinstance(hint, type):
        return hint if _types.is_input_type(hint) else None
    found = [inner for part in typing.get_args(hint) if (inner := _args_class(part)) is not None]
    return found[0] if found else None
