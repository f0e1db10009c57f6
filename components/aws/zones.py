"""Availability zones of the region that offer the instance types, asked of AWS and never written down here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from components.aws.resources import lookup
from mistral_on_l4.aws.account import ZONES_WITHOUT_EKS

# A control plane needs two; a third gives a pool one more place to find a GPU, and costs nothing by itself.
MOST = 3


def offering_zones(region: str, instance_types: Sequence[str]) -> dict[str, list[str]]:
    """Instance type -> names of the zones that offer it and can hold an EKS cluster, sorted."""
    usable = lookup(
        "aws:index/getAvailabilityZones:getAvailabilityZones",
        state="available",
        exclude_zone_ids=list(ZONES_WITHOUT_EKS),
        filters=[{"name": "zone-type", "values": ["availability-zone"]}],
        region=region,
    )
    offered = lookup(
        "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings",
        location_type="availability-zone",
        filters=[{"name": "instance-type", "values": sorted(set(instance_types))}],
        region=region,
    )
    zones: dict[str, list[str]] = {instance_type: [] for instance_type in instance_types}
    for instance_type, zone in zip(offered["instanceTypes"], offered["locations"], strict=True):
        if zone in usable["names"]:
            zones[instance_type].append(zone)
    return {instance_type: sorted(found) for instance_type, found in zones.items()}


def common_zones(region: str, offered: Mapping[str, Sequence[str]]) -> list[str]:
    """Up to three zones that offer every type. Raises pulumi.RunError, type by type, if there are not two."""
    common = sorted(set.intersection(*(set(found) for found in offered.values())))
    if len(common) < 2:
        by_type = "; ".join(f"{name}: {', '.join(found) or 'none'}" for name, found in sorted(offered.items()))
        raise pulumi.RunError(
            f"region {region} has {len(common) or 'no'} zone{'' if len(common) == 1 else 's'} with all instance types of this "
            f"stack, and EKS needs two ({by_type}): choose another region (pulumi config set aws:region) or other types "
            "(mistral-on-l4:pools.groups)"
        )
    return common[:MOST]
