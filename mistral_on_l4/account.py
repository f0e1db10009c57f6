"""Names and addresses of a stack in an AWS account, for the program and for the commands beside it."""

from __future__ import annotations

from mistral_on_l4.settings import PROJECT, Settings

# Account of the stand-in `aws` provider; AWS gives nobody this number.
REHEARSAL_ACCOUNT = "000000000000"


def cluster_name(settings: Settings, stack: str) -> str:
    """Name of the stack's EKS cluster: as configured, or by the stack."""
    return settings.cluster.name or f"{PROJECT}-{stack}"
