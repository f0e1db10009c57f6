"""Differences between vLLM and its simulation that stay, each with a reason; embedded/README.md repeats them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NEWER = "the table is of vLLM 0.33, and the newest vLLM for the CPU is 0.32"
# Pattern of a check's whole name -> why the two differ.
LISTED: Sequence[tuple[str, str]] = (
    # 0.33 has an inverse of every `--enable-x`, one more dtype of the cache, and other types of two values.
    (r"flags (--enable-log-requests )?--disable-(log-requests|prefix-caching|auto-tool-choice)", _NEWER),
    (r"flags --kv-cache-dtype int8", _NEWER),
    (r"flags --reasoning-parser None", _NEWER),
    (r"flags --device-ids 0,1", _NEWER),
)


def reason_for(name: str) -> str | None:
    return next((reason for pattern, reason in LISTED if re.fullmatch(pattern, name)), None)
