"""Matrices that tensor parallelism cannot cut: in a column, in a group or block that shares a scale, in a kernel's tile.

Read from both wheels: layers/quantization/utils/marlin_utils.py, fp8_utils.py, moe_wna16.py and compressed_tensors_moe.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from mistral_on_l4.planner.request import ServiceRequest

EXPERT_PARALLEL = "--enable-expert-parallel"
WNA16 = ("gptq", "gptq_marlin", "awq", "awq_marlin", "auto-round")  # methods whose experts have a second kernel
SMALLEST_GROUP, WNA16_BLOCK = 32, 128  # of MoeWNA16's kernels: fewest columns of a group, columns of a block
# Marlin's tiles, [columns in, rows out], of engines that do not pad weights to them; Machete's columns, from 9.0.
TILE_IN, TILE_OUT, MACHETE_IN, MACHETE_FROM = 128, 64, 64, 9.0


@dataclass(frozen=True)
class Parts:
    """One GPU's part. widths: of MLPs that are no experts; expert: of one routed expert, 0 without; queries: of all its heads."""

    widths: tuple[int, ...]
    expert: int
    queries: int
    keys: int


def parts_of(request: ServiceRequest) -> Parts:
    shape, tp = request.architecture, request.gpus
    whole = EXPERT_PARALLEL in request.flags  # every expert lies on one GPU whole
    dense = (shape.dense_intermediate, shape.shared_intermediate) if shape.experts else (shape.intermediate,)
    expert = shape.intermediate // (1 if whole else tp) if shape.experts else 0
    keys = max(1, shape.kv_heads // tp) * shape.head_dim
    return Parts(tuple(width // tp for width in dense if width), expert, shape.heads * shape.head_dim // tp, keys)


def uneven_split(request: ServiceRequest) -> str | None:
    """Why the engine cannot cut the model over its GPUs, in its words; None if it can."""
    shape, tp, stored = request.architecture, request.gpus, request.quantization
    whole_experts = shape.experts and EXPERT_PARALLEL in request.flags
    widths = (0 if whole_experts else shape.intermediate, shape.dense_intermediate, shape.shared_intermediate)
    if uneven := next((width for width in widths if width % tp), None):
        return f"{uneven} is not divisible by {tp}: the MLP's width over tensor parallel size"
    if whole_experts and shape.experts % tp:
        return f"{shape.experts} experts are not divisible by {tp}: with {EXPERT_PARALLEL} each GPU holds as many of them"
    parts = parts_of(request)
    if stored.block_size:
        return _cut_block(request, parts, stored.block_size)
    if stored.scheme not in ("int4", "int8") or not stored.weight_only or stored.method == "bitsandbytes":
        return None
    return _cut_experts(request, parts) or _cut_group(request, parts) or _cut_tile(request, parts)


def expert_group(request: ServiceRequest) -> int:
    """Columns that share a scale of the experts once they are loaded: MoeWNA16 halves a group until no GPU's part cuts it.

    Scales are repeated as often, so they take more memory. The stored group where nothing is halved.
    """
    shape, stored = request.architecture, request.quantization
    group = stored.group_size
    if not shape.experts or not group or stored.method not in WNA16:
        return group
    part = parts_of(request).expert
    if _marlin_takes(request, part):
        return group
    while group >= SMALLEST_GROUP and (part % group or shape.hidden % group):
        group //= 2
    return group


def _marlin_takes(request: ServiceRequest, part: int) -> bool:
    """Whether Marlin multiplies the experts: whole tiles, or, where weights are padded, whole groups."""
    group = request.quantization.group_size
    columns = max(1, group) if request.engine.marlin_pads else max(64, group)
    return request.architecture.hidden % 128 == 0 and part % columns == 0 and group in (0, 32, 64, 128)


def _cut_experts(request: ServiceRequest, parts: Parts) -> str | None:
    stored, engine = request.quantization, request.engine
    if not parts.expert or not stored.group_size:
        return None
    if stored.method in WNA16:
        if (group := expert_group(request)) < SMALLEST_GROUP:
            return (
                f"assert group_size >= {SMALLEST_GROUP} (moe_wna16.py): an expert's {parts.expert} columns per GPU are cut into "
                f"groups of {group}"
            )
        # Its CUDA kernel, which few tokens per expert take, wants whole blocks; newer engines make the blocks smaller.
        short = stored.scheme == "int4" and not engine.marlin_pads and not _marlin_takes(request, parts.expert)
        if short and (parts.expert % WNA16_BLOCK or request.architecture.hidden % WNA16_BLOCK):
            return (
                f"size_k must divisible by BLOCK_SIZE_K (moe_wna16_gemm): an expert's {parts.expert} columns per GPU are no whole "
                f"blocks of {WNA16_BLOCK}; {EXPERT_PARALLEL} keeps experts whole"
            )
        return None
    if parts.expert % stored.group_size == 0:
        return None
    if engine.marlin_pads:
        return (
            "CompressedTensors WNA16 MoE with static group scales requires the MoE intermediate size per tensor-parallel partition "
            f"({parts.expert}) to be divisible by group_size ({stored.group_size})."
        )
    return (
        f"an expert's {parts.expert} columns per GPU cut groups of {stored.group_size} that share a scale: vLLM {engine.version} "
        "does not check that, and multiplies with the scales of others"
    )


def _cut_group(request: ServiceRequest, parts: Parts) -> str | None:
    stored, tp = request.quantization, request.gpus
    group = stored.group_size
    if tp == 1 or not group:
        return None
    cut = next((size for size in (*parts.widths, parts.queries) if size % group), None)
    if cut is None:
        return None
    if stored.method.startswith("awq"):
        return (
            "The input size is not aligned with the quantized weight shape. This can be caused by too large tensor parallel "
            f"size ({cut} per GPU, groups of {group})."
        )
    return (
        f"Weight input_size_per_partition = {cut} is not divisible by group_size = {group}. Consider reducing "
        f"tensor_parallel_size ({tp})"
    )


def _cut_tile(request: ServiceRequest, parts: Parts) -> str | None:
    """Older engines pad nothing to Marlin's tiles; AWQ has kernels of its own then, and float16 has Exllama's."""
    stored = request.quantization
    if request.engine.marlin_pads or stored.method.startswith("awq") or request.half_dtype == "float16":
        return None
    hidden, tile_in = request.architecture.hidden, TILE_IN
    if request.gpu.compute_capability >= MACHETE_FROM:
        tile_in = MACHETE_IN
    if cut := next((size for size in (*parts.widths, parts.queries, hidden) if size % tile_in), None):
        return (
            f"Weight input_size_per_partition = {cut} is not divisible by min_thread_k = {tile_in}. Consider reducing "
            "tensor_parallel_size or running with --quantization gptq."
        )
    if cut := next((size for size in (parts.queries + 2 * parts.keys, hidden) if size % TILE_OUT), None):
        return f"Weight output_size_per_partition = {cut} is not divisible by min_thread_n = {TILE_OUT}."
    return None


def _cut_block(request: ServiceRequest, parts: Parts, block: tuple[int, int]) -> str | None:
    """A block of weights that share a scale must lie on one GPU whole (layers/quantization/utils/fp8_utils.py)."""
    tp = request.gpus
    rows, columns = block
    refined = _refined(request, parts, block)
    if parts.expert and not refined and parts.expert % rows:
        return (
            f"The output_size of gate's and up's weight = {parts.expert} is not divisible by weight quantization block_n = {rows}. "
            f"({request.architecture.intermediate} over {tp} GPUs)"
        )
    if parts.expert and not refined and tp > 1 and parts.expert % columns:
        return f"The input_size of down's weight = {parts.expert} is not divisible by weight quantization block_k = {columns}."
    if cut := next((size for size in (*parts.widths, parts.queries, parts.keys) if size % rows), None):
        return f"Weight output_partition_size = {cut} is not divisible by weight quantization block_n = {rows}."
    if tp > 1 and (cut := next((size for size in (*parts.widths, parts.queries) if size % columns), None)):
        return f"Weight input_size_per_partition = {cut} is not divisible by weight quantization block_k = {columns}."
    return None


def _refined(request: ServiceRequest, parts: Parts, block: tuple[int, int]) -> bool:
    """Whether the engine cuts the experts' blocks into smaller ones with the same scale (fused_moe/oracle/fp8.py)."""
    lowest = request.engine.expert_blocks_refined_from
    if lowest is None or request.gpu.compute_capability < lowest or request.quantization.method != "fp8":
        return False
    return gcd(*block, parts.expert, request.architecture.hidden) >= SMALLEST_GROUP
