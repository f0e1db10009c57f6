"""Tags on everything that bills: whose it is, of which stack, and until when."""

from __future__ import annotations

from collections.abc import Mapping

from mistral_on_l4.config.names import STACK_TAG
from mistral_on_l4.config.settings import TagSettings


def stack_tags(stack: str, settings: TagSettings) -> dict[str, str]:
    tags = {STACK_TAG: stack, "owner": settings.owner}
    if settings.expires:
        tags["expires"] = settings.expires
    return tags


def named(tags: Mapping[str, str], name: str) -> dict[str, str]:
    """The tags and a `Name`, which is what AWS's console shows."""
    return {**tags, "Name": name}
