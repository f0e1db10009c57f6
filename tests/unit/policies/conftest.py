"""Recordings of real previews (see record.py), and the means to change one thing in them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mistral_on_l4.config.names import DECLARATION
from policies.offline import Declared, Recording

RECORDED = Path(__file__).with_name("recorded")


@cache
def _recorded(stack: str) -> Recording:
    return Recording.read(RECORDED / f"{stack}.json")


@pytest.fixture
def recorded() -> Callable[[str], Recording]:
    """recorded("dev"): what a preview of the shipped stack declared. Never change it in place."""
    return _recorded


@pytest.fixture
def broken(recorded: Callable[[str], Recording]) -> Callable[..., Recording]:
    """broken(stack, "Job", "seed-", change): the recording with one resource changed, found by kind and start of its name."""

    def change_one(stack: str, kind: str, name: str, change: Callable[[Any], None]) -> Recording:
        recording = recorded(stack)
        resources = list(recording.resources)
        index = next(index for index, found in enumerate(resources) if is_named(found, kind, name))
        props = copy.deepcopy(dict(resources[index].props))
        change(props)
        assert props != resources[index].props, "the change changes nothing"
        resources[index] = dataclasses.replace(resources[index], props=props)
        return dataclasses.replace(recording, resources=tuple(resources))

    return change_one


@pytest.fixture
def without(recorded: Callable[[str], Recording]) -> Callable[..., Recording]:
    """without(stack, "NetworkPolicy", "inference"): the recording without one resource."""

    def drop(stack: str, kind: str, name: str) -> Recording:
        recording = recorded(stack)
        kept = tuple(found for found in recording.resources if not is_named(found, kind, name))
        assert len(kept) < len(recording.resources), f"{stack} declares no {kind} {name}"
        return dataclasses.replace(recording, resources=kept)

    return drop


def is_named(found: Declared, kind: str, name: str) -> bool:
    if not found.token.startswith(("kubernetes:", "aws:", DECLARATION)) or found.token.rpartition(":")[2] != kind:
        return False
    return str((found.props.get("metadata") or {}).get("name", found.name)).startswith(name) or found.name.startswith(name)
