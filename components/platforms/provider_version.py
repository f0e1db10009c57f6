"""Which version of the Kubernetes provider a local stack or a rehearsal runs on."""

from __future__ import annotations

import os

from mistral_on_l4.config.names import KUBERNETES_PROVIDER_VARIABLE


def local_provider_version() -> str | None:
    """For `ResourceOptions(version=...)` of the provider: every object with an explicit provider follows it.

    None asks for the version that belongs to the SDK, as in any stack of an account.
    """
    return os.environ.get(KUBERNETES_PROVIDER_VARIABLE) or None
