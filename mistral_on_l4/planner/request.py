"""What is asked of the planner for one service, with every name already resolved to the catalogue's records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from mistral_on_l4.planner.catalogue.schema import Architecture, Engine, Gpu, Instance, Kernel, Quantization
from mistral_on_l4.planner.checkpoint import Weights, kv_bytes_per_token, weights_of

# Where a stack says extra_args.
EXTRA_ARGS = "extraArgs"
# Quantization scheme of a variant, for a checkpoint that does not exist yet or is quantized while loading.
FORMATS = {
    "bf16": Quantization(),
    "fp8": Quantization(method="compressed-tensors", scheme="fp8"),
    "w4a16": Quantization(method="compressed-tensors", scheme="int4", group_size=128),
}


@dataclass(frozen=True)
class Workload:
    """Users that each send a prompt, wait for the whole answer, and send the next. Lengths in tokens."""

    users: tuple[int, ...] = (1, 5, 10)
    prompt_tokens: int = 256
    output_tokens: int = 256


@dataclass(frozen=True)
class ServiceRequest:
    """One service. exact: bytes read from a checkpoint's own headers, instead of those that follow from its shapes.

    gpus: of one replica, and the degree of tensor parallelism; instance: what it runs on, None if nothing is known that has the
    GPU; quantization: of the files; loaded_as: what the layers become on the GPU, where the engine quantizes while loading;
    args_source: what people know extra_args by.
    """

    name: str
    model: str
    variant: str
    checkpoint: str
    architecture: Architecture
    quantization: Quantization
    gpu_name: str
    gpu: Gpu
    gpus: int
    engine_name: str
    engine: Engine
    image: str
    max_model_len: int
    gpu_memory_utilization: float
    instance_name: str | None = None
    instance: Instance | None = None
    max_num_seqs: int | None = None
    kv_cache_dtype: str = "auto"
    cpu_offload: Literal["off", "auto"] | float = "off"
    dtype: str = "auto"
    extra_args: tuple[str, ...] = ()
    args_source: str = EXTRA_ARGS
    exact: Weights | None = None
    unsupported: str = ""
    largest_file_gb: float = 5.0
    workload: Workload = field(default_factory=Workload)

    @cached_property
    def flags(self) -> dict[str, str]:
        """extra_args by flag, `--a b` and `--a=b` alike; a flag without a value maps to ''."""
        return parse_flags(self.extra_args)

    @cached_property
    def online_fp8(self) -> bool:
        """Whether the engine is told to turn an unquantized checkpoint into FP8 while loading it."""
        return self.quantization.scheme == "none" and self.flags.get("--quantization", "").startswith("fp8")

    @cached_property
    def loaded_as(self) -> Quantization:
        return FORMATS["fp8"] if self.online_fp8 else self.quantization

    @cached_property
    def file_weights(self) -> Weights:
        return self.exact or weights_of(self.architecture, self.quantization)

    @cached_property
    def weights(self) -> Weights:
        """What the GPUs hold in the end: without the vision tower where vLLM is told to serve the language model only."""
        held = weights_of(self.architecture, self.loaded_as) if self.online_fp8 else self.file_weights
        return held.without_vision() if "--language-model-only" in self.flags else held

    @cached_property
    def cache_dtype(self) -> str:
        """What the KV cache is in: as asked for, or as the checkpoint says where the engine follows it."""
        follows = self.kv_cache_dtype == "auto" and self.engine.kv_from_checkpoint
        return self.quantization.kv_cache or "auto" if follows else self.kv_cache_dtype

    @cached_property
    def kv_bytes_per_token(self) -> int:
        return kv_bytes_per_token(self.architecture, self.cache_dtype, self.gpus)

    @property
    def eager(self) -> bool:
        return "--enforce-eager" in self.flags

    @cached_property
    def attention_backend(self) -> str:
        """FLASHINFER where it is asked for, or the engine needs it for an FP8 cache below compute capability 9.0; else ""."""
        asked = self.flags.get("--attention-backend", "").upper()
        needed = self.engine.flashinfer_for_fp8_cache and self.cache_dtype.startswith("fp8") and self.gpu.compute_capability < 9.0
        return "FLASHINFER" if asked == "FLASHINFER" or (not asked and needed) else ""

    @cached_property
    def kernel(self) -> Kernel | None:
        """The kernel of the layers' matrices, where the catalogue knows of one for format, card and engine."""
        loaded = self.loaded_as
        name = f"{loaded.scheme}-block" if loaded.block_size else loaded.scheme
        capability = self.gpu.compute_capability
        for kernel in self.engine.kernels:
            if name in kernel.formats and kernel.capability[0] <= capability <= kernel.capability[1]:
                return kernel
        return None

    @property
    def large_card(self) -> bool:
        """Whether the engine takes its larger defaults: by memory, but never on an A100 (engine/arg_utils.py)."""
        return self.gpu.visible_gib >= self.engine.large_card_gib and "A100" not in self.gpu.name

    @property
    def sequences(self) -> int:
        """Requests that run at once: --max-num-seqs, or the engine's default for the card, at most one per token of a step."""
        return self.max_num_seqs or min(self.engine.max_num_seqs[self.large_card], self.batched_tokens)

    @cached_property
    def batched_tokens(self) -> int:
        """Tokens of one step at most: --max-num-batched-tokens, or the engine's default for the card.

        Without chunked prefill a whole prompt is one step, so the default is the greatest length (engine/arg_utils.py).
        """
        given = self.flags.get("--max-num-batched-tokens")
        if given is not None:
            return readable_int(given) or 1
        usual = self.engine.max_num_batched_tokens[self.large_card]
        return usual if self.chunked_prefill else max(usual, self.max_model_len)

    @property
    def chunked_prefill(self) -> bool:
        return "--no-enable-chunked-prefill" not in self.flags

    @property
    def half_dtype(self) -> str:
        """What activations are in; BF16 unless the service or the checkpoint says otherwise.

        Nothing is said for a quantized checkpoint: vLLM then takes FP16 itself where the card has no BF16.
        """
        dtype = self.flags.get("--dtype", self.dtype)
        falls_back = self.quantization.scheme != "none" and dtype == "auto" and self.gpu.compute_capability < 8.0
        return "float16" if falls_back or dtype in ("float16", "half") else "bfloat16"


def parse_flags(args: Sequence[str]) -> dict[str, str]:
    """Command-line arguments by flag name; the last of a repeated flag counts, as for argparse. "" holds words before any flag."""
    flags: dict[str, str] = {}
    name = ""
    for argument in args:
        # argparse takes a negative number for a value: --max-model-len -1.
        if argument.startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?", argument):
            name, _, value = argument.partition("=")
            # vLLM's parser takes --max_model_len for --max-model-len, and -O3 for -O 3.
            first, dot, rest = name.partition(".")
            name = SHORT.get("-O" if first.startswith("-O") else first, first.replace("_", "-")) + dot + rest
            flags[name] = value
        else:
            flags[name] = f"{flags.get(name, '')} {argument}".strip()
    return flags


def readable_int(text: str) -> int | None:
    """A number as vLLM's flags take it: 2048, 2K for 2,048, 2k for 2,000, 1.5k; None for what vLLM would not start with."""
    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)([km])|(\d+)([KM])", text)
    if found is None:
        return None
    plain, decimal, unit, binary, binary_unit = found.groups()
    if plain:
        return int(plain)
    if decimal:
        return int(float(decimal) * {"k": 10**3, "m": 10**6}[unit])
    return int(binary) * {"K": 2**10, "M": 2**20}[binary_unit]


# vLLM's short names, of any version (data/flags.yaml).
SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-dcp": "--decode-context-parallel-size",
    "-pcp": "--prefill-context-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-q": "--quantization",
    "-n": "--nnodes",
    "-r": "--node-rank",
    "-O": "--compilation-config",
    "-cc": "--compilation-config",
    "-ac": "--attention-config",
    "-sc": "--speculative-config",
    "-asc": "--api-server-count",
}
