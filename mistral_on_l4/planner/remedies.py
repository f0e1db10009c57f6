"""Changes that make a service load: another precision, another card, more of the same card, less context, weights in the node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mistral_on_l4.planner import memory, rules
from mistral_on_l4.planner.catalogue.schema import Catalogue, Instance, Reserved, VariantName
from mistral_on_l4.planner.hosting import node_shortage
from mistral_on_l4.planner.offload import least_offload
from mistral_on_l4.planner.plan import Remedy
from mistral_on_l4.planner.request import FORMATS, ServiceRequest
from mistral_on_l4.planner.service import judge
from mistral_on_l4.planner.speed import Speed

MOST_GPUS = 8
OFFLOAD = "cpuOffload"
_LABELS = {"bf16": "BF16", "fp8": "FP8", "w4a16": "W4A16"}


def remedies_for(
    request: ServiceRequest, catalogue: Catalogue, reserved: Reserved, region: str, usd_per_hour: float | None
) -> tuple[Remedy, ...]:
    """Every change that works, alone, best first: what keeps the card, then another card, more cards, offload last.

    usd_per_hour: what the service costs now, its share of its nodes; what keeps GPUs and instance type costs the same, while a new
    node bills whole.
    """
    base = replace(request, cpu_offload="off")
    found: dict[str, Remedy] = {}
    for kind, change, candidate in _candidates(base, catalogue, reserved, region):
        # Of one kind the first that works is the smallest step: eight cards are no remedy where two will do.
        if kind in found or (change == OFFLOAD and request.cpu_offload == "auto"):
            continue
        kept = (candidate.instance_name, candidate.gpus) == (request.instance_name, request.gpus)
        price = usd_per_hour if kept else candidate.instance.usd_per_hour.get(region) if candidate.instance else None
        remedy = _tried(change, candidate, catalogue, reserved, price)
        if remedy:
            found[kind] = remedy
    if request.cpu_offload != "off" and rules.offload_refusal(base) is None and (least := least_offload(base)):
        change = f"{OFFLOAD} {least.gib:g} with {least.change}"
        remedy = _tried(change, replace(least.request, cpu_offload="auto"), catalogue, reserved, usd_per_hour)
        if remedy:
            found["least"] = remedy
    return tuple(found.values())


def _candidates(
    request: ServiceRequest, catalogue: Catalogue, reserved: Reserved, region: str
) -> Iterator[tuple[str, str, ServiceRequest]]:
    """(kind, change in words, the request with it)."""
    precision = _LABELS.get(request.variant, request.variant)
    if request.flags.get("--quantization"):
        without = replace(request, extra_args=_without_quantization(request.extra_args))
        yield "flags", "without --quantization", without
        request = without
    for fewer in _fewer(request):
        yield "fewer", f"{precision} on {fewer}x {request.gpu_name}", replace(request, gpus=fewer)
    yield from _on_larger_node(f"{precision} on", "node", request, catalogue, reserved, region)
    usual = request.engine.default_gpu_memory_utilization
    if request.gpu_memory_utilization > usual:
        yield "utilization", f"gpuMemoryUtilization {usual:.2f}", replace(request, gpu_memory_utilization=usual)
    for length in _shorter(request):
        yield "length", f"maxModelLen {length}", replace(request, max_model_len=length)
    if not request.kv_cache_dtype.startswith("fp8") and request.gpu.compute_capability >= 8.9:
        yield "kv", "kvCacheDtype fp8", replace(request, kv_cache_dtype="fp8")
    for smaller in _smaller(request):
        change, other = f"{_LABELS[smaller]} on {request.gpus}x {request.gpu_name}", _as_variant(request, smaller, catalogue)
        yield "variant", change, other
        yield from _on_larger_node(f"{change} of", "variant", other, catalogue, reserved, region)
    for name, gpu in sorted(catalogue.gpus.items(), key=lambda item: item[1].visible_gib):
        if gpu.visible_gib <= request.gpu.visible_gib:
            continue
        placed = _placed(replace(request, gpu_name=name, gpu=gpu), catalogue, reserved, region)
        if placed.instance:
            yield "card", f"{precision} on {request.gpus}x {name}", placed
    count = request.gpus * 2
    while count <= MOST_GPUS:
        placed = _placed(replace(request, gpus=count), catalogue, reserved, region)
        # Without an instance type the GPUs are one's own, and there may be more of them.
        if placed.instance or request.instance is None:
            yield "count", f"{precision} on {count}x {request.gpu_name}", placed
        count *= 2
    if rules.offload_refusal(request) is None:
        # The pool's own instance type may have too little memory for pinned weights: then the next one that has enough.
        pinned = replace(request, cpu_offload="auto")
        yield "offload", OFFLOAD, pinned
        larger_node = _roomier(pinned, catalogue, reserved, region)
        if larger_node:
            on_larger = replace(pinned, instance_name=larger_node[0], instance=larger_node[1])
            yield "offload", f"{OFFLOAD} on {larger_node[0]}", on_larger


def _on_larger_node(
    change: str, kind: str, request: ServiceRequest, catalogue: Catalogue, reserved: Reserved, region: str
) -> Iterator[tuple[str, str, ServiceRequest]]:
    """The same GPUs on the cheapest instance type that is large enough, where what it has is too small a node."""
    if node_shortage(request, catalogue, reserved, 0.0) is None:
        return
    if larger := _roomier(request, catalogue, reserved, region):
        yield kind, f"{change} {larger[0]}", replace(request, instance_name=larger[0], instance=larger[1])


def _tried(
    change: str, request: ServiceRequest, catalogue: Catalogue, reserved: Reserved, usd_per_hour: float | None
) -> Remedy | None:
    verdict = judge(request, catalogue, reserved)
    if not verdict.loads or (request.cpu_offload == "auto" and not verdict.offload_gib):
        return None
    use = memory.memory_use(request, verdict.offload_gib)
    speed = Speed(request, catalogue.calibration, verdict.offload_gib)
    tpot_ms = speed.at(1, usd_per_hour).tpot_ms
    return Remedy(change, True, tpot_ms, usd_per_hour, use.resident_weights_gib, unmeasured=bool(verdict.offload_gib))


def _shorter(request: ServiceRequest) -> Iterator[int]:
    """The greatest length that the KV cache holds, if a useful one is left."""
    fits = memory.longest_request(request, memory.memory_use(request))
    if fits < request.max_model_len or request.max_model_len > request.architecture.max_positions:
        length = fits - fits % 256
        if length >= 1024:
            yield length


def _fewer(request: ServiceRequest) -> Iterator[int]:
    """Numbers of GPUs, most first, where those that were asked for are not there or the engine does not cut the model so."""
    missing = request.instance is not None and request.instance.gpus < request.gpus
    if missing or rules.refusal_of(request):
        yield from (count for count in (8, 4, 2, 1) if count < request.gpus)


def _smaller(request: ServiceRequest) -> Iterator[VariantName]:
    stored = {"none": 16, "fp8": 8, "int8": 8}.get(request.loaded_as.scheme, 4)
    if stored > 8:
        yield "fp8"
    if stored > 4:
        yield "w4a16"


def _as_variant(request: ServiceRequest, name: VariantName, catalogue: Catalogue) -> ServiceRequest:
    model = catalogue.models.get(request.model)
    known = model.variants.get(name) if model else None
    return replace(
        request,
        variant=name,
        checkpoint=known.repository if known else request.checkpoint,
        quantization=known.quantization if known else FORMATS[name],
        largest_file_gb=known.largest_file_gb if known else request.largest_file_gb,
        exact=None,
    )


def _placed(request: ServiceRequest, catalogue: Catalogue, reserved: Reserved, region: str) -> ServiceRequest:
    """On the instance it has if that holds it, else on the cheapest with that many of the GPU and enough memory."""
    instance = request.instance
    if instance and instance.gpu == request.gpu_name and instance.gpus >= request.gpus:
        return request
    found = cheapest_instance(request, catalogue, reserved, region)
    return replace(request, instance_name=found[0] if found else None, instance=found[1] if found else None)


def _roomier(request: ServiceRequest, catalogue: Catalogue, reserved: Reserved, region: str) -> tuple[str, Instance] | None:
    """The cheapest instance type with the same GPUs on which the request loads, if its own is too small."""
    if request.instance is None or judge(request, catalogue, reserved).loads:
        return None
    for name, instance in _by_price(catalogue, request.gpu_name, request.gpus, region):
        if judge(replace(request, instance_name=name, instance=instance), catalogue, reserved).loads:
            return name, instance
    return None


def cheapest_instance(
    request: ServiceRequest, catalogue: Catalogue, reserved: Reserved, region: str, at_least: int = 0
) -> tuple[str, Instance] | None:
    """The cheapest instance type that has the GPUs and the node memory; without prices, the smallest. None if there is none.

    at_least: GPUs of the instance, where it is to have more than the service takes.
    """
    for name, instance in _by_price(catalogue, request.gpu_name, max(request.gpus, at_least), region):
        if node_shortage(replace(request, instance_name=name, instance=instance), catalogue, reserved, 0.0) is None:
            return name, instance
    return None


def _by_price(catalogue: Catalogue, gpu: str, gpus: int, region: str) -> list[tuple[str, Instance]]:
    having = [(name, each) for name, each in catalogue.instances.items() if each.gpu == gpu and each.gpus >= gpus]
    return sorted(having, key=lambda item: (item[1].usd_per_hour.get(region, float("inf")), item[1].gpus, item[1].memory_gib))


def _without_quantization(args: tuple[str, ...]) -> tuple[str, ...]:
    kept: list[str] = []
    skip = False
    for argument in args:
        if skip and not argument.startswith("-"):
            skip = False
            continue
        skip = argument in ("--quantization", "-q")
        if not skip and not argument.startswith("--quantization="):
            kept.append(argument)
    return tuple(kept)
