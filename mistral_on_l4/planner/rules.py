"""What the engine refuses whatever the memory, each with its own words, and what the planner warns of."""

from __future__ import annotations

from mistral_on_l4.planner.plan import PlanError
from mistral_on_l4.planner.request import ServiceRequest, readable_int

# Flags that the plan writes itself, and the setting that each belongs to: a second value would make the plan wrong.
OWNED = {
    "--port": "the runtime",
    "--model": "the runtime",
    "--served-model-name": "the runtime",
    "--tensor-parallel-size": "tensorParallelSize",
    "--max-model-len": "maxModelLen",
    "--max-num-seqs": "maxNumSeqs",
    "--kv-cache-dtype": "kvCacheDtype",
    "--gpu-memory-utilization": "gpuMemoryUtilization",
    "--cpu-offload-gb": "cpuOffload",
}
# Flags that split or cache the model in ways that the planner does not compute.
UNPLANNED = ("--pipeline-parallel-size", "--data-parallel-size", "--speculative-config", "--kv-cache-memory-bytes", "--swap-space")
TAKES_NO_VALUE = ("--enforce-eager", "--enable-chunked-prefill", "--trust-remote-code", "--enable-auto-tool-choice")


def check_flags(request: ServiceRequest) -> None:
    """Raises PlanError if extraArgs contradict the plan."""
    flags = request.flags
    for flag, setting in OWNED.items():
        if flag in flags:
            raise PlanError(f"{request.name}: extraArgs sets {flag}, which {setting} sets: remove it there")
    for flag in UNPLANNED:
        if flag in flags:
            raise PlanError(f"{request.name}: extraArgs sets {flag}, which the planner cannot compute: remove it")
    for flag in TAKES_NO_VALUE:
        if flags.get(flag):
            raise PlanError(
                f"{request.name}: extraArgs gives {flag} the value {flags[flag]!r}, but it takes none: vLLM would not start"
            )
    tokens = flags.get("--max-num-batched-tokens")
    if tokens is not None and not readable_int(tokens):
        raise PlanError(
            f"{request.name}: extraArgs gives --max-num-batched-tokens the value {tokens!r}: write a number such as 2048 or 2K"
        )


def refusal_of(request: ServiceRequest) -> str | None:
    """Why the engine refuses the combination, in its own words; None if it does not."""
    shape, gpu, tp = request.architecture, request.gpu, request.gpus
    capability = gpu.compute_capability
    asked = request.flags.get("--quantization")
    stored = request.quantization.method
    if asked and stored not in ("none", asked):
        return (
            f"Quantization method specified in the model config ({stored}) does not match the quantization method specified in the "
            f"`quantization` argument ({asked}); leave --quantization out"
        )
    if asked and stored == "none" and not asked.startswith("fp8"):
        return f"Cannot find the config file for {asked}: {request.checkpoint} is not quantized; leave --quantization out"
    if lacking := _capability_refusal(request):
        return lacking
    if request.half_dtype == "bfloat16" and capability < 8.0:
        return (
            f"Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your {gpu.name} GPU has compute "
            f"capability {capability}. You can use float16 instead by explicitly setting the `dtype` flag (--dtype=half)"
        )
    if shape.heads % tp:
        return f"Total number of attention heads ({shape.heads}) must be divisible by tensor parallel size ({tp})."
    if shape.kv_heads % tp and tp % shape.kv_heads:
        return (
            f"tensor parallel size ({tp}) must divide the KV heads ({shape.kv_heads}), or be a multiple of them: "
            "assert self.total_num_kv_heads % tp_size == 0"
        )
    if uneven := _uneven_split(request):
        return uneven
    if request.max_num_seqs and request.max_num_seqs > request.batched_tokens:
        return (
            f"max_num_batched_tokens ({request.batched_tokens}) must be greater than or equal to max_num_seqs "
            f"({request.max_num_seqs})."
        )
    if request.max_model_len > shape.max_positions:
        return (
            f"User-specified max_model_len ({request.max_model_len}) is greater than the derived max_model_len "
            f"(max_position_embeddings={shape.max_positions} in model's config.json)"
        )
    return None


def _uneven_split(request: ServiceRequest) -> str | None:
    """Matrices that tensor parallelism cuts where they cannot be cut: in a column, or in a group that shares a scale."""
    shape, tp, stored = request.architecture, request.gpus, request.quantization
    widths = [width for width in (shape.intermediate, shape.dense_intermediate, shape.shared_intermediate) if width]
    if uneven := next((width for width in widths if width % tp), None):
        return f"{uneven} is not divisible by {tp}: the MLP's width over tensor parallel size"
    group = stored.group_size if stored.method != "bitsandbytes" else 0
    if tp == 1 or not group:
        return None
    if cut := next((size // tp for size in (*widths, shape.heads * shape.head_dim) if size // tp % group), None):
        if stored.method.startswith("awq"):
            return (
                "The input size is not aligned with the quantized weight shape. This can be caused by too large tensor parallel "
                f"size ({cut} per GPU, groups of {group})."
            )
        return (
            f"Weight input_size_per_partition = {cut} is not divisible by group_size = {group}. Consider reducing "
            f"tensor_parallel_size ({tp})"
        )
    return None


def _capability_refusal(request: ServiceRequest) -> str | None:
    """GPTQ, AWQ and bitsandbytes have kernels for every card of the catalogue; INT8 times INT8 has them from 7.5 on."""
    engine, capability, loaded = request.engine, request.gpu.compute_capability, request.loaded_as
    compressed = loaded.method == "compressed-tensors"
    integers = loaded.scheme == "int4" or (loaded.scheme == "int8" and loaded.weight_only)
    minimum = 7.5 if loaded.scheme == "int8" and not loaded.weight_only else 0.0
    if loaded.scheme == "fp8" or (compressed and integers):
        minimum = engine.weight_only_capability
    if loaded.method == "fbgemm_fp8":
        minimum = 8.0
    if capability >= minimum:
        return None
    if compressed and not request.online_fp8:
        return (
            f"Quantization scheme is not supported for the current GPU. Min capability: {minimum * 10:.0f}. Current capability: "
            f"{capability * 10:.0f}."
        )
    method = "fp8" if request.online_fp8 else loaded.method
    return (
        f"The quantization method {method} is not supported for the current GPU. Minimum capability: {minimum * 10:.0f}. Current "
        f"capability: {capability * 10:.0f}."
    )


def offload_refusal(request: ServiceRequest) -> str | None:
    """Why weights cannot stay in the node's memory with this engine and checkpoint; None if they can."""
    engine = request.engine
    if engine.cpu_offload == "ignored":
        return f"vLLM {engine.version} accepts --cpu-offload-gb and ignores it (the catalogue's engines without this: 0.11, 0.33)"
    if engine.cpu_offload_repacked == "lost" and request.loaded_as.scheme == "int4":
        return f"vLLM {engine.version} repacks INT4 weights into GPU memory after loading, so --cpu-offload-gb is lost there"
    return None


def warnings_of(request: ServiceRequest) -> list[str]:
    """What works, but not as one might expect."""
    notes = []
    capability = request.gpu.compute_capability
    if request.loaded_as.scheme == "fp8" and capability < 8.9:
        notes.append(
            f"{request.gpu.name} (compute capability {capability}) has no FP8 arithmetic: weights stay FP8, and are multiplied in "
            "16 bits (weight-only, slower prefill)"
        )
    work = request.workload
    if work.prompt_tokens + work.output_tokens > request.max_model_len:
        notes.append(
            f"speeds are those of {work.prompt_tokens} tokens in and {work.output_tokens} out, but vLLM refuses a request of more "
            f"than {request.max_model_len}: --prompt-tokens and --output-tokens change them"
        )
    if request.kv_cache_dtype.startswith("fp8") and capability < 8.9:
        notes.append(f"an FP8 KV cache was not verified on {request.gpu.name} (compute capability {capability})")
    return notes
