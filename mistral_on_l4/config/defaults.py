"""The services and GPU pools that a stack has unless its file says otherwise: maps by name, as a stack file would spell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Entries = Mapping[str, Mapping[str, Any]]

DEFAULT_POOLS: Entries = {
    "l4-1gpu": {"instanceType": "g6.2xlarge"},
    "l4-4gpu": {"instanceType": "g6.12xlarge"},
}

DEFAULT_SERVICES: Entries = {
    "mistral-24b-full": {
        "variant": "bf16",
        "prefix": "mistral-24b/",
        "pool": "l4-4gpu",
        "tensorParallelSize": 4,
        # What four L4 without NVLink hold outside this share took 2.3 GiB each: at 0.90 warm-up may run out of memory.
        "gpuMemoryUtilization": 0.88,
    },
    # 23.21 GiB of weights against 22.03 GiB visible: it loads only with part of them in the node's memory.
    "mistral-24b-fp8": {
        "variant": "fp8",
        "prefix": "mistral-24b-fp8/",
        "pool": "l4-1gpu",
        "maxNumSeqs": 16,
        "kvCacheDtype": "fp8",
        "cpuOffload": "auto",
    },
    "mistral-24b-w4a16": {
        "enabled": False,
        "variant": "w4a16",
        "prefix": "mistral-24b-w4a16/",
        "pool": "l4-1gpu",
        "kvCacheDtype": "fp8",
    },
}
