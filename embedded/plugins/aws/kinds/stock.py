"""What of an instance type an account gets: its vCPU quotas, and what the zones have left, as its switches say."""

from __future__ import annotations

from collections.abc import Sequence

from embedded.plugins.aws.faults import Switch
from embedded.plugins.aws.ledger import Account, AwsError

# vCPUs of a new account: Service Quotas L-1216C47A (standard families) and L-DB2E81BA (G and VT), as AWS gives them by default.
_NEW_ACCOUNT = {"standard": 5, "GPU": 0}
_OPERATION = "EKS: CreateNodegroup"


class Stock:
    """Of one instance type, while the account is open."""

    def __init__(self, account: Account, instance_type: str) -> None:
        self._account, self._type = account, instance_type

    def subnets(self, wanted: Sequence[str]) -> list[str]:
        """Those of the subnets in whose zones there are instances. Raises AwsError if there is none."""
        zones = {subnet: str(self._account.entries[subnet].data["zone"]) for subnet in wanted}
        dry: set[str] = set()
        if _family(self._type) == "GPU":
            if Switch.DEGRADED in self._account.switches:
                dry = set(zones.values())
            elif Switch.ZONE in self._account.switches:
                dry = {f"{self._account.region}a"}
        left = [subnet for subnet in wanted if zones[subnet] not in dry]
        if not left:
            raise AwsError(
                _OPERATION,
                "AsgInstanceLaunchFailures",
                "unexpected state 'DEGRADED', wanted target 'ACTIVE': Could not launch On-Demand Instances. "
                f"InsufficientInstanceCapacity - We currently do not have sufficient {self._type} capacity in the Availability "
                f"Zones you requested ({', '.join(sorted(set(zones.values())))}).",
            )
        return left

    def take(self) -> None:
        """One instance more. Raises AwsError above the quota."""
        if Switch.QUOTAS not in self._account.switches:
            return
        family = _family(self._type)
        running = sum(_vcpus(found.name) for found in self._account.of("instance") if _family(found.name) == family)
        if running + _vcpus(self._type) > _NEW_ACCOUNT[family]:
            raise AwsError(
                _OPERATION,
                "AsgInstanceLaunchFailures",
                "unexpected state 'CREATE_FAILED', wanted target 'ACTIVE': Could not launch On-Demand Instances. "
                "VcpuLimitExceeded - You have requested more vCPU capacity than your current vCPU limit of "
                f"{_NEW_ACCOUNT[family]} allows for the instance bucket that the specified instance type belongs to.",
            )


def _family(instance_type: str) -> str:
    return "GPU" if instance_type.startswith(("g", "vt")) else "standard"


def _vcpus(instance_type: str) -> int:
    from mistral_on_l4.planner.catalogue import load_catalogue

    return load_catalogue().instances[instance_type].vcpus
