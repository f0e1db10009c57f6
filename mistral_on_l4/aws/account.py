"""Names and addresses of a stack in an AWS account, for the program and for the commands beside it."""

from __future__ import annotations

from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.settings import Settings

# Account of the stand-in `aws` provider; AWS gives nobody this number.
REHEARSAL_ACCOUNT = "000000000000"
# Zones where EKS puts no control plane (https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html), by id: names differ
# from account to account.
ZONES_WITHOUT_EKS = ("use1-az3", "usw1-az2", "cac1-az3")


def cluster_name(settings: Settings, stack: str) -> str:
    """Name of the stack's EKS cluster: as configured, or by the stack."""
    return settings.cluster.name or f"{PROJECT}-{stack}"
