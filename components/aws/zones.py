"""Availability zones of the region that offer the instance types, asked of AWS and never written down here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws
from pulumi_aws import ec2

from mistral_on_l4.aws.account import ZONES_WITHOUT_EKS

# A control plane needs two; a third gives a pool one more place to find a GPU, and costs nothing by itself.
MOST = 3


def offering_zones(instance_types: Sequence[str], ask: pulumi.InvokeOptions) -> dict[str, list[str]]:
    """Instance type -> names of the zones that offer it and can hold an EKS cluster, sorted."""
    usable = aws.get_availability_zones(
        state="available",
        exclude_zone_ids=list(ZONES_WITHOUT_EKS),
        filters=[{"name": "zone-type", "values": ["availability-zone"]}],
        opts=ask,
    )
    offered = ec2.get_instance_type_offerings(
        location_type="availability-zone",
        filters=[{"name": "instance-type", "values": sorted(set(instance_types))}],
        opts=ask,
    )
    zones: dict[str, list[str]] = {instance_type: [] for instance_type in instance_types}
    for instance_type, zone in zip(offered.instance_types, offered.locations, strict=True):
        if zone in usable.names:
            zones[instance_type].append(zone)
    return {instance_type: sorted(places) for instance_type, places in zones.items()}


def common_zones(region: str, offered: Mapping[str, Sequence[str]]) -> list[str]:
    """Up to three zones that offer every type. Raises pulumi.RunError, type by type, if there are not two."""
    common = sorted(set.intersection(*(set(zones) for zones in offered.values())))
    if len(common) < 2:
        by_type = "; ".join(f"{name}: {', '.join(zones) or 'none'}" for name, zones in sorted(offered.items()))
        raise pulumi.RunError(
            f"region {region} has {len(common) or 'no'} zone{'' if len(common) == 1 else 's'} with all instance types of this "
            f"stack, and EKS needs two ({by_type}): choose another region (pulumi config set aws:region) or other types "
            "(mistral-on-l4:pools.groups)"
        )
    return common[:MOST]
