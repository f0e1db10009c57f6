"""Which changes need a new object, where no engine says so: without a state, base and head are compared by their inputs.

The rules are the stand-in providers' own, which cite the official ones. For a type that those do not know, a change is an update.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedded.plugins.aws.kinds import KINDS
from embedded.plugins.kubernetes.differences import Mutability, compare


def needs_a_new_object(token: str, before: Mapping[str, Any], after: Mapping[str, Any], provider: Mapping[str, Any]) -> bool:
    """before, after: inputs of a resource; provider: those of its provider, {} if unknown."""
    if token.startswith("kubernetes:"):
        mutability = Mutability(_says(provider, "enableConfigMapMutable"), _says(provider, "enableSecretMutable"))
        return any(difference.replaces for difference in compare(before, after, mutability))
    kind = KINDS.get(token)
    return kind is not None and any(before.get(key) != after.get(key) for key in kind.replaces)


def moved_by(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The input of a provider whose change puts all that it makes into another place, "" if there is none."""
    keys = ("region", "clusterIdentifier")
    return next((key for key in keys if before.get(key) and after.get(key) and before[key] != after[key]), "")


def _says(provider: Mapping[str, Any], option: str) -> bool:
    return str(provider.get(option)).lower() == "true"
