"""The plan of a whole stack, from its settings alone: no network, no Pulumi."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.sections import MAX_NODES, PoolSettings, ServiceSettings, Settings
from mistral_on_l4.planner import cost, hosting
from mistral_on_l4.planner.catalogue import Catalogue, Engine, load_catalogue
from mistral_on_l4.planner.catalogue.schema import Reserved
from mistral_on_l4.planner.flags import check_flags
from mistral_on_l4.planner.plan import PlanError, ServicePlan, StackPlan
from mistral_on_l4.planner.pools import mixtures, same_gpus
from mistral_on_l4.planner.remedies import remedies_for
from mistral_on_l4.planner.request import ServiceRequest, Workload
from mistral_on_l4.planner.service import Verdict, judge, plan_service

MIB = 2**20


@dataclass(frozen=True)
class Place:
    """What the services of a pool share: how many GPUs they ask for together, and which of them no node is left for."""

    gpus: int
    unplaced: Mapping[str, str]


def plan_stack(
    settings: Settings,
    *,
    stack: str = "",
    engine: str | None = None,
    catalogue: Catalogue | None = None,
    workload: Workload | None = None,
) -> StackPlan:
    """Plans every enabled service of a stack. Raises PlanError for a name that the catalogue does not know.

    engine: of the catalogue, instead of the one that the platform pins; catalogue: instead of the shipped one, for instance with
    live prices. A service that cannot load is no error: see StackPlan.misfits.
    """
    catalogue = catalogue or load_catalogue()
    catalogue.known_region(settings.region)
    if wrong := list(mixtures(settings, catalogue)):
        raise PlanError("\n".join(wrong))
    image_gb = _engine(catalogue, engine, settings)[3]
    reserved = catalogue.reserved[settings.traits.node_reserve]
    pools = {pool.name: pool for pool in settings.pools.groups}
    requests = requests_of(settings, catalogue, engine=engine, workload=workload)
    sizes = {
        service.prefix: request.file_weights.total_bytes
        for service, request in zip(settings.enabled_services, requests, strict=True)
    }
    pods = [pod for request in requests if (pod := hosting.pod_resources(request, catalogue, reserved, 0.0))]
    moves = _moves(settings, catalogue, sizes, hosting.downloader(pods))
    places = _places(settings, pools, catalogue)
    services = tuple(
        _planned(
            service,
            request,
            pools[service.pool],
            settings,
            catalogue,
            reserved,
            places[service.pool],
            moves[service.prefix],
            image_gb,
        )
        for service, request in zip(settings.enabled_services, requests, strict=True)
    )
    downloaded = sum(sizes[service.prefix] for service in settings.enabled_services)
    return StackPlan(
        stack=stack,
        platform=settings.platform.value,
        region=settings.region,
        services=services,
        pools=cost.pool_costs(settings, catalogue),
        fixed=cost.fixed_costs(settings, catalogue),
        up=cost.up_costs(settings, catalogue, sizes, image_gb, downloaded),
        notes=(*_notes(settings, catalogue, services), *_start_note(settings, catalogue, services)),
    )


def requests_of(
    settings: Settings, catalogue: Catalogue, *, engine: str | None = None, workload: Workload | None = None
) -> list[ServiceRequest]:
    """What is asked of the planner for each enabled service. Raises PlanError for a name that the catalogue does not know."""
    engine_name, record, image, _ = _engine(catalogue, engine, settings)
    pools = {pool.name: pool for pool in settings.pools.groups}
    return [
        _request(service, pools[service.pool], catalogue, engine_name, record, image, workload or Workload())
        for service in settings.enabled_services
    ]


def _engine(catalogue: Catalogue, asked: str | None, settings: Settings) -> tuple[str, Engine, str, float]:
    """(name, record, image, unpacked GB) of the engine that the platform runs."""
    images = settings.traits.engine_images
    name = asked or catalogue.engine_of(images)
    record = catalogue.engine(name)
    pinned = record.images.get(images)
    if pinned is None and not asked:
        raise PlanError(f"no image of {name} is pinned for platform {settings.platform.value}")
    # An engine may be asked about before any image of it is pinned: its pull is then taken for as long as the default's.
    usual = catalogue.engines[catalogue.engine_of(images)].images[images]
    return name, record, pinned.reference if pinned else "", (pinned or usual).unpacked_gb


def _request(
    service: ServiceSettings,
    pool: PoolSettings,
    catalogue: Catalogue,
    engine_name: str,
    engine: Engine,
    image: str,
    workload: Workload,
) -> ServiceRequest:
    model = catalogue.model(service.model)
    variant = model.variants.get(service.variant.value)
    if variant is None:
        raise PlanError(f"{service.name}: {service.model} has no variant {service.variant.value}: {', '.join(model.variants)}")
    instance = catalogue.instance(pool.instance_type)
    if instance.gpu is None:
        raise PlanError(f"{service.name}: pool {pool.name} is of {pool.instance_type}, which has no GPU")
    request = ServiceRequest(
        name=service.name,
        model=service.model,
        variant=service.variant.value,
        checkpoint=service.repository or variant.repository,
        architecture=model.architecture,
        quantization=variant.quantization,
        gpu_name=instance.gpu,
        gpu=catalogue.gpu(instance.gpu),
        gpus=service.tensor_parallel_size,
        engine_name=engine_name,
        engine=engine,
        image=image,
        max_model_len=service.max_model_len,
        gpu_memory_utilization=service.gpu_memory_utilization,
        instance_name=pool.instance_type,
        instance=instance,
        max_num_seqs=service.max_num_seqs,
        kv_cache_dtype=service.kv_cache_dtype,
        cpu_offload=service.cpu_offload,
        extra_args=service.extra_args,
        largest_file_gb=variant.largest_file_gb,
        workload=workload,
    )
    if request.extra_args:
        check_flags(request)
    return request


def _planned(
    service: ServiceSettings,
    request: ServiceRequest,
    pool: PoolSettings,
    settings: Settings,
    catalogue: Catalogue,
    reserved: Reserved,
    place: Place,
    moves: hosting.Moves,
    image_gb: float,
) -> ServicePlan:
    verdict = judge(request, catalogue, reserved)
    if verdict.loads and service.name in place.unplaced:
        verdict = Verdict(0.0, place.unplaced[service.name], place.unplaced[service.name])
    if settings.traits.embedded:
        ready = hosting.local_readiness(catalogue, settings.local.engine)
    else:
        ready = hosting.readiness(request, catalogue, image_gb, moves)
    price = request.instance.usd_per_hour.get(settings.region) if request.instance else None
    # A pool's nodes bill whole: its services share them by GPUs. A parked pool is priced as it will be.
    share = max(1, pool.count) * request.gpus / place.gpus
    plan = plan_service(request, catalogue, reserved, verdict, ready, None if price is None else price * share)
    warnings = list(plan.warnings)
    if pool.count == 0:
        warnings.append(f"pool {pool.name} has no nodes (parked): the service waits until it has")
    # Where only room is missing, another card or precision is no remedy.
    crowded = plan.reason == place.unplaced.get(service.name)
    remedies = () if plan.fits or crowded else remedies_for(request, catalogue, reserved, settings.region, plan.usd_per_hour)
    return replace(plan, remedies=remedies, warnings=tuple(warnings))


def _places(settings: Settings, pools: Mapping[str, PoolSettings], catalogue: Catalogue) -> dict[str, Place]:
    """Puts the services of each pool on its nodes in order. A pool without nodes is parked, not too small."""
    asked: dict[str, list[ServiceSettings]] = defaultdict(list)
    for service in settings.enabled_services:
        asked[service.pool].append(service)
    places = {}
    for name, services in asked.items():
        pool = pools[name]
        each = catalogue.instance(pool.instance_type).gpus
        total = sum(service.tensor_parallel_size for service in services)
        places[name] = Place(total, _unplaced(services, pool, each, total) if pool.count else {})
    return places


def _unplaced(services: list[ServiceSettings], pool: PoolSettings, each: int, total: int) -> dict[str, str]:
    """Service -> why no node is left for it, with the number of nodes that would do. each: GPUs of a node; total: asked for."""
    # Free GPUs by how many nodes have just as many: as many buckets as a node has GPUs, so it stays linear in services.
    free = {each: pool.count}
    # The same of nodes that the pool would need beside its own.
    added: dict[int, int] = {}
    names, nodes = [], pool.count
    for service in services:
        size = service.tensor_parallel_size
        if (room := _smallest(free, size)) is not None:
            free[room] -= 1
            free[room - size] = free.get(room - size, 0) + 1
            continue
        names.append(service.name)
        if size > each:
            continue  # no node of this type would do, and the plan of the service says so
        if (room := _smallest(added, size)) is None:
            nodes, room = nodes + 1, each
            added[each] = added.get(each, 0) + 1
        added[room] -= 1
        added[room - size] = added.get(room - size, 0) + 1
    has = f"{pool.count}x {pool.instance_type} {'has' if pool.count == 1 else 'have'} {_gpus(pool.count * each)}"
    key = f"{PROJECT}:pools.groups.{pool.name}.count"
    larger = f"`pulumi config set --path '{key}' {nodes}`, or " if nodes <= MAX_NODES else ""
    reason = f"no GPU is left in pool {pool.name}: {has}, its services ask for {total}: {larger}give the service a pool of its own"
    return dict.fromkeys(names, reason)


def _smallest(free: Mapping[int, int], size: int) -> int | None:
    """The smallest room for `size` GPUs that a node has; free: nodes by how many of their GPUs are free."""
    return next((left for left in sorted(free) if left >= size and free[left]), None)


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _moves(
    settings: Settings, catalogue: Catalogue, sizes: Mapping[str, int], downloader: hosting.Downloader
) -> dict[str, hosting.Moves]:
    """Rates of the store: its volume, and the disk bandwidth and network of the node it is on."""
    after = settings.pools.start == "after-seed"
    node = catalogue.instance(catalogue.system_nodes.instance)
    store = settings.object_store
    network = node.network_gbits * 1000 / 8
    if store.kind == "external":
        read = write = catalogue.rates.local_disk_mbs
    else:
        burst = node.ebs_mbs[1] if node.ebs_mbs else store.volume_throughput_mibps
        volume = store.volume_throughput_mibps * MIB / 1e6
        read = write = min(volume, burst, network)
    minutes = hosting.seed_minutes(sizes, min(catalogue.rates.hub_mbs, write))
    download = downloader.cores * catalogue.rates.download_core_mbs
    return {prefix: hosting.Moves(read, download, minutes[prefix], after) for prefix in sizes}


def _start_note(settings: Settings, catalogue: Catalogue, services: Sequence[ServicePlan]) -> Iterator[str]:
    """What `pools.start` costs or saves: GPU nodes that bill while the weights are still on their way."""
    prices = [line.usd_per_hour for line in cost.pool_costs(settings, catalogue)]
    if not settings.traits.nodes_bill or not services or None in prices:
        return
    per_hour = sum(price for price in prices if price is not None)
    seed = max(service.readiness.seed for service in services)
    before = services[0].readiness.node + services[0].readiness.image_pull
    if settings.pools.start == "with-seed":
        yield (
            f"pools.start with-seed: GPU nodes bill ${per_hour * seed / 60:.2f} while weights are seeded ({seed:.0f} min); "
            f"after-seed saves that, and is ready {min(seed, before):.0f} min later"
        )
    else:
        yield f"pools.start after-seed: saves ${per_hour * seed / 60:.2f}; with-seed is ready {min(seed, before):.0f} min sooner"


def _again(services: Sequence[ServicePlan]) -> str:
    """How long a service is away whose node has gone, in words; the weights are in the store already."""
    phases = [service.readiness for service in services]
    minutes = [ready.node + ready.image_pull + ready.download + ready.load for ready in phases]
    if not minutes:
        return ""
    least, most = f"{min(minutes):.0f}", f"{max(minutes):.0f}"
    return f" (about {least if least == most else f'{least} to {most}'} min)"


def _notes(settings: Settings, catalogue: Catalogue, services: Sequence[ServicePlan]) -> list[str]:
    notes = [settings.traits.plan_note] if settings.traits.plan_note else []
    if any(pool.capacity_type == "SPOT" for pool in settings.pools.groups):
        notes.append(
            "spot pools are priced on demand: spot prices change by the minute; AWS takes an instance back at two minutes' notice, "
            f"and its service is away until another node has image and weights{_again(services)}, or for as long as no zone has one"
        )
        for pool in settings.pools.groups:
            others = [name for name in catalogue.instances if name not in pool.instance_types and same_gpus(pool, name, catalogue)]
            if pool.capacity_type == "SPOT" and not pool.also_instance_types and others:
                choice = ", ".join(others[:3])
                notes.append(f"pool {pool.name} asks for one type of spot instance; alsoInstanceTypes lets AWS choose: {choice}")
    unpriced = sorted(
        {
            pool.instance_type
            for pool in settings.pools.groups
            if settings.region not in catalogue.instance(pool.instance_type).usd_per_hour
        }
    )
    if unpriced:
        notes.append(f"no price is known for {', '.join(unpriced)} in {settings.region}: `demo plan --live-prices` asks AWS")
    if settings.traits.makes_cluster and settings.region not in catalogue.prices:
        notes.append(f"no prices are known for the fixed parts in {settings.region}")
    for service in settings.enabled_services:
        if service.repository:
            notes.append(
                f"{service.name}: {service.repository} is planned as {service.model} in {service.variant.value}; "
                "`demo plan --model` reads its own headers"
            )
    return notes
