"""Services and pools of a test's own, as a stack file writes them: maps by name that take the defaults away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mistral_on_l4.config.defaults import DEFAULT_POOLS, DEFAULT_SERVICES, Entries


def only_services(*services: Mapping[str, Any]) -> dict[str, Any]:
    """`services` with these alone, each a mapping with its name. One that has a default's name is merged over it."""
    return _only(services, DEFAULT_SERVICES)


def only_pools(*pools: Mapping[str, Any]) -> dict[str, Any]:
    """`pools.groups` with these alone."""
    return _only(pools, DEFAULT_POOLS)


def _only(entries: tuple[Mapping[str, Any], ...], defaults: Entries) -> dict[str, Any]:
    own = {entry["name"]: {key: value for key, value in entry.items() if key != "name"} for entry in entries}
    if len(own) < len(entries):
        raise ValueError("two entries of one name are one entry of a map")
    return {**dict.fromkeys(defaults), **own}
