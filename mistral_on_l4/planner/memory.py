"""Where the memory of one GPU goes, as vLLM counts it (0.11: v1/worker/gpu_worker.py; 0.33 also takes off CUDA graphs).

    budget = visible x gpu_memory_utilization
    KV cache = budget - resident weights - activation peak of the profile run - non-torch [- graphs]

The profile run is one step of `max_num_batched_tokens` tokens, then a sampler pass over `max_num_seqs` rows of the vocabulary; the
larger of the two is the peak.
"""

from __future__ import annotations

from bisect import bisect_right
from math import floor

from mistral_on_l4.planner.catalogue.schema import Architecture
from mistral_on_l4.planner.checkpoint import HALF
from mistral_on_l4.planner.plan import GIB, MemoryUse
from mistral_on_l4.planner.request import ServiceRequest
from mistral_on_l4.planner.splits import EXPERT_PARALLEL, expert_group

BLOCK = 16  # tokens of one KV block, vLLM's default
# --cpu-offload-gb is chosen in steps of this; whole parameters move (the largest is 0.31 GiB here), so finer steps mean nothing.
OFFLOAD_STEP_GIB = 0.5
MARLIN = "Marlin"
TRITON_FROM = 9.0  # compute capability whose MXFP4 experts are Triton's


def memory_use(request: ServiceRequest, offload_gib: float = 0.0) -> MemoryUse:
    """Memory of each GPU with `offload_gib` of its weights in the node's memory."""
    engine, parallel = request.engine, request.gpus > 1
    budget = request.gpu.visible_gib * request.gpu_memory_utilization
    weights = request.weights.per_gpu_bytes(request.gpus) / GIB
    non_torch = engine.non_torch_tp_gib if parallel else engine.non_torch_gib
    graphs = graphs_gib(request)
    activation = activation_gib(request)
    inside = workspace_gib(request) + (graphs if engine.graphs_in_budget else 0.0)
    kv = budget - (weights - offload_gib) - activation - non_torch - inside
    return MemoryUse(
        visible_gib=request.gpu.visible_gib,
        budget_gib=budget,
        weights_gib=weights,
        resident_weights_gib=weights - offload_gib,
        activation_gib=activation,
        non_torch_gib=non_torch + workspace_gib(request),
        graphs_gib=graphs,
        kv_gib=kv,
        kv_bytes_per_token=request.kv_bytes_per_token,
    )


def capture_sizes(request: ServiceRequest) -> tuple[int, int]:
    """(graphs of mixed steps, graphs of decoding steps) that 0.33 captures: 1, 2, 4, by 8 below 256, by 16 from there.

    Up to twice the sequences, 512 at most and no more than a step's tokens; decoding steps up to the sequences (config/vllm.py).
    """
    largest = min(512, 2 * request.sequences, request.batched_tokens)
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    mixed = [size for size in sizes if size <= largest]
    return len(mixed), sum(size <= request.sequences for size in mixed)


def graphs_gib(request: ServiceRequest) -> float:
    """What CUDA graphs take: as a whole, or by their number; for the kernels of experts by layer. Nothing in eager mode."""
    engine, shape = request.engine, request.architecture
    if request.eager:
        return 0.0
    base = engine.graphs_gib
    if engine.graph_mib:
        base = sum(capture_sizes(request)) * engine.graph_mib / 1024
    return max(base, engine.mixture_graphs_gib_per_layer * shape.layers) if shape.experts else base


def context_gib(request: ServiceRequest) -> float:
    """What contexts and NCCL take of each GPU before and beside the budget."""
    engine = request.engine
    if request.gpus == 1:
        return engine.context_gib
    return engine.context_pair_gib if request.gpus == 2 and not request.gpu.nvlink else engine.context_tp_gib


def workspace_gib(request: ServiceRequest) -> float:
    """FlashInfer's workspaces, block scales that Marlin keeps per row, scales that MoeWNA16 repeats, and what MXFP4 experts are
    padded by; all in the budget.
    """
    engine, size = request.engine, 0.0
    if request.attention_backend == "FLASHINFER":
        full = 0 if request.eager else capture_sizes(request)[1]
        size += engine.flashinfer_gib + full * engine.flashinfer_graph_mib / 1024
    if request.loaded_as.block_size and request.kernel and request.kernel.kernel == MARLIN:
        weights = request.weights
        size += (
            (weights.linear_parameters + weights.expert_parameters) / request.loaded_as.block_size[1] * HALF / request.gpus / GIB
        )
    stored, group = request.quantization, expert_group(request)
    if group < stored.group_size:
        repeated = request.weights.expert_parameters * (1 / group - 1 / stored.group_size)
        size += repeated * (HALF + (0.5 if stored.zeros else 0)) / request.gpus / GIB
    if request.loaded_as.scheme == "mxfp4":
        size += request.weights.expert_bytes / request.gpus * (_mxfp4_padding(request) - 1) / GIB
        size += engine.mxfp4_compiled_gib if request.gpu.compute_capability < TRITON_FROM and not request.eager else 0.0
    return size


def _mxfp4_padding(request: ServiceRequest) -> float:
    """By how much experts grow: Marlin rounds a GPU's part of the width to 128 and the hidden size to 256 (quantization/mxfp4.py).

    Triton's layout, from compute capability 9.0, rounds one of them: reports load 13.47 GiB of 12.81 and 64.38 of 60.8.
    """
    shape = request.architecture
    hidden = -(-shape.hidden // 256) * 256 / shape.hidden
    if request.gpu.compute_capability >= TRITON_FROM:
        return hidden
    part = shape.intermediate / request.gpus
    return hidden * -(-part // 128) * 128 / part


def activation_gib(request: ServiceRequest) -> float:
    """Peak of torch's activations in the profile run, in GiB.

    In the MLP a step holds residual, input and output (3h) beside gate, up and their product (3i over the GPUs); of each expert
    that a token takes, the product and the larger of gate and up or the output (fused_moe.py, intermediate_cache13 and 2); in
    attention the same 3h beside q, k, v and the output. The sampler's bytes per logit are the engine's (fitted to vLLM's own
    report on H100).
    """
    shape, gpus = request.architecture, request.gpus
    dense = 3 * (max(shape.shared_intermediate, shape.dense_intermediate) if shape.experts else shape.intermediate) / gpus
    expert = shape.intermediate / (1 if EXPERT_PARALLEL in request.flags else gpus)
    routed = shape.experts_per_token * (max(2 * expert, shape.hidden) + expert)
    mlp = dense + (routed if shape.experts else 0)
    attention = 2 * (shape.heads + shape.kv_heads) * shape.head_dim / gpus
    step = request.batched_tokens * (3 * shape.hidden + max(mlp, attention)) * HALF
    sampler = request.sequences * shape.vocabulary * request.engine.sampler_bytes_per_logit
    return max(step, sampler) / GIB


def kv_tokens(memory: MemoryUse) -> int:
    """Tokens that the KV cache holds in all layers, in whole blocks."""
    tokens = int(max(0.0, memory.kv_gib) * GIB / memory.kv_bytes_per_token)
    return tokens - tokens % BLOCK


def reported_tokens(request: ServiceRequest, memory: MemoryUse) -> int:
    """The size that vLLM logs. With windows newer versions log requests of the greatest length times that length."""
    shape = request.architecture
    if not shape.sliding_layers or shape.sliding_layers >= shape.layers:
        return kv_tokens(memory)
    if request.engine.kv_size_by_request:
        return int(requests_held(request, memory, request.max_model_len) * request.max_model_len)
    return int(kv_tokens(memory) * shape.layers / sum(padded_layers(shape)))


def kv_needed_gib(request: ServiceRequest, tokens: int | None = None) -> float:
    """KV cache of one request, by default of the greatest length, which vLLM must be able to hold to start.

    Layers that attend over a window hold its tokens and those of the steps in flight, in one block more than that fills: the window
    need not begin where a block does (v1/kv_cache_interface.py, SlidingWindowSpec.max_memory_usage_bytes).
    """
    shape, length = request.architecture, tokens or request.max_model_len
    blocks = -(-length // BLOCK)
    in_flight = request.batched_tokens * request.engine.steps_in_flight
    windowed = -(-min(shape.sliding_window - 1 + in_flight, length) // BLOCK) + 1
    full, sliding = padded_layers(shape)
    return (blocks * full + windowed * sliding) * BLOCK * request.kv_bytes_per_token / shape.layers / GIB


def padded_layers(shape: Architecture) -> tuple[int, int]:
    """Layers whose cache is kept whole and over a window, as vLLM groups them: groups of one size, the last of a kind padded to it.

    The size is the smaller of the two numbers (v1/core/kv_cache_utils.py), the larger where they are within a quarter of another.
    """
    sliding = min(shape.sliding_layers, shape.layers)
    full = shape.layers - sliding
    if not full or not sliding:
        return full, sliding
    fewer, more = sorted((full, sliding))
    size = more if more < 1.25 * fewer else fewer
    return -(-full // size) * size, -(-sliding // size) * size


def longest_request(request: ServiceRequest, memory: MemoryUse) -> int:
    """Tokens of the longest request that the KV cache holds alone, in whole blocks; of the model's greatest context at most."""
    most = min(request.architecture.max_positions, 2**40) // BLOCK
    fitting = bisect_right(range(1, most + 1), memory.kv_gib, key=lambda blocks: kv_needed_gib(request, blocks * BLOCK))
    return fitting * BLOCK


def requests_held(request: ServiceRequest, memory: MemoryUse, tokens: int) -> float:
    """How many requests of a length the KV cache holds at once."""
    if not request.architecture.sliding_layers:
        return kv_tokens(memory) / tokens
    return max(0.0, memory.kv_gib) / kv_needed_gib(request, tokens)


def offload_needed_gib(request: ServiceRequest) -> float:
    """The smallest --cpu-offload-gb that loads, in steps of OFFLOAD_STEP_GIB; 0 if none is needed."""
    missing = kv_needed_gib(request) - memory_use(request).kv_gib
    return max(0.0, -(-missing // OFFLOAD_STEP_GIB) * OFFLOAD_STEP_GIB)


def overflow(request: ServiceRequest, offload_gib: float = 0.0) -> str | None:
    """Why the service does not start for want of GPU memory, in one line; None if it does."""
    memory = memory_use(request, offload_gib)
    loaded = memory.resident_weights_gib
    head = f"{memory.weights_gib:.2f} GiB of weights{' per GPU' if request.gpus > 1 else ''}, {memory.visible_gib:.2f} GiB visible"
    if offload_gib:
        head = f"{loaded:.2f} GiB of weights after offloading {offload_gib:.1f}, {memory.visible_gib:.2f} GiB visible"
    engine = request.engine
    # What NCCL takes before the engine looks was reported with NVLink; over PCIe its buffers are small.
    linked = request.gpus > 1 and request.gpu.nvlink
    free = memory.visible_gib - (engine.context_tp_gib if linked else engine.context_gib)
    peak = loaded
    if request.online_fp8 and request.engine.online_fp8_peak == "unquantized":
        peak = request.file_weights.per_gpu_bytes(request.gpus) / GIB
        if peak > free:
            return (
                f"{peak:.2f} GiB of BF16 weights, {memory.visible_gib:.2f} GiB visible: vLLM {request.engine.version} loads all "
                "of them before it quantizes: torch.OutOfMemoryError"
            )
    if peak > free:
        return f"{head}: torch.OutOfMemoryError while loading, whatever the context"
    if free < memory.budget_gib:
        return (
            f"{head}: Free memory on device ({free:.2f}/{memory.visible_gib:.2f} GiB) on startup is less than desired GPU memory "
            f"utilization ({request.gpu_memory_utilization:.2f}, {memory.budget_gib:.2f} GiB); lower gpuMemoryUtilization"
        )
    if memory.kv_gib <= 0:
        return (
            f"{head}, {memory.budget_gib:.2f} GiB at utilization {request.gpu_memory_utilization:.2f} less "
            f"{memory.reserve_gib:.2f} GiB for activations: No available memory for the cache blocks"
        )
    needed = kv_needed_gib(request)
    if memory.kv_gib < needed:
        return (
            f"{head}: to serve one request of {request.max_model_len} tokens, {needed:.2f} GiB KV cache is needed, which is "
            f"larger than the available {memory.kv_gib:.2f} GiB; at most {longest_request(request, memory)} tokens"
        )
    # At its default utilization every engine leaves room for the graphs of a dense model; above, and for the larger ones of a
    # mixture, the room is what contexts and NCCL leave of the rest.
    beside = memory.visible_gib - memory.budget_gib - context_gib(request)
    mixture = bool(request.architecture.experts)
    uncertain = mixture or request.gpu_memory_utilization > engine.default_gpu_memory_utilization
    if not engine.graphs_in_budget and uncertain and beside < memory.graphs_gib:
        lowest = 0.0 if mixture else engine.default_gpu_memory_utilization
        highest = max(lowest, _floor_hundredth(request, memory.graphs_gib))
        return (
            f"{head}: utilization {request.gpu_memory_utilization:.2f} leaves {max(0.0, beside):.2f} GiB beside it, CUDA graphs "
            f"take {memory.graphs_gib:.1f}: out of memory while capturing; at most {highest:.2f}, or --enforce-eager"
        )
    return None


def _floor_hundredth(request: ServiceRequest, graphs_gib: float) -> float:
    """The highest utilization, in hundredths, that leaves room for contexts and graphs."""
    return floor((1 - (context_gib(request) + graphs_gib) / request.gpu.visible_gib) * 100) / 100
