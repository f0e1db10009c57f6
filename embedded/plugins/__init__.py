"""Pulumi's plugins for a local stack, and the environment in which ordinary commands find them.

The Kubernetes provider is the official one. The language host `python` and the provider `aws` have no package to be had from, so
these are stand-ins of ours. All lie in a local stack's own PULUMI_HOME, and nowhere on PATH.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedded.plugins.installation import (
        PROVIDER,
        PluginError,
        command_environment,
        ensure_stack,
        install,
        provider_tools,
        pulumi_environment,
    )

__all__ = ["PROVIDER", "PluginError", "command_environment", "ensure_stack", "install", "provider_tools", "pulumi_environment"]


def __getattr__(name: str) -> Any:
    # A plugin's process imports this package on its way and needs none of it.
    if name in __all__:
        from embedded.plugins import installation

        return getattr(installation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
