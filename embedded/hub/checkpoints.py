"""The three checkpoints of the demo, small: the real architecture's fields, an eighth of its width, few layers.

Field names of config.json are the real repositories' (MistralForCausalLM; compressed-tensors for FP8 and W4A16).
Heads, KV heads, intermediate size and vocabulary divide by 4, so that tensor parallelism over four GPUs stays valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from embedded.hub.safetensors_file import DType, Tensor

Precision = Literal["bf16", "fp8", "w4a16"]

# An eighth of the real 5120 and 32768; real head size. The real one has 32 heads, 8 KV heads, 40 layers, 131072 tokens.
HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_SIZE, VOCABULARY = 640, 4096, 8, 4, 128, 2048
GROUP = 128  # W4A16: input columns that share one scale
CONTROL_TOKENS = 1000  # as in Mistral's tokenizer, before the 256 bytes


@dataclass(frozen=True)
class Checkpoint:
    """One repository. shard_bytes: a shard is closed before it would grow beyond this."""

    repository: str
    precision: Precision
    layers: int
    shard_bytes: int = 14 * 2**20
    base: str | None = None


CHECKPOINTS = (
    Checkpoint("mistralai/Mistral-Small-24B-Instruct-2501", "bf16", layers=3),
    Checkpoint(
        "RedHatAI/Mistral-Small-24B-Instruct-2501-FP8-dynamic",
        "fp8",
        layers=6,
        base="mistralai/Mistral-Small-24B-Instruct-2501",
    ),
    Checkpoint(
        "RedHatAI/Mistral-Small-24B-Instruct-2501-quantized.w4a16",
        "w4a16",
        layers=12,
        base="mistralai/Mistral-Small-24B-Instruct-2501",
    ),
)


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """config.json."""
    fields: dict[str, Any] = {
        "architectures": ["MistralForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": HEADS,
        "num_hidden_layers": checkpoint.layers,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-05,
        "rope_theta": 100000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }
    if checkpoint.precision != "bf16":
        fields["quantization_config"] = _quantization(checkpoint.precision)
    return fields


def _quantization(precision: Precision) -> dict[str, Any]:
    fp8 = precision == "fp8"
    weights = {
        "actorder": None,
        "dynamic": False,
        "group_size": None if fp8 else GROUP,
        "num_bits": 8 if fp8 else 4,
        "strategy": "channel" if fp8 else "group",
        "symmetric": True,
        "type": "float" if fp8 else "int",
    }
    activations = {"dynamic": True, "num_bits": 8, "strategy": "token", "symmetric": True, "type": "float"}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized" if fp8 else "pack-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": activations if fp8 else None,
                "output_activations": None,
            }
        },
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
    }


def tensors(checkpoint: Checkpoint) -> Iterator[Tensor]:
    """Every tensor of the checkpoint, in Hugging Face's names and order."""
    yield Tensor("model.embed_tokens.weight", "BF16", (VOCABULARY, HIDDEN))
    for layer in range(checkpoint.layers):
        prefix = f"model.layers.{layer}."
        for name, rows, columns in _linears():
            yield from _linear(prefix + name, rows, columns, checkpoint.precision)
        yield Tensor(prefix + "input_layernorm.weight", "BF16", (HIDDEN,))
        yield Tensor(prefix + "post_attention_layernorm.weight", "BF16", (HIDDEN,))
    yield Tensor("model.norm.weight", "BF16", (HIDDEN,))
    yield Tensor("lm_head.weight", "BF16", (VOCABULARY, HIDDEN))


def _linears() -> tuple[tuple[str, int, int], ...]:
    """(name, outputs, inputs) of the seven matrices of a layer."""
    return (
        ("self_attn.q_proj", HEADS * HEAD_SIZE, HIDDEN),
        ("self_attn.k_proj", KV_HEADS * HEAD_SIZE, HIDDEN),
        ("self_attn.v_proj", KV_HEADS * HEAD_SIZE, HIDDEN),
        ("self_attn.o_proj", HIDDEN, HEADS * HEAD_SIZE),
        ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
        ("mlp.up_proj", INTERMEDIATE, HIDDEN),
        ("mlp.down_proj", HIDDEN, INTERMEDIATE),
    )


def _linear(name: str, rows: int, columns: int, precision: Precision) -> Iterator[Tensor]:
    if precision == "w4a16":
        yield Tensor(f"{name}.weight_packed", "I32", (rows, columns // 8))
        yield Tensor(f"{name}.weight_scale", "BF16", (rows, columns // GROUP))
        yield Tensor(f"{name}.weight_shape", "I64", (2,), values=(rows, columns))
        return
    dtype: DType = "F8_E4M3" if precision == "fp8" else "BF16"
    yield Tensor(f"{name}.weight", dtype, (rows, columns))
    if precision == "fp8":
        yield Tensor(f"{name}.weight_scale", "BF16", (rows, 1))


def native_tensors(checkpoint: Checkpoint) -> Iterator[Tensor]:
    """What consolidated.safetensors holds: the same weights once more, in Mistral's own names. Nothing may upload it.

    Only the BF16 repository really has it; the others get its norms, enough for a test to see that it stays behind.
    """
    if checkpoint.precision == "bf16":
        yield Tensor("tok_embeddings.weight", "BF16", (VOCABULARY, HIDDEN))
        names = (
            "attention.wq",
            "attention.wk",
            "attention.wv",
            "attention.wo",
            "feed_forward.w1",
            "feed_forward.w3",
            "feed_forward.w2",
        )
        for layer in range(checkpoint.layers):
            for name, (_, rows, columns) in zip(names, _linears(), strict=True):
                yield Tensor(f"layers.{layer}.{name}.weight", "BF16", (rows, columns))
        yield Tensor("output.weight", "BF16", (VOCABULARY, HIDDEN))
    for layer in range(checkpoint.layers):
        yield Tensor(f"layers.{layer}.attention_norm.weight", "BF16", (HIDDEN,))
        yield Tensor(f"layers.{layer}.ffn_norm.weight", "BF16", (HIDDEN,))
    yield Tensor("norm.weight", "BF16", (HIDDEN,))


def params(checkpoint: Checkpoint) -> dict[str, Any]:
    """params.json, the native format's config."""
    return {
        "dim": HIDDEN,
        "n_layers": checkpoint.layers,
        "head_dim": HEAD_SIZE,
        "hidden_dim": INTERMEDIATE,
        "n_heads": HEADS,
        "n_kv_heads": KV_HEADS,
        "norm_eps": 1e-05,
        "vocab_size": VOCABULARY,
        "rope_theta": 100000000.0,
        "max_seq_len": 32768,
    }
