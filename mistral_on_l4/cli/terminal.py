"""The console that commands print on."""

from __future__ import annotations

import io
import os
import sys

from rich.console import Console

# Columns of a log or a pipe, which have no width of their own: wide enough for every table of ours.
_UNKNOWN_WIDTH = 160


def console() -> Console:
    """Standard output, as wide as the terminal; a pipe is as wide as the tables need, unless $COLUMNS says otherwise."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A model answers in every script there is; a terminal that has not all of them shows a question mark.
        sys.stdout.reconfigure(errors="replace")
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return Console()
    return Console(width=_UNKNOWN_WIDTH)
