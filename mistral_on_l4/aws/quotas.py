"""Quotas of running instances: how many vCPUs a stack asks for, and how many the account grants. Reads only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mistral_on_l4.config.names import STACK_TAG
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner.catalogue import Catalogue

Kind = Literal["ON_DEMAND", "SPOT", "STANDARD"]

# In vCPUs: G and VT on demand, and on spot; and the standard families, for system nodes.
CODES: Mapping[Kind, str] = {"ON_DEMAND": "L-DB2E81BA", "SPOT": "L-3819A6DF", "STANDARD": "L-1216C47A"}
NAMES: Mapping[Kind, str] = {"ON_DEMAND": "GPU nodes on demand", "SPOT": "GPU nodes on spot", "STANDARD": "system nodes"}
_FAMILIES: Mapping[Kind, str] = {
    "ON_DEMAND": r"(gr?|vt)[0-9]",
    "SPOT": r"(gr?|vt)[0-9]",
    "STANDARD": r"(?!mac|inf|hpc|dl|trn)[acdhimrtz][a-z]*[0-9]",
}


@dataclass(frozen=True)
class Grant:
    """limit: vCPUs that may run; in_use: of them, those that run for others than the stack."""

    limit: float
    in_use: int = 0


def needed(settings: Settings, catalogue: Catalogue) -> dict[Kind, int]:
    """vCPUs of all the stack's nodes, by the quota that they count against."""
    asked: Counter[Kind] = Counter()
    for pool in settings.pools.groups:
        # Which of several types AWS takes is its own choice.
        asked[pool.capacity_type] += max(catalogue.instances[name].vcpus for name in pool.instance_types) * pool.count
    if not settings.cluster.existing:
        system = catalogue.system_nodes
        asked["STANDARD"] += catalogue.instances[system.instance].vcpus * system.count
    return {kind: count for kind, count in asked.items() if count}


def granted(client: Callable[[str], Any], stack: str, kinds: Iterable[Kind]) -> dict[Kind, Grant]:
    """Asks the account. client: boto3's, by service. Raises botocore's errors."""
    return {kind: Grant(_limit(client, CODES[kind]), _in_use(client, stack, kind)) for kind in kinds}


def shortage(kind: Kind, asked: int, grant: Grant, region: str) -> str | None:
    """What is missing, with the command that asks AWS for it; None where the quota suffices."""
    total = asked + grant.in_use
    if total <= grant.limit:
        return None
    used = f" beside {grant.in_use} in use" if grant.in_use else ""
    return (
        f"{NAMES[kind]} need {asked} vCPU{used}, and the account's quota {CODES[kind]} is {grant.limit:.0f}: "
        f"`{increase(kind, total, region)}` asks for more, which may take AWS a day"
    )


def increase(kind: Kind, total: int, region: str) -> str:
    """The command that asks AWS for a larger quota."""
    return (
        f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {CODES[kind]} --desired-value {total} "
        f"--region {region}"
    )


def _limit(client: Callable[[str], Any], code: str) -> float:
    quotas = client("service-quotas")
    try:
        return float(quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
    except quotas.exceptions.NoSuchResourceException:
        # An account that never asked for more has AWS's default.
        return float(quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])


def _in_use(client: Callable[[str], Any], stack: str, kind: Kind) -> int:
    """vCPUs of running instances of the quota's families; those of the stack itself are already among those needed."""
    ec2 = client("ec2")
    filters = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    running: Counter[str] = Counter()
    for page in ec2.get_paginator("describe_instances").paginate(Filters=filters):
        for instance in (item for group in page["Reservations"] for item in group["Instances"]):
            mine = {tag["Key"]: tag["Value"] for tag in instance.get("Tags") or []}.get(STACK_TAG) == stack
            spot = instance.get("InstanceLifecycle") == "spot"
            if not mine and spot == (kind == "SPOT") and re.match(_FAMILIES[kind], instance["InstanceType"]):
                running[instance["InstanceType"]] += 1
    if not running:
        return 0
    described = ec2.describe_instance_types(InstanceTypes=sorted(running))["InstanceTypes"]
    return sum(found["VCpuInfo"]["DefaultVCpus"] * running[found["InstanceType"]] for found in described)
