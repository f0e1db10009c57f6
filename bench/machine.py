"""What a figure was measured on."""

from __future__ import annotations

import os
import platform


def machine() -> str:
    return f"machine: {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
