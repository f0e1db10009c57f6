"""Tags on everything that bills: whose it is, of which stack, and until when."""

from __future__ import annotations

from collections.abc import Mapping

from mistral_on_l4.config.settings import PROJECT, TagSettings

# `demo sweep` finds leftovers by this key, and a second stack is told from this one by its value.
STACK_TAG = f"{PROJECT}:stack"


def stack_tags(stack: str, settings: TagSettings) -> dict[str, str]:
    tags = {STACK_TAG: stack, "owner": settings.owner}
    if settings.expires:
        tags["expires"] = settings.expires
    return tags


def named(tags: Mapping[str, str], name: str) -> dict[str, str]:
    """The tags and a `Name`, which is what AWS's console shows."""
    return {**tags, "Name": name}
