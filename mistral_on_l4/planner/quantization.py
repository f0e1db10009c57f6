"""Reads how a checkpoint's weights are stored, from config.json's quantization_config or ModelOpt's hf_quant_config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mistral_on_l4.planner.catalogue.schema import Quantization
from mistral_on_l4.planner.plan import NotComputed, PlanError

_STORED = {"float8": "fp8", "int8": "int8", "int4": "int4", "float4": "nvfp4"}
_MODELOPT = {"FP8": "fp8", "NVFP4": "nvfp4", "W4A16_NVFP4": "nvfp4"}
# Modules that stay as they are in any case, or are no matrices of decoder layers: whatever else is kept is one, or may be.
_HARMLESS = re.compile(
    r"lm_head|output_layer|embed|wte|norm|ln_|router|shared_expert_gate|(?<![a-z_])gate\W*$|e_score|rotary|score$|classifier"
    r"|vision|visual|vit|image|audio|projector|modality_projection|merger|aligner|resampler|connector|mlp1|mtp|nextn"
)


def quantization_from(config: Mapping[str, Any], source: str, beside: Mapping[str, Any] | None = None) -> Quantization:
    """How the linear layers are stored. beside: hf_quant_config.json, which vLLM reads where config.json says nothing.

    Raises NotComputed for a format that the planner does not compute, PlanError for a corrupt one.
    """
    text = config.get("text_config")
    found = config.get("quantization_config") or config.get("compression_config")
    found = found or (text.get("quantization_config") if isinstance(text, Mapping) else None) or beside
    if not found:
        return Quantization()
    if not isinstance(found, Mapping):
        raise PlanError(f"{source}: quantization_config is not an object")
    method = str(found.get("quant_method") or ("modelopt" if _modelopt_part(found).get("quant_algo") else "unknown"))
    if method == "compressed-tensors":
        return _compressed_tensors(found, source)
    if method.startswith("modelopt"):
        return _modelopt(found, source)
    kept = _kept(found, "modules_to_not_convert", "ignored_layers", "llm_int8_skip_modules")
    if method == "fp8":
        return _made(method, "fp8", None, block=_block(found.get("weight_block_size"), source), partly=_partly(kept))
    if method == "fbgemm_fp8":
        return _made(method, "fp8", None, partly=_partly(kept))
    if method == "mxfp4":
        return _made(method, "mxfp4", 32, experts_only=True, weight_only=True)
    if method in ("gptq", "awq", "gptq_marlin", "awq_marlin", "auto-round"):
        bits = found.get("bits") or found.get("w_bit")
        if bits in (4, 8) and str(found.get("data_type", "int")) == "int":
            size = found.get("group_size") or found.get("q_group_size")
            head = found.get("lm_head") is True
            # GPTQ stores zero points in any case, and vLLM loads them only where they are not symmetric.
            zeros = method.startswith("awq") or found.get("sym") is False
            made = _made(method, f"int{bits}", size, head=head, weight_only=True, partly=_partly(kept) or _by_module(found))
            ordered = found.get("desc_act") is True and method.startswith("gptq") and made.group_size > 0
            return made.model_copy(update={"zeros": zeros, "act_order": ordered})
    elif method == "bitsandbytes" and found.get("load_in_4bit"):
        return _made(method, "int4", 64, weight_only=True, partly=_partly(kept))
    raise NotComputed(source, f"the planner does not compute quantization {method!r} as this checkpoint uses it")


def _modelopt_part(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """ModelOpt writes its fields flat in config.json, and under `quantization` in hf_quant_config.json."""
    inner = found.get("quantization")
    return inner if isinstance(inner, Mapping) else found


def _modelopt(found: Mapping[str, Any], source: str) -> Quantization:
    part = _modelopt_part(found)
    algorithm = str(part.get("quant_algo") or "")
    scheme = _MODELOPT.get(algorithm.upper())
    if scheme is None:
        raise NotComputed(source, f"the planner does not compute quantization 'modelopt' with {algorithm or 'no quant_algo'}")
    kept = _kept(part, "exclude_modules", "ignore")
    name = "modelopt" if scheme == "fp8" else "modelopt_fp4"
    head = bool(kept) and not any("lm_head" in each for each in kept)
    made = _made(name, scheme, 16 if scheme == "nvfp4" else None, head=head, partly=_partly(kept))
    cache = part.get("kv_cache_scheme") or part.get("kv_cache_quant_algo")
    if str(cache).upper() == "NVFP4" or (isinstance(cache, Mapping) and cache.get("num_bits") == 4):
        raise NotComputed(source, "its KV cache is in NVFP4, which the planner does not compute")
    return made.model_copy(update={"kv_cache": _fp8_cache(cache)})


def _fp8_cache(said: Any) -> str:
    """ "fp8" where a checkpoint says that its KV cache is in 8 bits: ModelOpt by a name, compressed-tensors by a scheme."""
    scheme = isinstance(said, Mapping) and said.get("num_bits") == 8 and said.get("type", "float") == "float"
    return "fp8" if scheme or str(said).upper() == "FP8" else ""


def _compressed_tensors(found: Mapping[str, Any], source: str) -> Quantization:
    _refuse_sparse(found, source)
    groups = found.get("config_groups") or {}
    kept = found.get("ignore") or []
    if not isinstance(groups, Mapping) or not isinstance(kept, list):
        raise PlanError(f"{source}: quantization_config is corrupt: config_groups is an object, ignore a list")
    schemes = set()
    block = None
    for group in groups.values():
        weights = (group.get("weights") if isinstance(group, Mapping) else None) or {}
        if not isinstance(weights, Mapping):
            raise PlanError(f"{source}: quantization_config is corrupt: the weights of a group are an object")
        scheme = _STORED.get(f"{weights.get('type')}{weights.get('num_bits')}")
        block = _block(weights.get("block_structure"), source) or block
        symmetric = str(weights.get("symmetric", True))
        schemes.add((scheme, str(weights.get("group_size")), not group.get("input_activations") if weights else True, symmetric))
    only = schemes.pop() if len(schemes) == 1 else (None, "", True, "")
    # INT4 weights times 8-bit activations have kernels of their own, on few cards.
    if only[0] and (only[0] != "int4" or only[2]):
        # `lm_head`, `language_model.lm_head` and `re:.*lm_head` all keep the head as it is.
        head = bool(kept) and not any("lm_head" in str(name) for name in kept)
        size = int(only[1]) if only[1].isdigit() else 0
        made = _made(
            "compressed-tensors",
            only[0],
            size,
            head=head,
            weight_only=only[0] not in ("fp8", "nvfp4") and only[2],
            block=block,
            partly=_partly([str(name) for name in kept]),
        )
        zeros = only[0] == "int4" and only[3] == "False"
        return made.model_copy(update={"zeros": zeros, "kv_cache": _fp8_cache(found.get("kv_cache_scheme"))})
    raise NotComputed(source, "the planner does not compute quantization 'compressed-tensors' as this checkpoint uses it")


def _refuse_sparse(found: Mapping[str, Any], source: str) -> None:
    """Weights of which a step reads, and a file holds, only those that are not zero."""
    sparsity = found.get("sparsity_config")
    sparse = isinstance(sparsity, Mapping) and (
        sparsity.get("targets") or sparsity.get("sparsity_structure") not in (None, "unstructured", "0:0")
    )
    formats = {str(found.get("format")), *(str(group.get("format")) for group in _groups(found))}
    if sparse or any("24" in each or "sparse" in each for each in formats):
        raise NotComputed(source, "its weights are sparse (2:4), which the planner does not compute and newer engines do not load")


def _groups(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = found.get("config_groups")
    return [group for group in groups.values() if isinstance(group, Mapping)] if isinstance(groups, Mapping) else []


def _kept(found: Mapping[str, Any], *names: str) -> list[str]:
    for name in names:
        value = found.get(name)
        if isinstance(value, list):
            return [str(each) for each in value]
    return []


def _by_module(found: Mapping[str, Any]) -> bool:
    """Whether matrices of decoder layers are stored in ways of their own: GPTQModel's `dynamic`, AutoRound's `extra_config`."""
    rules = {**(found.get("dynamic") or {}), **(found.get("extra_config") or {})}
    return _partly(list(map(str, rules)))


def _partly(kept: list[str]) -> bool:
    """Whether matrices of decoder layers stay unquantized: then only headers tell how many bytes there are."""
    return any(not _HARMLESS.search(name) for name in kept)


def _block(value: Any, source: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) and side > 0 for side in value):
        return value[0], value[1]
    raise PlanError(f"{source}: quantization_config is corrupt: weight_block_size is {value!r}, not two numbers")


def _made(
    method: str,
    scheme: Any,
    group: Any,
    *,
    head: bool = False,
    weight_only: bool = False,
    block: tuple[int, int] | None = None,
    experts_only: bool = False,
    partly: bool = False,
) -> Quantization:
    size = group if isinstance(group, int) and group > 0 else 0
    return Quantization(
        method=method,
        scheme=scheme,
        group_size=size,
        quantized_head=head,
        weight_only=weight_only,
        block_size=block,
        experts_only=experts_only,
        partly=partly,
    )
