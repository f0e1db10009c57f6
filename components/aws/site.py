"""Where a stack's nodes run: a cluster with subnets in the zones that offer them, made by the stack or there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from components.aws.cluster import AdoptedCluster, Cluster, ClusterArgs, adopt, refuse_foreign_cluster
from components.aws.network import Network, NetworkArgs, existing_subnets
from components.aws.refusals import refuse_another_stack, refuse_principals, refuse_small_quotas
from components.aws.zones import common_zones
from mistral_on_l4.config.names import PROJECT, UP_STOPS
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner.catalogue import Catalogue


@dataclass(frozen=True)
class Site:
    """subnets: zone -> id of a subnet for nodes; offered: instance type -> zones of the region that have it."""

    cluster: Cluster | AdoptedCluster
    subnets: Mapping[str, pulumi.Input[str]]
    offered: Mapping[str, Sequence[str]]

    def subnets_offering(self, *instance_types: str) -> dict[str, pulumi.Input[str]]:
        """Those of the subnets whose zones offer all of the types."""
        zones = self.zones_offering(*instance_types)
        return {zone: subnet for zone, subnet in self.subnets.items() if zone in zones}

    def zones_offering(self, *instance_types: str) -> set[str]:
        return set.intersection(*(set(self.offered[name]) for name in instance_types))


@dataclass(frozen=True)
class SiteArgs:
    """name: of the platform, for its cluster; caller_arn: of whoever runs the program; signer: the AWS profile, if one is named."""

    name: str
    settings: Settings
    cluster_name: str
    offered: Mapping[str, Sequence[str]]
    caller_arn: str
    signer: str | None
    rehearsal: bool
    catalogue: Catalogue


def made_site(args: SiteArgs, parent: pulumi.Resource) -> Site:
    """Network and control plane of the stack's own. Raises pulumi.RunError where AWS or another stack would be in the way."""
    settings, ask = args.settings, pulumi.InvokeOptions(parent=parent)
    exists = refuse_foreign_cluster(args.cluster_name, settings.region, pulumi.get_stack(), ask)
    refuse_principals(settings.cluster.admin_principal_arns, None if exists else args.caller_arn)
    lent = bool(settings.network.existing_vpc_id)
    if not settings.cluster.public_access_cidrs:
        _private_api(empty=not (lent or exists))
    refuse_small_quotas(settings, args.catalogue, args.signer, args.rehearsal)
    network = Network(
        args.cluster_name,
        NetworkArgs(settings.network, settings.region, common_zones(settings.region, args.offered)),
        pulumi.ResourceOptions(parent=parent),
    )
    cluster = Cluster(
        args.name,
        ClusterArgs(settings.cluster, args.cluster_name, list(network.subnets.values()), inside=lent),
        # Nodes need the way out, and the control plane goes before the network does.
        pulumi.ResourceOptions(parent=parent, depends_on=network.ready),
    )
    return Site(cluster, network.subnets, args.offered)


def adopted_site(args: SiteArgs, parent: pulumi.Resource) -> Site:
    """A cluster that is there, in its own subnets or in those that are named. Raises pulumi.RunError if it cannot be used."""
    settings, ask = args.settings, pulumi.InvokeOptions(parent=parent)
    cluster = adopt(args.cluster_name, settings.region, ask)
    if not args.rehearsal:
        refuse_another_stack(cluster, settings, args.signer)
    refuse_small_quotas(settings, args.catalogue, args.signer, args.rehearsal)
    subnets = existing_subnets(settings.network.existing_subnet_ids or cluster.subnet_ids, cluster.vpc, ask)
    return Site(cluster, subnets, args.offered)


def _private_api(empty: bool) -> None:
    """empty: the network holds nobody who could reach the API. Raises pulumi.RunError then, unless nothing is made yet."""
    command = f"pulumi config set --path '{PROJECT}:cluster.publicAccessCidrs[0]' 203.0.113.7/32 -s {pulumi.get_stack()}"
    inside = "which nobody is in yet" if empty else "so this command must run there"
    text = (
        f"the cluster's API will answer inside its VPC only, {inside}; to reach it from here, `{command}` with your own address "
        "(`curl https://checkip.amazonaws.com` tells it)"
    )
    if not empty:
        pulumi.log.warn(text)
    elif pulumi.runtime.is_dry_run():
        pulumi.log.warn(UP_STOPS + text)
    else:
        # Both GPU pools would start, and bill, before the first Kubernetes object fails.
        raise pulumi.RunError(text)
