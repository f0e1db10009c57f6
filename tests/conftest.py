"""What holds for every test."""

from __future__ import annotations

import signal

# A shell without job control starts what runs in its background with SIGINT ignored, and every process below inherits that. The
# tests that interrupt a program must mean the same there as in a terminal: a handler, unlike "ignored", is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
