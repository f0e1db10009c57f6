"""Platforms by name. Only the chosen one is imported: AWS's resource classes alone take longer than a whole local preview."""

from __future__ import annotations

from components.platforms.base import Platform, PlatformInputs
from mistral_on_l4.config.traits import PlatformName


def platform_for(stack: PlatformInputs) -> Platform:
    """The platform that the settings name. Raises pulumi.RunError in words when it cannot be used."""
    match stack.settings.platform:
        case PlatformName.LOCAL:
            from components.platforms.local import LocalPlatform

            return LocalPlatform("local", stack)
        case PlatformName.EKS:
            from components.platforms.eks import EksPlatform

            return EksPlatform("eks", stack)
        case PlatformName.OPENSHIFT:
            from components.platforms.openshift import OpenshiftPlatform

            return OpenshiftPlatform("openshift", stack)
