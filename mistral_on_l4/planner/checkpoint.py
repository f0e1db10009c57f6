"""How many bytes a checkpoint has, where they go under tensor parallelism, and which of them a step reads.

Everything follows from the shapes of a decoder-only transformer (Hugging Face's names):

    layer    q [heads*d, h]  k, v [kv_heads*d, h]  o [h, heads*d]  gate, up [i, h]  down [h, i]  norms [h]
    outside  embed_tokens [vocabulary, h], lm_head [vocabulary, h] unless tied, norm [h], the vision tower

Quantization touches the linear layers only. FP8 and INT8 store one byte and a BF16 scale per output channel (block FP8: an F32
scale per block), INT4 half a byte and a BF16 scale per group of input columns, AWQ a zero point beside it, MXFP4 half a byte and
one per 32, NVFP4 half a byte and one per 16 (compressed-tensors, ModelOpt, facts of the checkpoints' config.json). Embedding, head,
norms and vision stay in BF16. Checked against the hub's file lists in tests/unit/planner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from mistral_on_l4.planner.catalogue.schema import Architecture, Quantization

HALF = 2  # bytes of BF16 and FP16
FLOAT = 4
_STORED = {"none": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5, "mxfp4": 0.5, "nvfp4": 0.5}
# 4-bit floats: bytes of the scale that a group of columns shares.
_GROUP_SCALE = {"mxfp4": 1, "nvfp4": 1}


@dataclass(frozen=True)
class Weights:
    """Bytes of a checkpoint by what happens to them. Tensor parallelism splits all but the norms, and no KV head.

    linear_bytes: matrices of the layers with scales, without the routed experts; expert_bytes: all routed experts; head_bytes: 0 if
    tied to the embedding; vision_bytes: of the vision tower; linear_parameters, expert_parameters, head_parameters: counts, for
    FLOPs; experts, experts_per_token: 0 for a dense model; kv_bytes: the part of linear_bytes that makes keys and values; kv_heads.
    """

    linear_bytes: int
    expert_bytes: int
    embedding_bytes: int
    head_bytes: int
    norm_bytes: int
    linear_parameters: int
    expert_parameters: int
    head_parameters: int
    experts: int = 0
    experts_per_token: int = 0
    vision_bytes: int = 0
    kv_bytes: int = 0
    kv_heads: int = 0

    @property
    def total_bytes(self) -> int:
        text = self.linear_bytes + self.expert_bytes + self.embedding_bytes + self.head_bytes + self.norm_bytes
        return text + self.vision_bytes

    @property
    def layer_bytes(self) -> int:
        """What --cpu-offload-gb can move: parameters of decoder layers, never embedding or head."""
        return self.linear_bytes + self.expert_bytes

    def without_vision(self) -> Weights:
        return replace(self, vision_bytes=0)

    def per_gpu_bytes(self, tensor_parallel_size: int) -> float:
        split = self.linear_bytes + self.expert_bytes + self.embedding_bytes + self.head_bytes + self.vision_bytes
        return split / tensor_parallel_size + self.norm_bytes + self._replicated(tensor_parallel_size)

    def _replicated(self, tensor_parallel_size: int) -> float:
        """With more GPUs than KV heads each GPU has one whole, that others have too (layers/linear.py, QKVParallelLinear)."""
        if not 0 < self.kv_heads < tensor_parallel_size:
            return 0.0
        return self.kv_bytes * (1 / self.kv_heads - 1 / tensor_parallel_size)

    def read_bytes(self, tensor_parallel_size: int, batch: int) -> float:
        """What one GPU reads to decode one token for each of `batch` requests.

        Of the embedding only rows are read. Of routed experts, those that `batch` tokens hit if each picks its own at random.
        """
        hit = 1.0
        if self.experts:
            hit = 1 - (1 - self.experts_per_token / self.experts) ** batch
        head = self.head_bytes or self.embedding_bytes
        split = self.linear_bytes + self.expert_bytes * hit + head
        return split / tensor_parallel_size + self.norm_bytes + self._replicated(tensor_parallel_size)

    @property
    def active_linear_parameters(self) -> float:
        """Parameters of the layers that one token is multiplied with."""
        share = self.experts_per_token / self.experts if self.experts else 0.0
        return self.linear_parameters + self.expert_parameters * share


def weights_of(architecture: Architecture, quantization: Quantization) -> Weights:
    """Bytes of a checkpoint from its shapes alone. Exact for the layouts that the module's docstring lists."""
    stored = Stored(
        quantization.scheme,
        quantization.group_size,
        quantization.quantized_head,
        quantization.block_size,
        quantization.experts_only,
        quantization.zeros,
    )
    return _weights(architecture.dimensions, stored)


@dataclass(frozen=True)
class Stored:
    """What the size of a quantized matrix depends on. zeros: whether each group has a zero point beside its scale."""

    scheme: str
    group: int
    head: bool
    block: tuple[int, int] | None
    experts_only: bool
    zeros: bool

    def bytes_of(self, rows: int, columns: int) -> int:
        if self.scheme == "none":
            return rows * columns * HALF
        size = int(rows * columns * _STORED[self.scheme])
        if self.block:
            return size + -(-rows // self.block[0]) * -(-columns // self.block[1]) * FLOAT
        groups = -(-columns // self.group) if self.group else 1
        if self.scheme in _GROUP_SCALE:
            return size + rows * groups * _GROUP_SCALE[self.scheme]
        return size + rows * groups * HALF + (rows * groups // 2 if self.zeros else 0)


_PLAIN = Stored("none", 0, False, None, False, False)


@lru_cache(maxsize=4096)
def _weights(dimensions: tuple[int, ...], stored: Stored) -> Weights:
    (layers, h, heads, kv_heads, d, i, vocabulary, tied, bias, gated, experts, per_token, shared_i, dense_layers, dense_i) = (
        dimensions[:15]
    )
    biases, norms, positions, vision = dimensions[15:]
    dense_stored = _PLAIN if stored.experts_only else stored
    mixed = layers - dense_layers if experts else 0
    attention = [(heads * d, h), (kv_heads * d, h), (kv_heads * d, h), (h, heads * d)]

    def mlp(width: int) -> list[tuple[int, int]]:
        return [(width, h)] * (2 if gated else 1) + [(h, width)]

    router = [(experts, h)]
    # (how many times in the model, the matrices of it that are stored as the scheme says)
    parts = [(layers, attention)]
    parts += [(dense_layers, mlp(dense_i)), (mixed, mlp(shared_i) if shared_i else [])] if experts else [(layers, mlp(i))]
    biased = layers * (heads + 2 * kv_heads) * d if bias else 0
    expert_biases = 0
    if biases:
        biased += sum(times * rows for times, shapes in parts for rows, _ in shapes) - (layers * (heads + 2 * kv_heads) * d)
        biased += mixed * experts
        expert_biases = mixed * experts * sum(rows for rows, _ in mlp(i))
    embedding = vocabulary * h
    return Weights(
        linear_bytes=sum(times * dense_stored.bytes_of(*shape) for times, shapes in parts for shape in shapes)
        + mixed * sum(_PLAIN.bytes_of(*shape) for shape in router)
        + biased * HALF,
        expert_bytes=mixed * experts * sum(stored.bytes_of(*shape) for shape in mlp(i)) + expert_biases * HALF,
        embedding_bytes=(embedding + positions * h) * HALF,
        head_bytes=0 if tied else (dense_stored if stored.head else _PLAIN).bytes_of(vocabulary, h),
        norm_bytes=(norms * layers + 1) * h * HALF,
        linear_parameters=sum(times * rows * columns for times, shapes in [*parts, (mixed, router)] for rows, columns in shapes),
        expert_parameters=mixed * experts * sum(rows * columns for rows, columns in mlp(i)),
        head_parameters=embedding,
        experts=experts,
        experts_per_token=per_token,
        vision_bytes=vision * HALF,
        kv_bytes=2 * layers * dense_stored.bytes_of(kv_heads * d, h),
        kv_heads=kv_heads,
    )


def kv_bytes_per_token(architecture: Architecture, cache_dtype: str, tensor_parallel_size: int) -> int:
    """Bytes of KV cache per token on one GPU: key and value of every layer, 2 x layers x kv_heads x d x bytes.

    Source: vLLM 0.11 v1/kv_cache_interface.py. With more GPUs than KV heads each GPU still keeps one head.
    """
    width = 1 if cache_dtype.startswith("fp8") else HALF
    heads = max(1, architecture.kv_heads // tensor_parallel_size)
    return 2 * architecture.layers * heads * architecture.head_dim * width
