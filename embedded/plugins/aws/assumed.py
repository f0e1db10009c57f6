"""What a stack's settings say is there already, as an account has it: for previews without one, which could not look it up.

Made up, but for the names: zones are chosen so that they offer the stack's instance types, as an owner would have chosen them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from embedded.plugins.aws.ledger import Account, AwsError, Entry, Ledger, new_id
from embedded.plugins.aws.lookups import offerings
from embedded.plugins.marks import ASSUMED_SERVER
from mistral_on_l4.config.settings import Settings


def assume(ledger: Ledger, cluster_name: str, settings: Settings) -> list[str]:
    """Fills an account with nothing but the cluster and the network that the settings name; answers what that is, in words."""
    network, adopted = settings.network, settings.cluster.existing
    with ledger.open() as account:
        account.entries.clear()
        if not adopted and not network.existing_vpc_id:
            return []
        vpc = network.existing_vpc_id or new_id("vpc")
        subnets = network.existing_subnet_ids or (new_id("subnet"), new_id("subnet"))
        zones = _zones(account, {pool.instance_type for pool in settings.pools.groups}, len(subnets))
        for index, (subnet, zone) in enumerate(zip(subnets, zones, strict=True)):
            data = {"zone": zone, "cidr": f"10.0.{index}.0/24"}
            account.add(Entry(subnet, "subnet", subnet, {"vpc": [vpc]}, data, "ACTIVE", ours=False))
        words = []
        if adopted:
            found: dict[str, Any] = {
                "arn": account.arn("eks", f"cluster/{cluster_name}"),
                "createdAt": datetime.now(UTC).isoformat(),
                "endpoint": ASSUMED_SERVER,
                "ca": "",
                "tags": {},
                "version": settings.cluster.version,
            }
            account.add(Entry(cluster_name, "cluster", cluster_name, {"subnet": [*subnets]}, found, "ACTIVE", ours=False))
            words.append(f"EKS cluster {cluster_name} with Kubernetes {settings.cluster.version}")
        if network.existing_vpc_id:
            words.append(f"network {vpc} with {', '.join(subnets)}")
        return words


def _zones(account: Account, instance_types: set[str], count: int) -> Sequence[str]:
    """As many zones, those that offer every type before the others, and again from the first."""
    try:
        pairs = offerings(account.region)
    except AwsError:
        # The program's own question says what is wrong with the region.
        return [f"{account.region}{'ab'[index % 2]}" for index in range(count)]
    offered = {zone: {name for name, place in pairs if place == zone} for zone in {place for _, place in pairs}}
    zones = sorted(offered, key=lambda zone: (not instance_types <= offered[zone], zone))
    return [zones[index % len(zones)] for index in range(count)]
