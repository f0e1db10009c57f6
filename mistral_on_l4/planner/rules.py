"""What the engine refuses whatever the memory, each with its own words, and what the planner warns of."""

from __future__ import annotations

from math import floor

from mistral_on_l4.planner.catalogue.families import registry_of
from mistral_on_l4.planner.plan import GIB
from mistral_on_l4.planner.request import ServiceRequest
from mistral_on_l4.planner.splits import EXPERT_PARALLEL, uneven_split

# What --quantization may say of a checkpoint beside its own method: faster kernels of it, and names that it had or has.
_OTHER_NAMES = {
    "gptq": ("gptq_marlin", "auto_gptq", "marlin", "moe_wna16"),
    "awq": ("awq_marlin", "auto_awq", "marlin", "moe_wna16"),
    "auto-round": ("inc",),
    "modelopt_fp4": ("modelopt",),
}


def refusal_of(request: ServiceRequest) -> str | None:
    """Why the engine refuses the combination, in its own words; None if it does not."""
    shape, gpu, tp = request.architecture, request.gpu, request.gpus
    capability = gpu.compute_capability
    if request.unsupported:
        return request.unsupported
    asked = request.flags.get("--quantization")
    stored = request.quantization.method
    if unknown := _unknown_method(request):
        return unknown
    if asked and stored not in ("none", asked) and asked not in _OTHER_NAMES.get(stored, ()):
        return (
            f"Quantization method specified in the model config ({stored}) does not match the quantization method specified in the "
            f"`quantization` argument ({asked}); leave --quantization out"
        )
    if asked and stored == "none" and not asked.startswith("fp8"):
        return f"Cannot find the config file for {asked}: {request.checkpoint} is not quantized; leave --quantization out"
    if lacking := _capability_refusal(request):
        return lacking
    if request.half_dtype == "float16" and not shape.float16:
        no_other = f", and {gpu.name} has no bfloat16: no dtype is left" if capability < 8.0 else ""
        return (
            f"The model type {shape.model_type!r} does not support float16. Reason: Numerical instability. Please use bfloat16 or "
            f"float32 instead{no_other}"
        )
    if request.half_dtype == "bfloat16" and capability < 8.0:
        other = "You can use float16 instead by explicitly setting the `dtype` flag (--dtype=half)"
        if not shape.float16:
            other = f"The model type {shape.model_type!r} does not support float16 either: no dtype is left"
        return (
            f"Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your {gpu.name} GPU has compute "
            f"capability {capability}. {other}"
        )
    if shape.heads % tp:
        return f"Total number of attention heads ({shape.heads}) must be divisible by tensor parallel size ({tp})."
    if shape.kv_heads % tp and tp % shape.kv_heads:
        return (
            f"tensor parallel size ({tp}) must divide the KV heads ({shape.kv_heads}), or be a multiple of them: "
            "assert self.total_num_kv_heads % tp_size == 0"
        )
    if shape.heads % shape.kv_heads:
        return f"num_heads ({shape.heads}) is not divisible by num_kv_heads ({shape.kv_heads}): every KV head serves as many heads"
    if request.quantization.act_order and not request.engine.gptq_act_order:
        return (
            "GPTQ group activation ordering (desc_act=True) is no longer supported. Use a checkpoint with static activation "
            "ordering or desc_act=False."
        )
    if EXPERT_PARALLEL in request.flags and not shape.experts:
        return "Number of experts in the model must be greater than 0 when expert parallelism is enabled."
    if uneven := uneven_split(request):
        return uneven
    if not request.chunked_prefill and request.batched_tokens < request.max_model_len:
        return (
            f"max_num_batched_tokens ({request.batched_tokens}) is smaller than max_model_len ({request.max_model_len}). This "
            "effectively limits the maximum sequence length to max_num_batched_tokens and makes vLLM reject longer sequences. "
            "Please increase max_num_batched_tokens or decrease max_model_len."
        )
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


def _unknown_method(request: ServiceRequest) -> str | None:
    """A method that the engine does not load, or no longer without being told to, or not over several GPUs."""
    method = request.quantization.method
    # Every version loads these: the catalogue's own checkpoints are planned without reading the registry.
    registry = None if method in ("none", "compressed-tensors") else registry_of(request.engine_name)
    if registry is None:
        return None
    if not registry.quantizations.intersection((method, *_OTHER_NAMES.get(method, ()))):
        return f"Unknown quantization method: {method}: vLLM {request.engine.version} does not load it"
    if method in registry.deprecated and "--allow-deprecated-quantization" not in request.flags:
        return (
            f"The quantization method {method} is deprecated and will be removed in future versions of vLLM. To bypass, set "
            "`--allow-deprecated-quantization`."
        )
    if method == "bitsandbytes" and request.gpus > 1:
        return "Prequant BitsAndBytes models with tensor parallelism is not supported. Please try with pipeline parallelism."
    return None


def _capability_refusal(request: ServiceRequest) -> str | None:
    """GPTQ, AWQ and bitsandbytes have kernels for every card of the catalogue; INT8 times INT8 has them from 7.5 on."""
    engine, capability, loaded = request.engine, request.gpu.compute_capability, request.loaded_as
    compressed = loaded.method == "compressed-tensors"
    integers = loaded.scheme == "int4" or (loaded.scheme == "int8" and loaded.weight_only)
    minimum = 7.5 if loaded.scheme == "int8" and not loaded.weight_only else 0.0
    if loaded.scheme == "fp8" or (compressed and integers):
        minimum = engine.weight_only_capability
    if loaded.method == "modelopt":
        minimum = engine.modelopt_capability
    if loaded.method == "fbgemm_fp8":
        minimum = 8.0
    if loaded.scheme in ("mxfp4", "nvfp4"):
        minimum = engine.mxfp4_capability if loaded.scheme == "mxfp4" else engine.nvfp4_capability
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
    if request.loaded_as.scheme == "nvfp4":
        notes.append(f"{request.gpu.name} (compute capability {capability}) multiplies NVFP4 in 16 bits (weight-only)")
    if request.weights.vision_bytes:
        notes.append(
            f"the vision tower's {request.weights.vision_bytes / GIB:.2f} GiB are counted, the profile run of its largest image is "
            "not: the KV cache will be smaller"
        )
    if request.architecture.experts:
        notes.append(
            "speeds of a mixture are the best case: for one user experts' kernels took 1.0 (L40S) to 2.9 times (A100) as long, and "
            "prompts longer"
        )
    notes += _outside_notes(request)
    work = request.workload
    if work.prompt_tokens + work.output_tokens > request.max_model_len:
        notes.append(
            f"speeds are those of {work.prompt_tokens} tokens in and {work.output_tokens} out, but vLLM refuses a request of more "
            f"than {request.max_model_len}: --prompt-tokens and --output-tokens change them"
        )
    if request.quantization.kv_cache and request.kv_cache_dtype == "auto":
        follows = request.engine.kv_from_checkpoint
        notes.append(
            "the KV cache is in FP8, since the checkpoint says so"
            if follows
            else f"the checkpoint was made for an FP8 KV cache: vLLM {request.engine.version} takes one if --kv-cache-dtype says so"
        )
    if request.cache_dtype.startswith("fp8") and capability < 8.9:
        notes.append(f"an FP8 KV cache was not verified on {request.gpu.name} (compute capability {capability})")
    return notes


def _outside_notes(request: ServiceRequest) -> list[str]:
    """Where contexts and NCCL of four GPUs without NVLink leave less than the budget supposes."""
    outside, gpu = request.engine.nccl_outside_gib, request.gpu
    if request.gpus < 4 or gpu.nvlink or not outside:
        return []
    left = gpu.visible_gib * (1 - request.gpu_memory_utilization)
    if left >= outside:
        return []
    highest = floor((1 - outside / gpu.visible_gib) * 100) / 100
    return [
        f"contexts and NCCL of four GPUs without NVLink took {outside:.1f} GiB each beside the budget (measured on vLLM 0.29), "
        f"utilization {request.gpu_memory_utilization:.2f} leaves {left:.1f}: above {highest:.2f} warm-up may run out of memory"
    ]
