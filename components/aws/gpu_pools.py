"""The GPU pools of the settings: each a node group, declared with the cluster or behind the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from components.aws.gpu_node_pool import GpuNodePool, GpuNodePoolArgs
from components.aws.site import Site
from mistral_on_l4.config.settings import PoolSettings, Settings
from mistral_on_l4.planner.catalogue import Catalogue


@dataclass(frozen=True)
class GpuPoolsArgs:
    """release_version: of the node image; needs: what is there before a node starts; tags: of instances and volumes."""

    site: Site
    settings: Settings
    catalogue: Catalogue
    role_arn: pulumi.Input[str]
    release_version: str
    needs: Sequence[pulumi.Resource]
    tags: Mapping[str, str]


class GpuPools:
    """Node groups by pool. With `pools.start: after-seed` one is declared when its nodes are first asked for."""

    def __init__(self, args: GpuPoolsArgs, parent: pulumi.Resource) -> None:
        self._args, self._parent = args, parent
        self._later = args.settings.pools.start == "after-seed"
        early = () if self._later else args.settings.pools.groups
        self._pools = {pool.name: self._declare(pool, ()) for pool in early}

    def nodes(self, pool: str, after: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:
        """What exists when the pool's nodes do. after: what they wait for if they are declared here."""
        if pool not in self._pools:
            self._pools[pool] = self._declare(self._args.settings.pool(pool), after)
        return [self._pools[pool]]

    def _declare(self, pool: PoolSettings, after: Sequence[pulumi.Resource]) -> pulumi.Resource:
        args, site = self._args, self._args.site
        subnets = site.subnets_offering(pool.instance_type)
        if not subnets:
            raise pulumi.RunError(
                f"pool {pool.name!r}: none of the zones {', '.join(site.subnets)} offers {pool.instance_type} (offered in: "
                f"{', '.join(site.offered[pool.instance_type]) or 'no zone of the region'})"
            )
        return GpuNodePool(
            f"pool-{pool.name}",
            GpuNodePoolArgs(
                settings=pool,
                instance=args.catalogue.instances[pool.instance_type],
                cluster_name=site.cluster.cluster_name,
                cluster=site.cluster.name,
                role_arn=args.role_arn,
                subnets=subnets,
                root_gib=int(args.catalogue.rates.root_volume_gb),
                release_version=args.release_version,
                release_pinned=args.settings.cluster.gpu_release_version is not None,
                tags=args.tags,
            ),
            pulumi.ResourceOptions(parent=self._parent, depends_on=[*args.needs, *after]),
        ).nodes
