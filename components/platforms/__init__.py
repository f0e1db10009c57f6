"""Platforms by name. Only the chosen one is imported: AWS's resource classes alone take longer than a whole local preview."""

from __future__ import annotations

import pulumi

from components.platforms.base import Platform
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.config.traits import PlatformName
from mistral_on_l4.planner.catalogue import Catalogue


def platform_for(settings: Settings, catalogue: Catalogue) -> Platform:
    """The platform that the settings name. Raises pulumi.RunError in words when it cannot be used."""
    match settings.platform:
        case PlatformName.LOCAL:
            from components.platforms.local import LocalPlatform

            return LocalPlatform("local", settings, catalogue)
        case PlatformName.EKS:
            from components.platforms.eks import EksPlatform

            return EksPlatform("eks", settings, catalogue)
        case PlatformName.OPENSHIFT:
            raise pulumi.RunError("platform 'openshift' is not built yet: use 'local' or 'eks'")
