"""The GPU pools of the settings: each a node group, declared with the cluster or behind the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import pulumi

from components.aws.gpu_node_pool import GpuNodePool, GpuNodePoolArgs
from components.aws.site import Site
from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.settings import PoolSettings, Settings
from mistral_on_l4.planner import plan_stack
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.pools import same_gpus


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
        subnets = site.subnets_offering(*pool.instance_types)
        if not subnets:
            raise pulumi.RunError(
                f"pool {pool.name!r}: none of the zones {', '.join(site.subnets)} offers {' and '.join(pool.instance_types)} "
                f"(offered in: {', '.join(sorted(site.zones_offering(*pool.instance_types))) or 'no zone of the region'})"
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
                where_else=lambda: where_else(pool, args.settings, args.catalogue, list(subnets)),
            ),
            pulumi.ResourceOptions(parent=self._parent, depends_on=[*args.needs, *after]),
        ).nodes


def where_else(pool: PoolSettings, settings: Settings, catalogue: Catalogue, zones: Sequence[str]) -> str:
    """For a pool that EC2 has no instances for: where it looked, which other types would do, cheapest first."""
    tried = f"{', '.join(pool.instance_types)} was asked for in {', '.join(zones)}"
    types = next_types(pool, settings, catalogue)
    if not types:
        return f"{tried}; no other type of the catalogue holds the pool's services"
    group = f"{PROJECT}:pools.groups.{pool.name}"
    alike = [name for name in types if pool.capacity_type == "SPOT" and same_gpus(pool, name, catalogue)]
    if alike:
        key = f"{group}.alsoInstanceTypes[{len(pool.also_instance_types)}]"
        command = f"pulumi config set --path '{key}' {alike[0]} -s {pulumi.get_stack()}"
        return f"{tried}; let AWS choose among more types: `{command}`, then `pulumi up`"
    key = f"{group}.instanceType"
    return (
        f"{tried}; by the plan its services also run on {', '.join(types)}: `pulumi config set --path '{key}' {types[0]} -s "
        f"{pulumi.get_stack()}`, then `pulumi up`"
    )


def next_types(pool: PoolSettings, settings: Settings, catalogue: Catalogue, most: int = 3) -> list[str]:
    """Other instance types on which every service of the pool loads, cheapest first."""
    names = {service.name for service in settings.enabled_services if service.pool == pool.name}
    held = []
    for name, instance in catalogue.instances.items():
        if name in pool.instance_types or not instance.gpus:
            continue
        groups = tuple(
            group.model_copy(update={"instance_type": name, "also_instance_types": ()}) if group.name == pool.name else group
            for group in settings.pools.groups
        )
        other = settings.model_copy(update={"pools": settings.pools.model_copy(update={"groups": groups})})
        plan = plan_stack(other, catalogue=catalogue)
        if all(service.loads for service in plan.services if service.name in names):
            held.append((instance.usd_per_hour.get(settings.region, inf), name))
    return [name for _, name in sorted(held)[:most]]
