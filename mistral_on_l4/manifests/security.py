"""Security contexts within the "restricted" Pod Security Standard, with user ids of ours or of the platform's choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

# `fixed`: our manifests say which user a pod runs as; `assigned`: the platform gives each namespace a range of ids, and refuses
# pods that ask for others (config/traits.py says which platform does).
PodUserIds = Literal["fixed", "assigned"]

# What the standard asks of a container (https://kubernetes.io/docs/concepts/security/pod-security-standards/).
RESTRICTED_CONTAINER: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod_security(user_ids: PodUserIds, ids: Mapping[str, int]) -> dict[str, Any]:
    """securityContext of a pod. ids: runAsUser, runAsGroup and fsGroup, as far as the image needs them; left out if assigned."""
    return {"runAsNonRoot": True, **_fixed(user_ids, ids), "seccompProfile": {"type": "RuntimeDefault"}}


def container_security(user_ids: PodUserIds, ids: Mapping[str, int], read_only: bool = False) -> dict[str, Any]:
    """securityContext of a container. ids: runAsUser and runAsGroup; read_only: its root filesystem."""
    context = {**RESTRICTED_CONTAINER, **_fixed(user_ids, ids)}
    return {**context, "readOnlyRootFilesystem": True} if read_only else context


def _fixed(user_ids: PodUserIds, ids: Mapping[str, int]) -> Mapping[str, int]:
    return ids if user_ids == "fixed" else {}
