"""Stand-ins for Pulumi's own plugins, which have no package, and the environment in which ordinary commands find them.

The language host `python` and the providers `kubernetes` and `aws`: in a local stack's own PULUMI_HOME, and nowhere on PATH.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedded.plugins.installation import (
        PluginError,
        command_environment,
        ensure_stack,
        install,
        pulumi_environment,
    )

__all__ = ["PluginError", "command_environment", "ensure_stack", "install", "pulumi_environment"]


def __getattr__(name: str) -> Any:
    # A plugin's process imports this package on its way and needs none of it.
    if name in __all__:
        from embedded.plugins import installation

        return getattr(installation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
