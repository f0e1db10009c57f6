"""What a stack costs: GPU nodes, what bills beside them by the hour, and what one `pulumi up` costs once."""

from __future__ import annotations

from collections.abc import Mapping

from mistral_on_l4.config.machine_disks import root_gib
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner.catalogue.schema import Catalogue, RegionPrices
from mistral_on_l4.planner.plan import CostLine

HOURS_PER_MONTH = 730
ZONES = 3  # what `one-per-zone` means for NAT gateways
GP3_INCLUDED_MBS, GP3_INCLUDED_IOPS = 125, 3000
# EBS gives a gp3 volume a quarter MiB/s per provisioned IOPS at most, so the storage class asks for four per MiB/s.
_IOPS_PER_MBS = 4
_GIB = {"Mi": 1 / 1024, "Gi": 1, "Ti": 1024}


def pool_costs(settings: Settings, catalogue: Catalogue) -> tuple[CostLine, ...]:
    """One line per pool of GPU nodes; None where the catalogue knows no price for the region."""
    lines = []
    for pool in settings.pools.groups:
        price = catalogue.instance(pool.instance_type).usd_per_hour.get(settings.region)
        what = f"pool {pool.name}: {pool.count}x {pool.instance_type}"
        lines.append(CostLine(what, pool.count, None if price is None else price * pool.count))
    return tuple(lines)


def fixed_costs(settings: Settings, catalogue: Catalogue) -> tuple[CostLine, ...]:
    """What bills by the hour whether or not a GPU runs: volumes, and what a cluster of the stack's own needs."""
    if not settings.traits.nodes_bill:
        return ()
    prices = catalogue.prices.get(settings.region)
    # A class of the cluster's own asks for no more than gp3 includes.
    included = settings.traits.given_cluster
    lines = [
        _volume("object store volume", size, 0 if included else throughput, prices) for size, throughput in _store_volumes(settings)
    ]
    lines.append(_volume("registry volume", settings.registry.volume_size, 0, prices))
    if settings.traits.given_cluster:
        disks = sum(pool.count * root_gib(catalogue.instance(pool.instance_type).gpus) for pool in settings.pools.groups)
        lines.append(_volume("root volumes of GPU machines", f"{disks}Gi", 0, prices))
    if not settings.traits.makes_cluster:
        return tuple(lines)
    gpu_nodes = sum(pool.count for pool in settings.pools.groups)
    system = catalogue.system_nodes
    nodes = gpu_nodes
    if not settings.cluster.existing:
        price = catalogue.instance(system.instance).usd_per_hour.get(settings.region)
        nodes += system.count
        lines.insert(0, CostLine("EKS control plane", 1, prices.eks_usd_per_hour if prices else None))
        lines.append(CostLine(f"system nodes {system.instance}", system.count, None if price is None else price * system.count))
    if not settings.network.existing_vpc_id and not settings.cluster.existing:
        gateways = ZONES if settings.network.nat_gateways == "one-per-zone" else 1
        each = prices.nat_usd_per_hour + prices.public_ipv4_usd_per_hour if prices else None
        lines.append(CostLine("NAT gateways with their addresses", gateways, None if each is None else each * gateways))
    root = _volume("", f"{catalogue.rates.root_volume_gb:.0f}Gi", 0, prices).usd_per_hour
    lines.append(CostLine("root volumes of nodes", nodes, None if root is None else root * nodes))
    return tuple(lines)


def up_costs(
    settings: Settings, catalogue: Catalogue, weights_bytes: Mapping[str, int], image_gb: float, service_bytes: int
) -> tuple[CostLine, ...]:
    """What `pulumi up` costs once. weights_bytes: from the hub, by prefix; service_bytes: what all services download.

    Counts are GB. Zones are counted as if store and GPU nodes never shared one, images as if every node pulled its own.
    """
    if not settings.traits.makes_cluster:
        return ()
    prices = catalogue.prices.get(settings.region)
    nodes = sum(pool.count for pool in settings.pools.groups)
    into, across, images = sum(weights_bytes.values()) / 1e9, service_bytes / 1e9, nodes * image_gb

    def line(what: str, gigabytes: float, usd_per_gb: float | None) -> CostLine:
        return CostLine(what, gigabytes, None if usd_per_gb is None else gigabytes * usd_per_gb)

    lines = [
        line("weights from the store to GPU nodes, between zones (GB)", across, prices.cross_zone_usd_per_gb if prices else None)
    ]
    if not settings.network.existing_vpc_id:
        nat = prices.nat_usd_per_gb if prices else None
        lines.insert(0, line("weights from the hub through NAT (GB)", into, nat))
        lines.append(line("engine images through NAT (GB)", images, nat))
    return tuple(lines)


def _store_volumes(settings: Settings) -> list[tuple[str, int]]:
    store = settings.object_store
    return [] if store.kind == "external" else [(store.volume_size, store.volume_throughput_mibps)]


def _volume(what: str, size: str, throughput: int, prices: RegionPrices | None) -> CostLine:
    """A gp3 volume; throughput in MiB/s, of which the first 125 cost nothing, as the first 3,000 IOPS do. Billed per GiB-month."""
    gib = int(size[:-2]) * _GIB[size[-2:]]
    if prices is None:
        return CostLine(what, 1, None)
    month = gib * prices.gp3_usd_per_gb_month + max(0, throughput - GP3_INCLUDED_MBS) * prices.gp3_usd_per_mbs_month
    month += max(0, throughput * _IOPS_PER_MBS - GP3_INCLUDED_IOPS) * prices.gp3_usd_per_iops_month
    return CostLine(what, 1, month / HOURS_PER_MONTH)
