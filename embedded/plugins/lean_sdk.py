"""Pulumi's generated gRPC modules without the rest of its SDK, for plugins that have to start fast.

`import pulumi` takes 0.25 s, of which a plugin needs nothing: it only speaks the protocol. The packages on the way to
`pulumi.runtime.proto` are therefore put into sys.modules as empty ones that know where their modules lie. A process that
calls `prepare()` can no longer import the real SDK; programs run in processes of their own.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
import types
from pathlib import Path

_EMPTY = ("pulumi", "pulumi.runtime", "pulumi.runtime.proto")


def prepare() -> None:
    """Makes `from pulumi.runtime.proto import provider_pb2` cheap. Does nothing where the real SDK is already imported."""
    # A plugin allocates much while it starts and little that is garbage: at Python's own thresholds a fifth of its start is
    # spent looking for some.
    gc.set_threshold(50_000, 20, 20)
    if "pulumi" in sys.modules:
        return
    found = importlib.util.find_spec("pulumi")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the Python package pulumi is not installed: run `make venv`")
    root = Path(next(iter(found.submodule_search_locations)))
    for name in _EMPTY:
        module = types.ModuleType(name)
        module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module
