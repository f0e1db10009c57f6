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
_WIDTHS = ("intermediate_size", "n_inner", "ffn_hidden_size")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token")
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
# Families all of whose layers attend over the window if config.json has one; others say by layer (layer_types, or a pattern: every
# so manieth layer is a full one, by default as given here).
_ALL_SLIDING = ("mistral", "mixtral", "phi3", "starcoder2")
_FULL_EVERY = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
# Not decoders, whatever else their config.json looks like.
_OTHER_HEADS = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
# Scaled rotary embeddings whose max_position_embeddings already is the scaled length (vLLM config/model.py).
_ALREADY_SCALED = ("su", "longrope", "llama3", "mrope", "default")


def architecture_from(config: Mapping[str, Any], source: str) -> Architecture:
    """The architecture of a decoder-only transformer; a multimodal one is read by its text part. Raises PlanError, one line."""
    text = config.get("text_config") or config.get("llm_config") or config
    if not isinstance(text, Mapping):
        raise PlanError(f"{source}: text_config is not an object")
    named = config.get("architectures") or text.get("architectures")
    family = str(named[0]) if isinstance(named, list) and named else str(named or "unknown")
    _refuse_other_kinds(text, source, family)
    kind = str(text.get("model_type") or "")
    layers = _number(text, _LAYERS, source)
    hidden, heads = _number(text, _HIDDEN, source), _number(text, _HEADS, source)
    mixture = _mixture(text, layers, source)
    window = _optional(text, ("sliding_window",)) or 0
    try:
        return Architecture(
            family=family,
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or _kv_heads(text, heads),
            head_dim=text.get("head_dim") or hidden // heads,
            intermediate=mixture.pop("intermediate", None) or _optional(text, _WIDTHS, source) or 4 * hidden,
            vocabulary=_number(text, ("vocab_size",), source),
            max_positions=_longest(text, source),
            tied_embeddings=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", kind in _TIED))),
            attention_bias=bool(text.get("attention_bias", kind in _BIASED)),
            gated=kind not in _UNGATED,
            sliding_layers=_sliding_layers(text, kind, layers) if window else 0,
            sliding_window=window,
            **mixture,
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
    if method == "compressed-tensors":
        return _compressed_tensors(found, source)
    if method in ("fp8", "fbgemm_fp8"):
        return _quantization(method, "fp8", None)
    if method in ("gptq", "awq", "gptq_marlin", "awq_marlin", "auto-round"):
        bits = found.get("bits") or found.get("w_bit")
        if bits in (4, 8):
            size = found.get("group_size") or found.get("q_group_size")
            return _quantization(method, f"int{bits}", size, head=found.get("lm_head") is True, weight_only=True)
    elif method == "bitsandbytes" and found.get("load_in_4bit"):
        return _quantization(method, "int4", 64, weight_only=True)
    raise PlanError(f"{source}: the planner does not compute quantization {method!r} as this checkpoint uses it")


def _compressed_tensors(found: Mapping[str, Any], source: str) -> Quantization:
    groups = found.get("config_groups") or {}
    kept = found.get("ignore") or []
    if not isinstance(groups, Mapping) or not isinstance(kept, list):
        raise PlanError(f"{source}: quantization_config is corrupt: config_groups is an object, ignore a list")
    schemes = set()
    for group in groups.values():
        weights = (group.get("weights") if isinstance(group, Mapping) else None) or {}
        if not isinstance(weights, Mapping):
            raise PlanError(f"{source}: quantization_config is corrupt: the weights of a group are an object")
        scheme = _STORED.get(f"{weights.get('type')}{weights.get('num_bits')}")
        schemes.add((scheme, str(weights.get("group_size")), not group.get("input_activations") if weights else True))
    if len(schemes) == 1 and (only := schemes.pop())[0]:
        # `lm_head`, `language_model.lm_head` and `re:.*lm_head` all keep the head as it is.
        head = bool(kept) and not any("lm_head" in str(name) for name in kept)
        size = int(only[1]) if only[1].isdigit() else 0
        return _quantization("compressed-tensors", only[0], size, head=head, weight_only=only[0] != "fp8" and only[2])
    raise PlanError(f"{source}: the planner does not compute quantization 'compressed-tensors' as this checkpoint uses it")


def _quantization(method: str, scheme: Any, group: Any, *, head: bool = False, weight_only: bool = False) -> Quantization:
    size = group if isinstance(group, int) and group > 0 else 0
    return Quantization(method=method, scheme=scheme, group_size=size, quantized_head=head, weight_only=weight_only)


def dtype_from(config: Mapping[str, Any]) -> str:
    """What vLLM's `--dtype auto` makes of the checkpoint: float16, or auto where it is bfloat16 or not said."""
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else {}
    given = (found.get(name) for found in (config, inner) for name in ("torch_dtype", "dtype"))
    return "float16" if next((str(value) for value in given if value), "") == "float16" else "auto"


def _refuse_other_kinds(text: Mapping[str, Any], source: str, family: str) -> None:
    kind = str(text.get("model_type") or "")
    encoder = "bert" in kind.lower() or family.endswith(_OTHER_HEADS)
    linear = any(text.get(name) for name in ("kv_lora_rank", "ssm_cfg", "mamba_d_state"))
    if text.get("is_encoder_decoder") or encoder or linear:
        raise PlanError(f"{source}: {family} is not a decoder with ordinary attention, which is all that the planner computes")
    if text.get("block_configs"):
        raise PlanError(f"{source}: {family} has layers that differ in shape (block_configs), which the planner does not compute")
    kinds = {str(kind) for name in ("layer_types", "layers_block_type") for kind in _list(text, name, source)}
    if other := sorted(kinds - {"full_attention", "sliding_attention", "attention", "chunked_attention"}):
        raise PlanError(f"{source}: {family} has layers of kind {', '.join(other)}, which the planner does not compute")


def _longest(text: Mapping[str, Any], source: str) -> int:
    """The greatest context that vLLM derives: positions, times the factor of a scaled rotary embedding."""
    positions = _number(text, _POSITIONS, source)
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    if not isinstance(scaling, Mapping) or "gemma3" in str(text.get("model_type")):
        return positions
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind in _ALREADY_SCALED or not scaling.get("factor"):
        return positions
    base = scaling.get("original_max_position_embeddings", positions) if kind == "yarn" else positions
    factor = scaling["factor"]
    if not all(isinstance(value, (int, float)) and value > 0 for value in (base, factor)):
        raise PlanError(f"{source}: the rotary scaling {dict(scaling)!r} cannot be read: its factor is a number above zero")
    return int(base * factor)


def _mixture(text: Mapping[str, Any], layers: int, source: str) -> dict[str, int]:
    """Fields of a mixture-of-experts' Architecture; {} for a dense one. Raises PlanError for a mixture of an unknown kind."""
    experts = _optional(text, _EXPERTS, source) or 0
    if not experts:
        if strange := next((key for key, value in text.items() if key.endswith("experts") and value), None):
            raise PlanError(
                f"{source}: {strange} is {text[strange]}, a mixture of experts of a kind that the planner does not compute"
            )
        return {}
    width = _optional(text, _WIDTHS, source) or 0
    expert = _optional(text, ("moe_intermediate_size",), source) or width
    shared = _optional(text, ("shared_expert_intermediate_size", "shared_intermediate_size"), source)
    if shared is None:
        shared = (_optional(text, ("n_shared_experts",), source) or 0) * expert
    dense, dense_width = _optional(text, ("first_k_dense_replace",), source) or 0, width
    if step := _optional(text, ("decoder_sparse_step",), source):  # Qwen: every so manieth layer is a mixture, but for those listed
        only = {layer for layer in _list(text, "mlp_only_layers", source) if isinstance(layer, int)}
        dense = sum(layer in only or (layer + 1) % step != 0 for layer in range(min(layers, 10_000)))
    if "interleave_moe_layer_step" in text:  # Llama 4, whose one shared expert is as wide as the others
        dense = layers - layers // (_optional(text, ("interleave_moe_layer_step",), source) or 1)
        dense_width, shared = _optional(text, ("intermediate_size_mlp",), source) or width, expert
    per_token = _number(text, _PER_TOKEN, source)
    return {
        "intermediate": expert,
        "experts": experts,
        "experts_per_token": min(per_token, experts),
        "shared_intermediate": shared,
        "dense_layers": max(0, min(dense, layers)),
        "dense_intermediate": dense_width if dense else 0,
    }


def _kv_heads(text: Mapping[str, Any], heads: int) -> int:
    """Where num_key_value_heads is missing: Falcon's newer layout names them otherwise, multi-query models have one."""
    if text.get("new_decoder_architecture"):
        return _optional(text, ("num_kv_heads",)) or heads
    return 1 if text.get("multi_query") else heads


def _sliding_layers(text: Mapping[str, Any], kind: str, layers: int) -> int:
    """How many layers keep only the last tokens; 0 where config.json does not say it in a way that is known here."""
    if text.get("use_sliding_window") is False:
        return 0
    if kinds := text.get("layer_types"):
        return min(layers, int(kinds.count("sliding_attention")))
    every = text.get("sliding_window_pattern") or _FULL_EVERY.get(kind)
    if isinstance(every, int) and every > 0:
        return layers - layers // every
    return layers if kind in _ALL_SLIDING else 0


def _list(text: Mapping[str, Any], name: str, source: str) -> list[Any]:
    value = text.get(name) or []
    if not isinstance(value, list):
        raise PlanError(f"{source}: {name} is {value!r}, not a list")
    return value


def _optional(text: Mapping[str, Any], names: tuple[str, ...], source: str = "") -> int | None:
    """The first of the fields that is a whole number. With a source, one that is something else raises PlanError."""
    for name in names:
        value = text.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if source and value is not None:
            raise PlanError(f"{source}: {name} is {str(value)[:40]}, not a whole number: the planner does not compute such a model")
    return None


def _number(text: Mapping[str, Any], names: tuple[str, ...], source: str) -> int:
    value = _optional(text, names)
    if value is None or value <= 0:
        given = next((f"{name} is {text[name]!r}" for name in names if name in text), f"there is no {names[0]}")
        raise PlanError(f"{source}: {given}: not the config.json of a decoder-only transformer")
    return value
