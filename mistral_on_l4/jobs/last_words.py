"""How a job says why it ends: in its log, and where Kubernetes keeps a container's last message."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")


def say_why(sentence: str) -> None:
    """On one line, whatever the sentence was made of."""
    sentence = " ".join(sentence.split())
    print(sentence, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # outside a pod there is none; the log has it
        TERMINATION_LOG.write_text(sentence)
