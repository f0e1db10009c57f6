"""The plan of one checkpoint on one kind of GPU, without a stack: `demo plan --model org/name --gpu L4 --count 1`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Literal

from mistral_on_l4.planner import memory
from mistral_on_l4.planner.catalogue.families import registry_of
from mistral_on_l4.planner.catalogue.schema import Architecture, Catalogue, Engine, Quantization, unknown
from mistral_on_l4.planner.checkpoint import Weights, weights_of
from mistral_on_l4.planner.flags import check_flags
from mistral_on_l4.planner.hosting import Moves, downloader, pod_resources, readiness, seed_minutes
from mistral_on_l4.planner.hub import HubRefused, HubUnreachable, read_checkpoint
from mistral_on_l4.planner.local_files import read_local
from mistral_on_l4.planner.plan import CostLine, NotComputed, PlanError, StackPlan
from mistral_on_l4.planner.remedies import cheapest_instance, remedies_for
from mistral_on_l4.planner.request import FORMATS, ServiceRequest, Workload
from mistral_on_l4.planner.service import judge, plan_service

DEFAULT_MODEL_LEN = 8192
LENGTH_STEP, SHORTEST = 256, 1024
# What --precision and --dtype may say: vLLM's names of dtypes, and the variants.
PRECISIONS = {
    "auto": "auto",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "float16": "fp16",
    "half": "fp16",
    "fp8": "fp8",
    "w4a16": "w4a16",
    "int4": "w4a16",
}


@dataclass(frozen=True)
class Question:
    """Options of the standalone form. count: GPUs at hand; tensor_parallel_size: over how many of them, None for all."""

    model: str | None = None
    config: Path | None = None
    gpu: str = "L4"
    count: int = 1
    instance: str | None = None
    precision: str = "auto"
    tensor_parallel_size: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: float | None = None
    cpu_offload: str = "off"
    engine: str | None = None
    region: str = "us-east-1"
    endpoint: str | None = None
    extra_args: tuple[str, ...] = ()
    workload: Workload = field(default_factory=Workload)


@dataclass(frozen=True)
class Found:
    """A checkpoint, wherever its facts came from. dtype: what vLLM is told, for 16-bit checkpoints."""

    model: str
    variant: str
    repository: str
    architecture: Architecture
    quantization: Quantization
    exact: Weights | None = None
    largest_file_gb: float = 5.0
    dtype: str = "auto"
    note: str | None = None

    @property
    def file_weights_bytes(self) -> int:
        return (self.exact or weights_of(self.architecture, self.quantization)).total_bytes


def plan_checkpoint(question: Question, catalogue: Catalogue) -> StackPlan:
    """One service in the form of a stack. Raises PlanError; asks the hub only for what the catalogue does not hold."""
    catalogue.known_region(question.region)
    found = find_checkpoint(question, catalogue)
    request, note = request_of(question, catalogue, found), found.note
    if question.max_model_len is None:
        request, shortened = _held_context(request)
        note = "; ".join(filter(None, (note, shortened))) or None
    image = request.engine.images.get("eks")
    return _planned(request, question, catalogue, image.unpacked_gb if image else 0.0, note)


def request_of(question: Question, catalogue: Catalogue, found: Found | None = None) -> ServiceRequest:
    """What is asked of the planner. found: the checkpoint, where it is known already. Raises PlanError."""
    gpu_name = _any_case("GPU", question.gpu, tuple(catalogue.gpus))
    engine_name = question.engine or catalogue.default_engine
    engine = catalogue.engine(engine_name)
    gpus = question.tensor_parallel_size or question.count
    if gpus > question.count:
        raise PlanError(f"--tp {gpus} needs that many GPUs, but --count is {question.count}")
    found = found or find_checkpoint(question, catalogue)
    longest = question.max_model_len or min(DEFAULT_MODEL_LEN, found.architecture.max_positions)
    work = question.workload
    if work.prompt_tokens + work.output_tokens > longest:
        raise PlanError(
            f"prompt and output are {work.prompt_tokens + work.output_tokens} tokens, more than --max-model-len {longest}"
        )
    image = engine.images.get("eks")
    request = ServiceRequest(
        name=_service_name(found),
        model=found.model,
        variant=found.variant,
        checkpoint=found.repository,
        architecture=found.architecture,
        quantization=found.quantization,
        gpu_name=gpu_name,
        gpu=catalogue.gpus[gpu_name],
        gpus=gpus,
        engine_name=engine_name,
        engine=engine,
        image=image.reference if image else "",
        max_model_len=longest,
        gpu_memory_utilization=question.gpu_memory_utilization or engine.default_gpu_memory_utilization,
        max_num_seqs=question.max_num_seqs,
        kv_cache_dtype=question.kv_cache_dtype,
        cpu_offload=_offload(question.cpu_offload),
        dtype=found.dtype,
        extra_args=question.extra_args,
        args_source="--vllm-args",
        exact=found.exact,
        unsupported=_unsupported(found, engine_name, engine),
        largest_file_gb=found.largest_file_gb,
        workload=work,
    )
    if request.extra_args:
        check_flags(request)
    return request


def _held_context(request: ServiceRequest) -> tuple[ServiceRequest, str | None]:
    """Nobody asked for a length: what the KV cache holds, where that is less than the usual one and still useful."""
    use = memory.memory_use(request)
    longest = memory.longest_request(request, use)
    longest -= longest % LENGTH_STEP
    if use.kv_gib <= 0 or longest >= request.max_model_len or longest < SHORTEST:
        return request, None
    return (
        replace(request, max_model_len=longest),
        f"planned with --max-model-len {longest}, since the KV cache does not hold a request of {request.max_model_len} tokens",
    )


def _planned(request: ServiceRequest, question: Question, catalogue: Catalogue, image_gb: float, note: str | None) -> StackPlan:
    reserved = catalogue.reserved["eks"]
    request = _on_instance(request, question, catalogue)
    verdict = judge(request, catalogue, reserved)
    store = catalogue.rates.local_disk_mbs
    seed = seed_minutes({"": request.file_weights.total_bytes}, catalogue.rates.hub_mbs)[""]
    pod = pod_resources(request, catalogue, reserved, 0.0)
    download = downloader([pod] if pod else []).cores * catalogue.rates.download_core_mbs
    ready = readiness(request, catalogue, image_gb, Moves(store, download, seed))
    price = request.instance.usd_per_hour.get(question.region) if request.instance else None
    plan = plan_service(request, catalogue, reserved, verdict, ready, price)
    if not plan.fits:
        plan = replace(plan, remedies=remedies_for(request, catalogue, reserved, question.region, price))
    notes = [note] if note else []
    if request.instance is None:
        notes.append(
            f"the catalogue has no instance type with {question.count}x {request.gpu_name}: no price, no node memory checked"
        )
    elif price is None:
        notes.append(f"no price is known for {request.instance_name} in {question.region}: --live-prices asks AWS")
    pools = (CostLine(f"1x {request.instance_name}", 1, price),) if request.instance else ()
    if request.instance is None:
        pools = (CostLine(f"{question.count}x {request.gpu_name}", 1, None),)
    return StackPlan("", "standalone", question.region, (plan,), pools, (), (), tuple(notes))


def _on_instance(request: ServiceRequest, question: Question, catalogue: Catalogue) -> ServiceRequest:
    """On the instance type that was asked for, else on the cheapest with that many GPUs and enough memory."""
    if question.instance:
        instance = catalogue.instance(question.instance)
        if instance.gpu != request.gpu_name or instance.gpus < question.count:
            has = f"{instance.gpus}x {instance.gpu}" if instance.gpu else "no GPU"
            raise PlanError(f"{question.instance} has {has}, not {question.count}x {request.gpu_name}")
        return replace(request, instance_name=question.instance, instance=instance)
    reserved = catalogue.reserved["eks"]
    found = cheapest_instance(request, catalogue, reserved, question.region, at_least=question.count)
    return replace(request, instance_name=found[0], instance=found[1]) if found else request


def find_checkpoint(question: Question, catalogue: Catalogue) -> Found:
    """The checkpoint that is meant: of a local config.json, of the catalogue, or of the hub. Raises PlanError."""
    precision = PRECISIONS.get(question.precision.lower())
    if precision is None:
        raise PlanError(unknown("precision", question.precision, PRECISIONS))
    if question.config is not None:
        return _precise(_from_file(question.config, question.model), precision)
    name = question.model
    if not name:
        raise PlanError("name a checkpoint: --model org/name, or --config FILE")
    key = next((key for key in catalogue.models if key.lower() == name.lower()), None)
    if key:
        return _from_catalogue(catalogue, key, precision)
    known = catalogue.checkpoint(name)
    if "/" not in name:
        raise PlanError(unknown("model", name, _all_names(catalogue)))
    try:
        hub = read_checkpoint(name, endpoint=question.endpoint)
    except (HubUnreachable, HubRefused) as error:
        reason = str(error) if isinstance(error, HubRefused) else f"the hub cannot be reached ({error})"
        if known is None:
            raise PlanError(f"{reason}; {unknown('model', name, _all_names(catalogue))}") from None
        found = _from_catalogue(catalogue, known[0], known[1] if precision == "auto" else precision)
        return replace(found, note=f"{reason}: the catalogue answers for {name}")
    variant = _variant_of(hub.quantization)
    found = Found(
        known[0] if known else name,
        variant,
        name,
        hub.architecture,
        hub.quantization,
        exact=hub.weights,
        largest_file_gb=hub.largest_file_gb,
        dtype=hub.dtype if hub.architecture.float16 else "auto",
    )
    return _precise(found, precision)


def _unsupported(found: Found, engine_name: str, engine: Engine) -> str:
    """Why the engine refuses the architecture, "" if it serves it. Raises NotComputed for one that its registry does not hold."""
    registry, family = registry_of(engine_name), found.architecture.family
    if registry is None or family in registry.names:
        return ""
    if last := registry.previously.get(family):
        return (
            f"Model architecture {family} was supported in vLLM until v{last}, and is not supported anymore in {engine.version}: "
            "take an older engine"
        )
    raise NotComputed(
        found.repository, f"vLLM {engine.version} has no class of its own for {family} in its registry", found.file_weights_bytes
    )


def _from_file(path: Path, name: str | None) -> Found:
    local = read_local(path, name)
    return Found(
        local.label,
        _variant_of(local.quantization),
        local.label,
        local.architecture,
        local.quantization,
        exact=local.exact,
        largest_file_gb=local.largest_file_gb,
        # What the family is not served in, vLLM's own choice of a dtype passes over.
        dtype=local.dtype if local.architecture.float16 else "auto",
    )


def _from_catalogue(catalogue: Catalogue, key: str, precision: str) -> Found:
    model = catalogue.models[key]
    wanted = {"auto": "bf16", "fp16": "bf16"}.get(precision, precision)
    for name, variant in model.variants.items():
        if name == wanted:
            dtype = "float16" if precision == "fp16" else "auto"
            return Found(
                key, name, variant.repository, model.architecture, variant.quantization, None, variant.largest_file_gb, dtype
            )
    raise PlanError(f"{key} has no checkpoint in {precision}: {', '.join(model.variants)}")


def _precise(found: Found, precision: str) -> Found:
    """The checkpoint in the precision that was asked for: as stored, or as if it were quantized so."""
    if precision in ("auto", found.variant):
        return replace(found, dtype="auto") if precision == "bf16" else found
    if found.quantization.scheme != "none":
        if precision == "fp16":
            return replace(found, dtype="float16")
        raise PlanError(f"{found.repository} is stored in {found.variant}, it cannot be planned as {precision}")
    if precision == "fp16":
        return replace(found, dtype="float16")
    note = f"sizes are those of {found.repository} if its linear layers were quantized to {precision}"
    return replace(found, variant=precision, quantization=FORMATS[precision], exact=None, note=note)


def _variant_of(quantization: Quantization) -> str:
    return {"none": "bf16", "int4": "w4a16"}.get(quantization.scheme, quantization.scheme)


def _all_names(catalogue: Catalogue) -> list[str]:
    repositories = [variant.repository for model in catalogue.models.values() for variant in model.variants.values()]
    return [*catalogue.models, *repositories]


def _any_case(kind: str, name: str, known: tuple[str, ...]) -> str:
    for each in known:
        if each.lower() == name.lower():
            return each
    raise PlanError(unknown(kind, name, known))


def _offload(text: str) -> Literal["off", "auto"] | float:
    if text == "off":
        return "off"
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise PlanError(f"--cpu-offload {text!r}: write off, auto, or GiB per GPU")
    return value


def _service_name(found: Found) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", found.repository.rpartition("/")[2].lower()).strip("-") or "checkpoint"
    return base if found.variant in base or found.quantization.scheme == "none" else f"{base}-{found.variant}"
