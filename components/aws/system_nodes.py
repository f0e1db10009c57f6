"""Nodes of the stack's own cluster that have no GPU: for controllers, and one for the object store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from components.aws.node_pool import NodePool, NodePoolArgs
from components.aws.site import Site
from mistral_on_l4.config.names import POOL_LABEL, PROJECT
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner.catalogue import Catalogue

STORAGE_POOL, SYSTEM_POOL = "storage", "system"
AMI_TYPE = "AL2023_x86_64_STANDARD"
_ROOT_GIB = 40
_MB_PER_MIB = 1.048576


@dataclass(frozen=True)
class SystemNodesArgs:
    """sizes: pool -> (instance type, nodes); tags: of instances and volumes."""

    site: Site
    sizes: Mapping[str, tuple[str, int]]
    role_arn: pulumi.Input[str]
    tags: Mapping[str, str]


def system_nodes(args: SystemNodesArgs, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Their node groups. Raises pulumi.RunError if no subnet can hold them."""
    cluster, types = args.site.cluster, [instance_type for instance_type, _ in args.sizes.values()]
    # In one zone, the NAT gateway's: a volume cannot follow its pod into another, where a new node might come up.
    subnet = next(iter(args.site.subnets_offering(*types).values()), None)
    if subnet is None:
        zones = ", ".join(sorted(args.site.zones_offering(*types))) or "no zone"
        raise pulumi.RunError(
            f"{PROJECT}:network.existingSubnetIds: none of the zones {', '.join(args.site.subnets)} offers the system nodes' types "
            f"(all of them are offered in: {zones}): name a subnet in one that does"
        )
    return [
        NodePool(
            pool,
            NodePoolArgs(
                pool=pool,
                cluster_name=cluster.cluster_name,
                cluster=cluster.name,
                role_arn=args.role_arn,
                subnet_ids=[subnet],
                instance_types=[instance_type],
                count=count,
                ami_type=AMI_TYPE,
                root_gib=_ROOT_GIB,
                labels={POOL_LABEL: pool},
                tags=args.tags,
            ),
            opts,
        ).nodes
        for pool, (instance_type, count) in args.sizes.items()
    ]


def system_sizes(settings: Settings, catalogue: Catalogue) -> dict[str, tuple[str, int]]:
    """Pool -> (instance type, nodes) of the pools that the stack needs beside its GPUs; none where it adopts a cluster."""
    count, instance = catalogue.system_nodes.count, catalogue.system_nodes.instance
    if settings.cluster.existing:
        return {}
    if settings.object_store.kind == "minio":
        # The store's instance moves bytes as fast as its volume.
        return {SYSTEM_POOL: (instance, max(1, count - 1)), STORAGE_POOL: (_storage_instance(settings, catalogue), 1)}
    return {SYSTEM_POOL: (instance, count)}


def _storage_instance(settings: Settings, catalogue: Catalogue) -> str:
    """The cheapest instance without a GPU that moves as much as the store's volume; if none does, the fastest, with a warning."""
    wanted = settings.object_store.volume_throughput_mibps * _MB_PER_MIB
    rates = {name: known.ebs_mbs[1] for name, known in catalogue.instances.items() if known.gpus == 0 and known.ebs_mbs}
    if enough := [name for name, rate in rates.items() if rate >= wanted]:
        return min(enough, key=lambda name: catalogue.instances[name].usd_per_hour.get("us-east-1", float("inf")))
    fastest = max(rates, key=lambda name: rates[name])
    pulumi.log.warn(
        f"the store's volume is set to {settings.object_store.volume_throughput_mibps} MiB/s, and {fastest}, the fastest storage "
        f"node that the catalogue knows, moves {rates[fastest] / _MB_PER_MIB:.0f} at its best: lower {PROJECT}:objectStore."
        "volumeThroughputMibps, or pay for what is not used"
    )
    return fastest
