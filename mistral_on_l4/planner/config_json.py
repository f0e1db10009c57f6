"""Reads a checkpoint's config.json: the architecture that the planner computes with.

An architecture counts by its name, as in vLLM's registry; what is computed of it stands in the catalogue (architectures.yaml), and
what config.json leaves out comes from its family's config class (families.yaml). Everything else is not computed, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from mistral_on_l4.planner import config_fields as names
from mistral_on_l4.planner.catalogue.families import ArchitectureRecord, architecture_of, family_defaults, load_architectures
from mistral_on_l4.planner.catalogue.schema import Architecture
from mistral_on_l4.planner.config_fields import Fields
from mistral_on_l4.planner.plan import NotComputed, PlanError
from mistral_on_l4.planner.vision import tower_parameters

# Fields that belong to something else than ordinary attention, and what that is.
_OTHER_KINDS = {
    "kv_lora_rank": "latent attention",
    "ssm_cfg": "state space layers",
    "mamba_d_state": "state space layers",
    "hybrid_override_pattern": "state space layers",
    "linear_num_value_heads": "linear attention layers",
    "cross_attention_layers": "cross attention",
    "attn_layer_period": "state space layers",
    "num_global_key_value_heads": "layers that differ in shape",
    "global_head_dim": "layers that differ in shape",
    "dual_chunk_attention_config": "dual chunk attention",
}
_OTHER_HEADS = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
_ATTENTIONS = {"full_attention", "sliding_attention", "attention", "chunked_attention"}
# Scaled rotary embeddings whose max_position_embeddings already is the scaled length (vLLM config/model.py).
_ALREADY_SCALED = ("su", "longrope", "llama3", "mrope", "default")
_OPT_POSITIONS = 2  # rows before the first position


@dataclass(frozen=True)
class Part:
    """The language model's part of a config.json: its fields, its architecture's name, and what is known of that."""

    fields: Fields
    family: str
    record: ArchitectureRecord
    text: ArchitectureRecord

    @property
    def kind(self) -> str:
        return str(self.fields.given.get("model_type") or (self.text.config_types or ("",))[0])


def architecture_from(config: Mapping[str, Any], source: str) -> Architecture:
    """The architecture of a decoder-only transformer; of a multimodal one the text part, and its tower's size.

    Raises NotComputed for what the planner has no rule for, PlanError for a config.json that makes no sense; one line each.
    """
    part = _part_of(config, source)
    _refuse_other_kinds(part, config, source)
    return _read(part, config, source)


def rough_parameters(config: Mapping[str, Any], source: str) -> int:
    """Parameters of a checkpoint whose architecture is known well enough to be weighed, but not computed; else 0."""
    try:
        part = _part_of(config, source)
        if part.record.tower == "none":
            return 0
        shape = _read(part, config, source)
    except PlanError:
        return 0
    from mistral_on_l4.planner.catalogue.schema import Quantization
    from mistral_on_l4.planner.checkpoint import HALF, weights_of

    return weights_of(shape, Quantization()).total_bytes // HALF


def dtype_from(config: Mapping[str, Any]) -> str:
    """What vLLM's `--dtype auto` makes of the checkpoint: float16, or auto where it is bfloat16 or not said."""
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else {}
    given = (found.get(name) for found in (config, inner) for name in ("torch_dtype", "dtype"))
    return "float16" if next((str(value) for value in given if value), "") == "float16" else "auto"


def _part_of(config: Mapping[str, Any], source: str) -> Part:
    given = config.get("text_config") or config.get("llm_config") or config
    if not isinstance(given, Mapping):
        raise PlanError(f"{source}: text_config is not an object")
    family = _name_of(config)
    if family is None:
        said = repr(config["architectures"])[:60] if config.get("architectures") else "missing"
        raise NotComputed(source, f"architectures is {said}: vLLM takes the class from there, a list of names")
    known = load_architectures()
    record = known.get(family)
    if record is None:
        if given.get("is_encoder_decoder") or "bert" in str(given.get("model_type")).lower() or family.endswith(_OTHER_HEADS):
            raise NotComputed(source, f"{family} is not a decoder with ordinary attention, which is all that the planner computes")
        raise NotComputed(source, f"the planner has no rule for the architecture {family}")
    inner = _name_of(given) if given is not config else None
    inner = inner or (architecture_of(str(given["model_type"])) if given is not config and given.get("model_type") else None)
    text = known.get(inner or "") or known.get(record.text_as) or record
    if text.tower != "none":
        text = known.get(text.text_as, text)
    defaults = _defaults(given, record, text, separate=given is not config)
    return Part(Fields(given, defaults, source), family, record, text)


def _defaults(
    given: Mapping[str, Any], record: ArchitectureRecord, text: ArchitectureRecord, *, separate: bool
) -> Mapping[str, Any]:
    """Of the family that config.json names; a text part that names none is of the family of its architecture."""
    families = family_defaults()
    kind = str(given.get("model_type") or "")
    if kind in families:
        return families[kind]
    if kind and not separate and record.tower == "none":
        return {}
    usual = (record if record.tower != "none" else text).config_types
    return families.get(usual[0], {}) if usual and (separate or kind) else {}


def _name_of(config: Mapping[str, Any]) -> str | None:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else None


def _refuse_other_kinds(part: Part, config: Mapping[str, Any], source: str) -> None:
    fields, family = part.fields, part.family
    if part.record.refused or part.text.refused:
        raise NotComputed(source, f"{family} has {part.record.refused or part.text.refused}")
    given = fields.given
    if given.get("is_encoder_decoder") or "bert" in str(given.get("model_type")).lower():
        raise NotComputed(source, f"{family} is not a decoder with ordinary attention, which is all that the planner computes")
    if strange := next((name for name in _OTHER_KINDS if given.get(name) or config.get(name)), None):
        raise NotComputed(
            source, f"{family} is not a decoder with ordinary attention throughout ({strange}): it has {_OTHER_KINDS[strange]}"
        )
    if (narrow := given.get("word_embed_proj_dim")) and narrow != given.get("hidden_size"):
        raise NotComputed(source, f"{family} has an embedding of {narrow} columns beside its hidden size, and projects it")
    if given.get("block_configs"):
        raise NotComputed(source, f"{family} has layers that differ in shape (block_configs)")
    kinds = {str(kind) for name in ("layer_types", "layers_block_type") for kind in fields.items(name)}
    if other := sorted(kinds - _ATTENTIONS):
        raise NotComputed(source, f"{family} has layers of kind {', '.join(other)}")


def _read(part: Part, config: Mapping[str, Any], source: str) -> Architecture:
    fields, text = part.fields, part.text
    layers, hidden, heads = fields.number(names.LAYERS), fields.number(names.HIDDEN), fields.number(names.HEADS)
    mixture = _mixture(fields, layers, source)
    width = mixture.pop("intermediate", None) or fields.whole(names.WIDTHS) or 4 * hidden
    windowed, window = _windows(part, layers, source)
    tower = tower_parameters(part.record.tower, config, hidden, (*part.record.config_types, "", "")[1], source)
    positions = _longest(fields, source)
    try:
        return Architecture(
            family=part.family,
            model_type=str(config.get("model_type") or part.kind),
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=fields.whole(("num_key_value_heads",)) or _kv_heads(fields, heads),
            head_dim=fields.get(*names.HEAD_SIZE) or hidden // heads,
            intermediate=width // 2 if text.halved else width,
            vocabulary=fields.number(names.VOCABULARY),
            max_positions=positions,
            tied_embeddings=_tied(config, fields, text),
            attention_bias=fields.flag("attention_bias", text.qkv_bias or text.biases) or text.qkv_bias,
            biases=text.biases,
            gated=text.gated,
            layer_norms=text.layer_norms,
            embedded_positions=positions + _OPT_POSITIONS if text.positions_embedded else 0,
            sliding_layers=windowed,
            sliding_window=window,
            vision_parameters=tower,
            float16=part.record.float16 and text.float16,
            **mixture,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise PlanError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}") from None


def _tied(config: Mapping[str, Any], fields: Fields, text: ArchitectureRecord) -> bool:
    top = config.get("tie_word_embeddings")
    return bool(fields.flag("tie_word_embeddings", text.tied) if top is None else top)


def _longest(fields: Fields, source: str) -> int:
    """The greatest context that vLLM derives: positions, times the factor of a scaled rotary embedding."""
    positions = _positions(fields)
    scaling = fields.given.get("rope_scaling") or fields.given.get("rope_parameters") or {}
    if not isinstance(scaling, Mapping) or "gemma3" in str(fields.given.get("model_type")):
        return positions
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind in _ALREADY_SCALED or not scaling.get("factor"):
        return positions
    base = scaling.get("original_max_position_embeddings", positions) if kind == "yarn" else positions
    factor = scaling["factor"]
    if not all(isinstance(value, (int, float)) and value > 0 for value in (base, factor)):
        raise PlanError(f"{source}: the rotary scaling {dict(scaling)!r} cannot be read: its factor is a number above zero")
    return int(base * factor)


def _positions(fields: Fields) -> int:
    own = fields.given.get(names.OWN_LIMIT)
    if isinstance(own, int) and own > 0:
        return own
    stated = [fields.given[name] for name in names.POSITIONS if isinstance(fields.given.get(name), int) and fields.given[name] > 0]
    return min(stated) if stated else fields.number(names.POSITIONS)


def _mixture(fields: Fields, layers: int, source: str) -> dict[str, int]:
    """Fields of a mixture-of-experts' Architecture; {} for a dense one. Raises NotComputed for a mixture of an unknown kind."""
    given = fields.given
    experts = fields.whole(names.EXPERTS) or 0
    if not experts:
        if strange := next((key for key, value in given.items() if key.endswith("experts") and value), None):
            raise NotComputed(
                source, f"{strange} is {given[strange]}, a mixture of experts of a kind that the planner does not compute"
            )
        # Llama 4 names its dense layers' width so, with or without others.
        return {"intermediate": mlp} if (mlp := fields.whole(("intermediate_size_mlp",))) else {}
    width = fields.whole(names.WIDTHS) or 0
    expert = fields.whole(("moe_intermediate_size",)) or width
    shared = fields.whole(("shared_expert_intermediate_size", "shared_intermediate_size"))
    if shared is None:
        shared = (fields.whole(("n_shared_experts",)) or 0) * expert
    dense, dense_width = fields.whole(("first_k_dense_replace",)) or 0, width
    if step := fields.whole(("decoder_sparse_step",)):  # Qwen: every so manieth layer is a mixture, but for those listed
        only = {layer for layer in fields.items("mlp_only_layers") if isinstance(layer, int)}
        dense = sum(layer in only or (layer + 1) % step != 0 for layer in range(min(layers, 10_000)))
    if "interleave_moe_layer_step" in given:  # Llama 4, whose one shared expert is as wide as the others
        dense = layers - layers // (fields.whole(("interleave_moe_layer_step",)) or 1)
        dense_width, shared = fields.whole(("intermediate_size_mlp",)) or width, expert
    per_token = fields.number(names.PER_TOKEN)
    return {
        "intermediate": expert,
        "experts": experts,
        "experts_per_token": min(per_token, experts),
        "shared_intermediate": shared,
        "dense_layers": max(0, min(dense, layers)),
        "dense_intermediate": dense_width if dense else 0,
    }


def _kv_heads(fields: Fields, heads: int) -> int:
    """Where num_key_value_heads is missing: Falcon's newer layout names them otherwise, multi-query models have one."""
    if fields.flag("new_decoder_architecture"):
        return fields.whole(("num_kv_heads",)) or heads
    if fields.flag("multi_query_attention"):
        return fields.whole(("multi_query_group_num",)) or heads
    return 1 if fields.flag("multi_query") else heads


def _windows(part: Part, layers: int, source: str) -> tuple[int, int]:
    """(layers that keep only the last tokens, how many tokens), as the architecture's own rule has it."""
    fields, rule = part.fields, part.text.windows
    window = fields.get("sliding_window")
    if isinstance(window, list) and len({size for size in window if size}) == 1:
        window = next(size for size in window if size)
    if rule == "none" or not window or fields.get("use_sliding_window") is False:
        return 0, 0
    if not isinstance(window, int):
        raise NotComputed(source, f"{part.family} has windows that differ by layer ({str(window)[:40]})")
    if kinds := fields.items("layer_types"):
        return min(layers, kinds.count("sliding_attention")), window
    every = fields.get("sliding_window_pattern") or part.text.full_every
    if rule in ("pattern", "types") and isinstance(every, int):
        return (layers - layers // every, window) if every else (0, 0)
    if rule == "types":
        raise NotComputed(source, f"{part.family} has windows in a pattern that the planner has no rule for ({str(every)[:40]})")
    if rule == "upper" and (fields.whole(("max_window_layers",)) or layers) < layers:
        raise NotComputed(source, f"{part.family} has windows in its upper layers only (max_window_layers), which vLLM refuses")
    return layers, window
