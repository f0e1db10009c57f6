"""What makes weights in the node's memory least bad: the settings with which the smallest offload loads.

Every GiB that stays on the GPU saves 83 to 107 ms per token on a g6 (10 to 13 GB/s). A higher utilization, a shorter context, fewer
sequences and eager mode each leave more room and none takes any, so the smallest offload is that of all of them together, at the
highest utilization that still starts, with or without an FP8 cache; what changes nothing is taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mistral_on_l4.planner import memory
from mistral_on_l4.planner.request import ServiceRequest

UTILIZATIONS = (0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.91, 0.90)
SHORTEST, FEWEST = 2048, 4
FP8_CACHE_FROM = 8.9  # compute capability
EAGER = "--enforce-eager"


@dataclass(frozen=True)
class LeastOffload:
    """request: with the settings; gib: what it needs of the node per GPU; change: what differs, in the stack file's words."""

    request: ServiceRequest
    gib: float
    change: str


def least_offload(request: ServiceRequest, shortest: int = SHORTEST) -> LeastOffload | None:
    """The settings with the smallest offload, as few as possible; None if nothing is smaller than the request's own.

    shortest: tokens that a request must be able to have.
    """
    own = memory.offload_needed_gib(request)
    best: tuple[float, dict[str, Any]] | None = None
    for changes in _changes(request, shortest):
        for utilization in (each for each in UTILIZATIONS if each >= request.gpu_memory_utilization):
            taken = {**changes, "gpu_memory_utilization": utilization}
            if (needed := _loads(replace(request, **taken))) is not None:
                if best is None or needed < best[0]:
                    best = needed, taken
                break
    if best is None or not 0 < best[0] < own:
        return None
    least, taken = best
    for name in list(taken):
        without = {key: value for key, value in taken.items() if key != name}
        if _loads(replace(request, **without)) == least:
            taken = without
    found = replace(request, **taken)
    return LeastOffload(found, least, _words(request, found))


def _changes(request: ServiceRequest, shortest: int) -> Iterator[dict[str, Any]]:
    """Everything that leaves room, without and with an FP8 cache: that halves it, but may need a backend with a workspace."""
    changes: dict[str, Any] = {}
    if not request.eager:
        changes["extra_args"] = (*request.extra_args, EAGER)
    if request.max_model_len > shortest:
        changes["max_model_len"] = shortest
    if request.sequences > FEWEST:
        changes["max_num_seqs"] = FEWEST
    yield changes
    if request.kv_cache_dtype == "auto" and request.gpu.compute_capability >= FP8_CACHE_FROM:
        yield {**changes, "kv_cache_dtype": "fp8"}


def _loads(request: ServiceRequest) -> float | None:
    """GiB of offload with which it loads; None if it does not."""
    needed = memory.offload_needed_gib(request)
    return needed if memory.overflow(request, needed) is None else None


def _words(asked: ServiceRequest, found: ServiceRequest) -> str:
    said = []
    if found.gpu_memory_utilization != asked.gpu_memory_utilization:
        said.append(f"gpuMemoryUtilization {found.gpu_memory_utilization:.2f}")
    if found.max_model_len != asked.max_model_len:
        said.append(f"maxModelLen {found.max_model_len}")
    if found.sequences != asked.sequences:
        said.append(f"maxNumSeqs {found.sequences}")
    if found.kv_cache_dtype != asked.kv_cache_dtype:
        said.append("kvCacheDtype fp8")
    if found.eager != asked.eager:
        said.append(EAGER)
    return ", ".join(said)
