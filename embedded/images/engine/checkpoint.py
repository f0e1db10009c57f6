"""What vLLM refuses once it has read the model folder: flags that do not go with config.json, weights that are not there.

Sentences are vLLM 0.11.0's (the same in 0.33.0); the file that each comes from is named beside it. Memory is not checked: it
is the planner that knows GPUs, here there is none.
"""

from __future__ import annotations

import json
import struct
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded.images.engine.flags import Refused, Table

# Weights that vLLM keeps together under one name (packed_modules_mapping in model_executor/models/llama.py).
_PACKED = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}
# get_supported_act_dtypes of compressed_tensors.py and fp8.py in model_executor/layers/quantization.
_HALF_ONLY = ("compressed-tensors", "fp8")
_DEFAULT_MAX_MODEL_LEN = 2048
_DEFAULT_BATCHED_TOKENS, _DEFAULT_SEQS = 2048, 256  # engine/arg_utils.py, for cards below 70 GiB
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Loaded:
    """max_model_len: tokens; max_num_seqs: sequences; quantization: as detected or given; notes: what vLLM would not notice."""

    max_model_len: int
    max_num_seqs: int
    quantization: str | None
    shards: tuple[Path, ...]
    notes: tuple[str, ...]


def check(given: Namespace, model: str, flags: Table, environment: Mapping[str, str]) -> Loaded:
    """Reads the folder as vLLM would, in its order. Raises Refused with vLLM's sentence."""
    folder = Path(model)
    if flags.inverses:
        _ranges(given)
    config = _config(given, folder, model)
    max_model_len = _max_model_len(given, config, flags, environment)
    quantization = _quantization(given, config, flags)
    _sizes(given, config)
    _cache(given)
    max_num_seqs = _schedule(given)
    if quantization in _HALF_ONLY and given.dtype in ("float", "float32"):  # config/__init__.py, _get_quantization_config
        raise _invalid(
            "VllmConfig",
            f"torch.float32 is not supported for quantization method {quantization}. "
            "Supported dtypes: [torch.float16, torch.bfloat16]"
            if quantization == "compressed-tensors"
            else f"torch.float32 is not supported for quantization method {quantization}. "
            "Supported dtypes: [torch.bfloat16, torch.float16]",
        )
    shards, notes = _weights(given, folder, model, config, quantization, flags)
    return Loaded(max_model_len, max_num_seqs, quantization, tuple(shards), tuple(notes))


def _invalid(config: str, sentence: str) -> Refused:
    """pydantic's way of saying it, as vLLM's log shows it."""
    return Refused(f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {config}", f"  Value error, {sentence}")


def _ranges(given: Namespace) -> None:
    """Bounds of the fields in 0.33.0's config/cache.py, parallel.py, scheduler.py and offload.py, in pydantic's words."""
    for name, owner, low, high in (
        ("gpu_memory_utilization", "CacheConfig", None, 1),
        ("tensor_parallel_size", "ParallelConfig", 1, None),
        ("pipeline_parallel_size", "ParallelConfig", 1, None),
        ("data_parallel_size", "ParallelConfig", 1, None),
        ("max_num_seqs", "SchedulerConfig", 1, None),
        ("max_num_batched_tokens", "SchedulerConfig", 1, None),
        ("max_model_len", "ModelConfig", -1, None),
        ("cpu_offload_gb", "UVAOffloadConfig", 0, None),
    ):
        value = getattr(given, name)
        wrong = ""
        if value is not None and low is not None and value < low:
            wrong = f"Input should be greater than or equal to {low}"
        elif value is not None and high is not None and value > high:
            wrong = f"Input should be less than or equal to {high}"
        elif name == "gpu_memory_utilization" and value is not None and value <= 0:
            wrong = "Input should be greater than 0"
        if wrong:
            raise Refused(f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {owner}", name, f"  {wrong}")


def _config(given: Namespace, folder: Path, model: str) -> dict[str, Any]:
    """config.json, or what vLLM makes of params.json. transformers_utils/config.py, get_config."""
    form = given.config_format or "auto"
    has_config, has_params = (folder / "config.json").is_file(), (folder / "params.json").is_file()
    if form not in ("auto", "hf", "mistral"):
        raise _invalid("ModelConfig", f"Unknown config format `{form}`.")
    if form == "auto" and not has_config and not has_params:
        raise Refused(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
            f"  Value error, Invalid repository ID or local directory specified: '{model}'.",
            "  Please verify the following requirements: 2. Specify a local directory that contains a recognized configuration "
            "file. For Hugging Face models: ensure the presence of a 'config.json'. For Mistral models: ensure the presence of "
            f"a 'params.json'. ({model} {_contents(folder)})",
        )
    if form == "hf" and not has_config:
        raise Refused(f"OSError: {model} does not appear to have a file named config.json.")
    if form == "mistral" and not has_params:
        raise _invalid("ModelConfig", f"Failed to load mistral 'params.json' config for model {model}.")
    if form == "mistral" or not has_config:
        raise Refused(
            "this simulation of vLLM reads the Hugging Face format only: upload config.json and leave --config-format out"
        )
    try:
        config = json.loads((folder / "config.json").read_text())
    except (ValueError, OSError):
        config = None
    if not isinstance(config, dict):
        raise Refused(f"OSError: It looks like the config file at '{folder / 'config.json'}' is not a valid JSON file.")
    if not config.get("model_type"):
        raise _invalid(
            "ModelConfig",
            f"Unrecognized model in {model}. Should have a `model_type` key in its config.json.",
        )
    overrides = given.hf_overrides if isinstance(given.hf_overrides, dict) else {}
    return {**config, **overrides}


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return "is no folder"
    names = sorted(path.name for path in folder.iterdir())
    return f"holds {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}" if names else "is empty"


def _max_model_len(given: Namespace, config: dict[str, Any], flags: Table, environment: Mapping[str, str]) -> int:
    """config/model.py, _get_and_verify_max_len."""
    keys = (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
        "max_sequence_length",
        "max_seq_length",
        "seq_len",
    )
    lengths = {key: config[key] for key in keys if config.get(key) is not None}
    wanted: int | None = given.max_model_len
    if flags.inverses and wanted == -1:
        wanted = None  # 0.33 fits it to the GPU, of which nothing is known here
    if not lengths:
        return wanted if wanted is not None else _DEFAULT_MAX_MODEL_LEN
    key = min(lengths, key=lambda name: int(lengths[name]))
    derived = float(lengths[key])
    scaling = config.get("rope_scaling")
    if isinstance(scaling, dict) and scaling.get("rope_type", scaling.get("type")) not in ("su", "longrope", "llama3"):
        if scaling.get("rope_type", scaling.get("type")) == "yarn":
            derived = float(scaling["original_max_position_embeddings"])
        derived *= float(scaling.get("factor", 1.0))
    if wanted is None:
        return int(derived)
    shown = int(derived) if derived.is_integer() and not isinstance(scaling, dict) else derived
    if wanted > derived and environment.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0") not in ("1", "true", "True"):
        raise _invalid(
            "ModelConfig",
            f"User-specified max_model_len ({wanted}) is greater than the derived max_model_len ({key}={shown} or "
            "model_max_length=None in model's config.json). To allow overriding this maximum, set the env var "
            "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with extreme caution. If the model uses "
            "relative position encoding (RoPE), positions exceeding derived_max_model_len lead to nan. If the model uses absolute "
            "position encoding, positions exceeding derived_max_model_len will cause a CUDA array out-of-bounds error.",
        )
    if wanted < 1:
        raise Refused(f"this simulation of vLLM needs --max-model-len of 1 or more, not {wanted}")
    return wanted


def _quantization(given: Namespace, config: dict[str, Any], flags: Table) -> str | None:
    """config/model.py, _verify_quantization."""
    named: str | None = given.quantization.lower() if given.quantization else None
    stored = config.get("quantization_config") or config.get("compression_config")
    if stored:
        method = str(stored.get("quant_method", "")).lower().replace("compressed_tensors", "compressed-tensors") or None
        # GPTQ and AWQ checkpoints may run on other kernels, under those kernels' names.
        kernels = {"gptq": ("gptq_marlin", "gptq_bitblas", "marlin"), "awq": ("awq_marlin", "marlin")}.get(method or "", ())
        if named is None or named in kernels:
            named = method
        elif named != method:
            raise _invalid(
                "ModelConfig",
                f"Quantization method specified in the model config ({method}) does not match the quantization method specified "
                f"in the `quantization` argument ({named}).",
            )
    if named is not None and named not in flags.quantization:
        raise _invalid("ModelConfig", f"Unknown quantization method: {named}. Must be one of {list(flags.quantization)}.")
    return named


def _sizes(given: Namespace, config: dict[str, Any]) -> None:
    """config/model.py, verify_with_parallel_config; distributed/utils.py, divide."""
    tensor_parallel = 1 if given.tensor_parallel_size is None else int(given.tensor_parallel_size)
    heads = int(config.get("num_attention_heads", 0))
    if tensor_parallel < 1:
        raise _invalid("ParallelConfig", f"tensor_parallel_size must be 1 or more, not {tensor_parallel}")
    if heads % tensor_parallel:
        raise Refused(
            f"ValueError: Total number of attention heads ({heads}) must be divisible by tensor parallel size ({tensor_parallel})."
        )
    intermediate = int(config.get("intermediate_size", 0))
    if intermediate % tensor_parallel:
        raise Refused(f"AssertionError: {intermediate} is not divisible by {tensor_parallel}")
    key_values = int(config.get("num_key_value_heads") or heads)
    if key_values and (key_values % tensor_parallel if key_values >= tensor_parallel else tensor_parallel % key_values):
        raise Refused(f"AssertionError: {key_values} KV heads and tensor parallel size {tensor_parallel} do not divide")


def _cache(given: Namespace) -> None:
    """config/cache.py, _verify_args."""
    if given.cpu_offload_gb is not None and given.cpu_offload_gb < 0:
        raise _invalid("CacheConfig", f"CPU offload space must be non-negative, but got {given.cpu_offload_gb}")
    if given.gpu_memory_utilization is not None and given.gpu_memory_utilization > 1.0:
        raise _invalid("CacheConfig", f"GPU memory utilization must be less than 1.0. Got {given.gpu_memory_utilization}.")


def _schedule(given: Namespace) -> int:
    """config/scheduler.py, _verify_args; defaults of engine/arg_utils.py. Returns max_num_seqs."""
    tokens = _DEFAULT_BATCHED_TOKENS if given.max_num_batched_tokens is None else int(given.max_num_batched_tokens)
    sequences = min(_DEFAULT_SEQS, tokens) if given.max_num_seqs is None else int(given.max_num_seqs)
    if tokens < sequences:
        raise _invalid(
            "SchedulerConfig",
            f"max_num_batched_tokens ({tokens}) must be greater than or equal to max_num_seqs ({sequences}).",
        )
    if sequences < 1:
        raise Refused(f"this simulation of vLLM needs --max-num-seqs of 1 or more, not {sequences}")
    return sequences


def _weights(
    given: Namespace, folder: Path, model: str, config: dict[str, Any], quantization: str | None, flags: Table
) -> tuple[list[Path], list[str]]:
    """The shards that would be read. model_executor/model_loader/default_loader.py and weight_utils.py."""
    form = (given.load_format or "auto").lower()
    if form not in flags.load_formats:
        raise Refused(f"ValueError: Load format `{form}` is not supported")
    if form == "dummy":
        return [], []
    if form not in ("auto", "safetensors", "fastsafetensors", "mistral", "runai_streamer"):
        raise Refused(f"this simulation of vLLM reads safetensors only: --load-format {form} is not simulated")
    pattern, index_name = "*.safetensors", "model.safetensors.index.json"
    if form == "mistral":
        pattern, index_name = "consolidated*.safetensors", "consolidated.safetensors.index.json"
    shards = sorted(folder.glob(pattern))
    weights: dict[str, str] = {}
    if (folder / index_name).is_file():
        weights = json.loads((folder / index_name).read_text())["weight_map"]
        listed = set(weights.values())
        shards = [shard for shard in shards if shard.name in listed]
    if not shards:
        raise Refused(f"RuntimeError: Cannot find any model weights with `{model}`")
    for shard in shards:
        _readable(shard)
    absent = sorted(set(weights.values()) - {shard.name for shard in shards})
    if not absent:
        return shards, []
    missing = _not_loaded(weights, absent, config)
    if quantization is None and missing:
        raise Refused(f"ValueError: Following weights were not initialized from checkpoint: {{{', '.join(map(repr, missing))}}}")
    return shards, [f"{', '.join(absent)} of {index_name} is not there: vLLM does not notice that on a quantized checkpoint"]


def _not_loaded(weights: Mapping[str, str], absent: Sequence[str], config: dict[str, Any]) -> list[str]:
    """Names of vLLM's parameters of which no part lies in a present shard."""

    def packed(name: str) -> str:
        return ".".join(_PACKED.get(part, part) for part in name.split("."))

    present = {packed(name) for name, shard in weights.items() if shard not in absent}
    gone = {packed(name) for name, shard in weights.items() if shard in absent} - present
    if config.get("tie_word_embeddings"):
        gone.discard("lm_head.weight")
    return sorted(gone)


def _readable(shard: Path) -> None:
    """The header's length and its last offset against the file's size: a cut or foreign file is found without reading it."""
    size = shard.stat().st_size
    with shard.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        problem = ""
        if len(start) < 8:
            problem = "header too small"
        elif length > _LONGEST_HEADER:
            problem = "header too large"
        elif 8 + length > size:
            problem = "invalid header length"
        if not problem:
            try:
                entries = json.loads(file.read(length))
                end = max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
                problem = "" if 8 + length + end == size else "incomplete metadata, file not fully covered"
            except (ValueError, KeyError, TypeError, AttributeError):
                problem = "invalid JSON in header"
    if problem:
        raise Refused(f"SafetensorError: Error while deserializing header: {problem} ({shard.name})")
