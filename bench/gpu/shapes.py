"""The tensors that one GPU holds of Mistral-Small-24B in each variant, fused as vLLM fuses them (q, k and v; gate and up).

Nothing but numbers, so that the proof runs wherever torch does. tests/unit/planner holds them against the planner's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCABULARY = 40, 5120, 32, 8, 128, 32768, 131072
GROUP = 128  # W4A16: input columns that share one scale
WIDTH = {"bfloat16": 2, "float8_e4m3fn": 1, "int32": 4}


@dataclass(frozen=True)
class Tensor:
    """One parameter: dtype in torch's words; layer: its decoder layer, or -1 outside of them."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    layer: int = -1

    @property
    def size(self) -> int:
        return prod(self.shape) * WIDTH[self.dtype]


def matrices(gpus: int) -> tuple[tuple[str, int, int], ...]:
    """(name, outputs, inputs) of a layer's four fused matrices on one of `gpus`."""
    query, key = HEADS * HEAD_DIM // gpus, KV_HEADS * HEAD_DIM // gpus
    wide = INTERMEDIATE // gpus
    return (
        ("qkv_proj", query + 2 * key, HIDDEN),
        ("o_proj", HIDDEN, query),
        ("gate_up_proj", 2 * wide, HIDDEN),
        ("down_proj", HIDDEN, wide),
    )


def tensors(variant: str, gpus: int) -> Iterator[Tensor]:
    """All parameters on one GPU in the order in which vLLM makes them: embedding, layers, norm, head."""
    yield Tensor("embed_tokens", "bfloat16", (VOCABULARY // gpus, HIDDEN))
    for layer in range(LAYERS):
        for name, rows, columns in matrices(gpus):
            path = f"layers.{layer}.{name}"
            if variant == "bf16":
                yield Tensor(path, "bfloat16", (rows, columns), layer)
            elif variant == "fp8":
                yield Tensor(path, "float8_e4m3fn", (rows, columns), layer)
                yield Tensor(f"{path}.scale", "bfloat16", (rows, 1), layer)
            elif variant == "w4a16":
                yield Tensor(path, "int32", (rows, columns // 8), layer)
                yield Tensor(f"{path}.scale", "bfloat16", (rows, columns // GROUP), layer)
            else:
                raise ValueError(f"no variant {variant!r}")
        yield Tensor(f"layers.{layer}.input_layernorm", "bfloat16", (HIDDEN,), layer)
        yield Tensor(f"layers.{layer}.post_attention_layernorm", "bfloat16", (HIDDEN,), layer)
    yield Tensor("norm", "bfloat16", (HIDDEN,))
    yield Tensor("lm_head", "bfloat16", (VOCABULARY // gpus, HIDDEN))
