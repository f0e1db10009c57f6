"""A pool of NVIDIA nodes: labelled, tainted, with the driver in the image and the weights on the instance's own disks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pulumi

from components.aws.node_pool import NodePool, NodePoolArgs
from mistral_on_l4.config.names import GPU_PRESENT_LABEL, GPU_TAINT, POOL_LABEL
from mistral_on_l4.config.settings import PoolSettings
from mistral_on_l4.planner.catalogue import Instance

AMI_TYPE = "AL2023_x86_64_NVIDIA"
# An image of 17.5 GB unpacked and a 47 GB checkpoint, twice, where the instance has no disk of its own.
_WITHOUT_NVME_GIB = 200
# Images arrive at about this rate; above 125 MiB/s a root volume costs more, and is only paid where it is the place for weights.
_WITHOUT_NVME_MIBPS = 500


@dataclass(frozen=True)
class GpuNodePoolArgs:
    """subnets: zone -> subnet, of the zones that offer the instance types; root_gib: where the instance brings NVMe; where_else:
    what to say when none of them has instances left.
    """

    settings: PoolSettings
    instance: Instance
    cluster_name: str
    cluster: pulumi.Input[str]
    role_arn: pulumi.Input[str]
    subnets: Mapping[str, pulumi.Input[str]]
    root_gib: int
    release_version: str
    release_pinned: bool
    tags: Mapping[str, str]
    where_else: Callable[[], str] | None = None


class GpuNodePool(pulumi.ComponentResource):
    """`nodes`: exists when the pool's nodes do."""

    nodes: pulumi.Resource

    def __init__(self, name: str, args: GpuNodePoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:aws:GpuNodePool", name, None, opts)
        settings, nvme = args.settings, args.instance.nvme_gb > 0
        pool = NodePool(
            name,
            NodePoolArgs(
                pool=settings.name,
                cluster_name=args.cluster_name,
                cluster=args.cluster,
                role_arn=args.role_arn,
                subnet_ids=list(args.subnets.values()),
                instance_types=settings.instance_types,
                count=settings.count,
                capacity_type=settings.capacity_type,
                ami_type=AMI_TYPE,
                release_version=args.release_version,
                release_pinned=args.release_pinned,
                scarce=True,
                nvme=nvme,
                root_gib=args.root_gib if nvme else _WITHOUT_NVME_GIB,
                root_throughput=125 if nvme else _WITHOUT_NVME_MIBPS,
                labels={POOL_LABEL: settings.name, GPU_PRESENT_LABEL: "true"},
                taints={GPU_TAINT["key"]: (GPU_TAINT["value"], "NO_SCHEDULE")},
                tags=args.tags,
                where_else=args.where_else,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        self.nodes = pool.nodes
        self.register_outputs({})
