"""Tags on everything that bills: whose it is, of which stack, and until when."""

from __future__ import annotations

from mistral_on_l4.config.names import STACK_TAG
from mistral_on_l4.config.settings import TagSettings


def stack_tags(stack: str, settings: TagSettings) -> dict[str, str]:
    tags = {STACK_TAG: stack, "owner": settings.owner}
    if settings.expires:
        tags["expires"] = settings.expires
    return tags


def name_tag(name: str) -> dict[str, str]:
    """What AWS's console shows. All other tags are the provider's default ones."""
    return {"Name": name}
