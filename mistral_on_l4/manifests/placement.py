"""Where pods may run: the stack's own GPU nodes, and no others of the cluster."""

from __future__ import annotations

from typing import Any

from mistral_on_l4.config.names import POOL_LABEL

# An adopted cluster may have GPU nodes of its owner's, with the same label and software of their own: these are the stack's.
POOLS_ALONE: dict[str, Any] = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": POOL_LABEL, "operator": "Exists"}]}]
        }
    }
}
