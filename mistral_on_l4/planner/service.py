"""The plan of one service: from a resolved request to everything that the stack and people want to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from mistral_on_l4.planner import hosting, memory, rules
from mistral_on_l4.planner.catalogue.schema import Catalogue, Reserved
from mistral_on_l4.planner.plan import GIB, MemoryUse, Offload, Readiness, ServicePlan
from mistral_on_l4.planner.request import ServiceRequest
from mistral_on_l4.planner.speed import Speed


@dataclass(frozen=True)
class Verdict:
    """Whether a request loads. offload_gib is what its cpuOffload comes to.

    without_offload, reason: why it does not load without any offload, and as asked for; one line each, None if it does.
    """

    offload_gib: float
    without_offload: str | None
    reason: str | None

    @property
    def loads(self) -> bool:
        return self.reason is None


def judge(request: ServiceRequest, catalogue: Catalogue, reserved: Reserved) -> Verdict:
    """Does it load, without offload and as asked for?"""
    impossible = rules.refusal_of(request) or hosting.node_shortage(request, catalogue, reserved, 0.0)
    plain = impossible or memory.overflow(request)
    if impossible or request.cpu_offload == "off" or (request.cpu_offload == "auto" and plain is None):
        return Verdict(0.0, plain, plain)
    wanted = memory.offload_needed_gib(request) if request.cpu_offload == "auto" else float(request.cpu_offload)
    movable = request.weights.layer_bytes / request.gpus / GIB
    if wanted <= 0:  # what is wrong is not the KV cache, so no offload repairs it
        return Verdict(0.0, plain, plain)
    if wanted > movable:
        return Verdict(
            0.0, plain, plain or f"cpuOffload {wanted:.1f} GiB is more than the {movable:.1f} GiB of decoder layers per GPU"
        )
    reason = (
        rules.offload_refusal(request)
        or hosting.node_shortage(request, catalogue, reserved, wanted)
        or memory.overflow(request, wanted)
    )
    if reason and plain and reason != plain:
        reason = f"{plain}; with cpuOffload: {reason}"
    return Verdict(wanted, plain, reason)


def plan_service(
    request: ServiceRequest,
    catalogue: Catalogue,
    reserved: Reserved,
    verdict: Verdict,
    ready: Readiness,
    usd_per_hour: float | None,
) -> ServicePlan:
    """The plan without its remedies. usd_per_hour: of the nodes that the service takes."""
    held = verdict.offload_gib if verdict.loads else 0.0
    use = memory.memory_use(request, held)
    tokens = memory.reported_tokens(request, use)
    speed = Speed(request, catalogue.calibration, held)
    points = tuple(speed.at(users, usd_per_hour) for users in request.workload.users)
    offload = _offload(speed, usd_per_hour) if held else None
    asked = request.cpu_offload != "off"
    warnings = rules.warnings_of(request)
    if offload:
        low, high = offload.tpot_ms
        warnings.append(
            f"{held:.1f} GiB of weights per GPU cross PCIe in every step: {low:.0f}-{high:.0f} ms/token for one user, unmeasured "
            "on this card (predictions by number of users take the middle of the link's range)"
        )
    return ServicePlan(
        name=request.name,
        model=request.model,
        variant=request.variant,
        checkpoint=request.checkpoint,
        gpu=request.gpu_name,
        gpus=request.gpus,
        instance=request.instance_name,
        engine=request.engine_name,
        image=request.image,
        fits=verdict.without_offload is None,
        fits_with_offload=verdict.loads if asked else None,
        reason=_reason(verdict) or _limit(request, use),
        memory=use,
        kv_tokens=tokens,
        max_model_len=request.max_model_len,
        offload=offload,
        points=points,
        usd_per_hour=usd_per_hour,
        readiness=ready,
        args=arguments(request, held),
        pod=hosting.pod_resources(request, catalogue, reserved, held),
        remedies=(),
        warnings=tuple(warnings),
    )


def arguments(request: ServiceRequest, offload_gib: float) -> tuple[str, ...]:
    """vLLM's arguments after the runtime's own. Never --quantization: vLLM reads the checkpoint's config.json."""
    args: list[str] = []
    if request.gpus > 1:
        args += ["--tensor-parallel-size", str(request.gpus)]
    if "--dtype" not in request.flags:
        if request.dtype != "auto":
            args += ["--dtype", request.half_dtype]
        elif request.quantization.scheme == "none":
            args += ["--dtype", "bfloat16"]
    if request.kv_cache_dtype != "auto":
        args += ["--kv-cache-dtype", request.kv_cache_dtype]
    args += ["--max-model-len", str(request.max_model_len)]
    if request.max_num_seqs:
        args += ["--max-num-seqs", str(request.max_num_seqs)]
    args += ["--gpu-memory-utilization", f"{request.gpu_memory_utilization:g}"]
    if offload_gib:
        args += ["--cpu-offload-gb", f"{offload_gib:g}"]
    return (*args, *request.extra_args)


def _offload(speed: Speed, usd_per_hour: float | None) -> Offload:
    low, high = speed.offload_range_ms
    fast, slow = (speed.at(1, usd_per_hour, crossing).tpot_ms for crossing in (low, high))
    return Offload(speed.offload_gib, (low, high), (fast, slow))


def _reason(verdict: Verdict) -> str | None:
    """Why it does not fit, or why it goes without the offload that was asked for; None if neither."""
    if verdict.reason and verdict.without_offload is None:
        return f"all weights fit the GPU, and cpuOffload is left out: {verdict.reason}"
    return verdict.reason or verdict.without_offload


def _limit(request: ServiceRequest, use: MemoryUse) -> str:
    requests = memory.requests_held(request, use, request.max_model_len)
    return f"KV cache holds {memory.reported_tokens(request, use):,} tokens, {requests:.1f} requests of the greatest length"
