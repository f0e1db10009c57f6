"""Reads a checkpoint's config.json: the architecture that the planner computes with, and how the weights are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mistral_on_l4.planner.catalogue.schema import Architecture, Quantization
from mistral_on_l4.planner.plan import PlanError

# One field under the names that different model families give it.
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "model_max_length")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
# Families whose MLP has one matrix up and one down, whose query, key and value have biases, whose embedding is the head by default.
_UNGATED = ("gpt2", "gpt_neox", "gpt_bigcode", "opt", "bloom", "falcon", "phi", "starcoder2", "mpt", "gptj")
_BIASED = ("qwen2", "qwen2_moe", "gpt2", "opt", "bloom", "gpt_bigcode", "starcoder2", "phi")
_TIED = (
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "cohere",
    "cohere2",
    "gpt2",
    "opt",
    "bloom",
    "gpt_bigcode",
    "starcoder2",
    "falcon",
)
_STORED = {"float8": "fp8", "int8": "int8", "int4": "int4"}
# Scaled rotary embeddings whose max_position_embeddings already is the scaled length (vLLM config/model.py).
_ALREADY_SCALED = ("su", "longrope", "llama3", "mrope", "default")


def architecture_from(config: Mapping[str, Any], source: str) -> Architecture:
    """The architecture of a decoder-only transformer; a multimodal one is read by its text part. Raises PlanError, one line."""
    text = config.get("text_config") or config.get("llm_config") or config
    if not isinstance(text, Mapping):
        raise PlanError(f"{source}: text_config is not an object")
    family = str((config.get("architectures") or text.get("architectures") or ["unknown"])[0])
    _refuse_other_kinds(text, source, family)
    kind = str(text.get("model_type") or "")
    hidden, heads = _number(text, _HIDDEN, source), _number(text, _HEADS, source)
    experts = _optional(text, _EXPERTS) or 0
    moe_width = text.get("moe_intermediate_size")
    width = (
        moe_width if experts and moe_width else _optional(text, ("intermediate_size", "n_inner", "ffn_hidden_size")) or 4 * hidden
    )
    try:
        return Architecture(
            family=family,
            layers=_number(text, _LAYERS, source),
            hidden=hidden,
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or (1 if text.get("multi_query") else heads),
            head_dim=text.get("head_dim") or hidden // heads,
            intermediate=width,
            vocabulary=_number(text, ("vocab_size",), source),
            max_positions=_longest(text, source),
            tied_embeddings=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", kind in _TIED))),
            attention_bias=bool(text.get("attention_bias", kind in _BIASED)),
            gated=kind not in _UNGATED,
            experts=experts,
            experts_per_token=(text.get("num_experts_per_tok") or text.get("num_experts_per_token") or 1) if experts else 0,
            shared_intermediate=_shared_width(text, moe_width) if experts else 0,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise PlanError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}") from None


def quantization_from(config: Mapping[str, Any], source: str) -> Quantization:
    """How the linear layers are stored. Raises PlanError for a format that the planner does not compute."""
    found = config.get("quantization_config") or config.get("compression_config")
    if not found:
        return Quantization()
    if not isinstance(found, Mapping):
        raise PlanError(f"{source}: quantization_config is not an object")
    method = str(found.get("quant_method") or "unknown")
    head = "lm_head" not in (found.get("ignore") or found.get("modules_to_not_convert") or ["lm_head"])
    if method == "compressed-tensors":
        groups: Mapping[str, Any] = found.get("config_groups") or {}
        weights: Mapping[str, Any] = next((group.get("weights") or {} for group in groups.values()), {})
        scheme = _STORED.get(f"{weights.get('type')}{weights.get('num_bits')}")
        if scheme:
            return _quantization(method, scheme, weights.get("group_size"), head)
    elif method in ("fp8", "fbgemm_fp8"):
        return _quantization(method, "fp8", None, head)
    elif method in ("gptq", "awq", "gptq_marlin", "awq_marlin", "auto-round"):
        bits = found.get("bits") or found.get("w_bit")
        if bits in (4, 8):
            return _quantization(method, f"int{bits}", found.get("group_size") or found.get("q_group_size"), head)
    elif method == "bitsandbytes" and found.get("load_in_4bit"):
        return _quantization(method, "int4", 64, False)
    raise PlanError(f"{source}: the planner does not compute quantization {method!r} as this checkpoint uses it")


def _quantization(method: str, scheme: Any, group: Any, head: bool) -> Quantization:
    size = group if isinstance(group, int) and group > 0 else 0
    return Quantization(method=method, scheme=scheme, group_size=size, quantized_head=head)


def _refuse_other_kinds(text: Mapping[str, Any], source: str, family: str) -> None:
    if text.get("is_encoder_decoder") or text.get("kv_lora_rank") or text.get("ssm_cfg") or text.get("mamba_d_state"):
        raise PlanError(f"{source}: {family} is not a decoder with ordinary attention, which is all that the planner computes")
    kinds = set(text.get("layer_types") or ()) | set(text.get("layers_block_type") or ())
    if other := sorted(kinds - {"full_attention", "sliding_attention", "attention", "chunked_attention"}):
        raise PlanError(f"{source}: {family} has layers of kind {', '.join(other)}, which the planner does not compute")


def _longest(text: Mapping[str, Any], source: str) -> int:
    """The greatest context that vLLM derives: positions, times the factor of a scaled rotary embedding."""
    positions = _number(text, _POSITIONS, source)
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default" if isinstance(scaling, Mapping) else "default"
    if kind in _ALREADY_SCALED or not scaling.get("factor"):
        return positions
    return int(scaling.get("original_max_position_embeddings", positions) * scaling["factor"])


def _shared_width(text: Mapping[str, Any], moe_width: Any) -> int:
    shared = text.get("shared_expert_intermediate_size") or text.get("shared_intermediate_size")
    return int(shared or (text.get("n_shared_experts") or 0) * (moe_width or 0))


def _optional(text: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = text.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _number(text: Mapping[str, Any], names: tuple[str, ...], source: str) -> int:
    value = _optional(text, names)
    if value is None or value <= 0:
        given = next((f"{name} is {text[name]!r}" for name in names if name in text), f"there is no {names[0]}")
        raise PlanError(f"{source}: {given}: not the config.json of a decoder-only transformer")
    return value
