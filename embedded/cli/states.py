"""Pulumi's states in a home's file:// backend: what the stacks in it hold. Nothing is changed here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embedded.home import LocalHome
from mistral_on_l4.cli import Failure
from mistral_on_l4.config.names import PROJECT

LOCAL_STACK = "local"


def state_of(home: LocalHome, stack: str = LOCAL_STACK) -> dict[str, Any]:
    """The deployment in Pulumi's checkpoint of a stack; empty if there is none. Raises Failure."""
    return _deployment(_file(home, stack))


def has_resources(home: LocalHome) -> bool:
    """Whether Pulumi's state still holds resources of the local stack. Raises Failure."""
    return _holds(state_of(home)) > 0


def other_stacks(home: LocalHome) -> list[str]:
    """What the states of all stacks but the local one hold: "dev (69 resources)". A state that cannot be read may hold any.

    A purge removes these states; what they describe would be nobody's.
    """
    found = []
    for file in sorted(home.backend.glob(".pulumi/stacks/*/*.json")):
        if file == _file(home, LOCAL_STACK):
            continue
        stack = file.stem if file.parent.name == PROJECT else f"{file.parent.name}/{file.stem}"
        try:
            count = _holds(_deployment(file))
        except Failure:
            found.append(f"{stack} ({file} cannot be read)")
            continue
        if count:
            found.append(f"{stack} ({count} resource{'s' if count > 1 else ''})")
    return found


def _file(home: LocalHome, stack: str) -> Path:
    return home.backend / ".pulumi" / "stacks" / PROJECT / f"{stack}.json"


def _holds(state: Mapping[str, Any]) -> int:
    """How many resources a state has, those whose creation was begun among them, the stack itself left out."""
    kept = [resource for resource in state.get("resources") or [] if resource.get("type") != "pulumi:pulumi:Stack"]
    return len(kept) + len(state.get("pending_operations") or [])


def _deployment(checkpoint: Path) -> dict[str, Any]:
    try:
        latest: dict[str, Any] = json.loads(checkpoint.read_text())["checkpoint"]["latest"] or {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"{checkpoint} is not a Pulumi checkpoint ({error})\n`demo down --purge` drops it") from None
    return latest


def begun(state: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Resources whose creation was begun and of which the state does not say how it ended."""
    for operation in state.get("pending_operations") or []:
        if operation["type"] == "creating":
            yield operation["resource"]
