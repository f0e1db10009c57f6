"""The resource types that the stand-in knows, by type token."""

from __future__ import annotations

from embedded.plugins.aws.kinds.base import Kind
from embedded.plugins.aws.kinds.cluster import CLUSTER
from embedded.plugins.aws.kinds.identity import IDENTITY
from embedded.plugins.aws.kinds.network import NETWORK

KINDS: dict[str, Kind] = {kind.token: kind for kind in (*NETWORK, *IDENTITY, *CLUSTER)}

__all__ = ["KINDS", "Kind"]
