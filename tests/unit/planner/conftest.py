from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest

from mistral_on_l4.config.settings import Settings, settings_from
from mistral_on_l4.planner import ServicePlan, StackPlan, plan_stack
from mistral_on_l4.planner.catalogue import Catalogue, load_catalogue
from mistral_on_l4.planner.standalone import Question, plan_checkpoint
from tests.support.configuration import only_pools, only_services

WIDTH = {"BF16": 2, "F8_E4M3": 1, "I32": 4, "I64": 8, "F32": 4}
# The real model's dimensions, written down here once more: a test that took them from the catalogue would follow its mistakes.
LAYERS, HIDDEN, QUERY, KEY, INTERMEDIATE, VOCABULARY = 40, 5120, 4096, 1024, 32768, 131072
LINEARS = (
    ("self_attn.q_proj", QUERY, HIDDEN),
    ("self_attn.k_proj", KEY, HIDDEN),
    ("self_attn.v_proj", KEY, HIDDEN),
    ("self_attn.o_proj", HIDDEN, QUERY),
    ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
    ("mlp.up_proj", INTERMEDIATE, HIDDEN),
    ("mlp.down_proj", HIDDEN, INTERMEDIATE),
)


def real_tensors(variant: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of every tensor of the real repository, in Hugging Face's names."""
    yield "model.embed_tokens.weight", "BF16", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        for name, rows, columns in LINEARS:
            path = f"model.layers.{layer}.{name}"
            if variant == "w4a16":
                yield f"{path}.weight_packed", "I32", (rows, columns // 8)
                yield f"{path}.weight_scale", "BF16", (rows, columns // 128)
                yield f"{path}.weight_shape", "I64", (2,)
                continue
            yield f"{path}.weight", "F8_E4M3" if variant == "fp8" else "BF16", (rows, columns)
            if variant == "fp8":
                yield f"{path}.weight_scale", "BF16", (rows, 1)
        yield f"model.layers.{layer}.input_layernorm.weight", "BF16", (HIDDEN,)
        yield f"model.layers.{layer}.post_attention_layernorm.weight", "BF16", (HIDDEN,)
    yield "model.norm.weight", "BF16", (HIDDEN,)
    yield "lm_head.weight", "BF16", (VOCABULARY, HIDDEN)


def real_header(variant: str) -> dict[str, dict[str, Any]]:
    """The safetensors header of the whole checkpoint as one file."""
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name, dtype, shape in real_tensors(variant):
        start, end = end, end + prod(shape) * WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    return header


@pytest.fixture(scope="session")
def header() -> Callable[[str], dict[str, dict[str, Any]]]:
    return real_header


# What was published, and these tests hold the plan against, is of this version; tests of the shipped default name it.
MEASURED_ENGINE = "vllm-0.11"


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue().model_copy(update={"default_engine": MEASURED_ENGINE})


def service(**changes: Any) -> dict[str, Any]:
    """A service as Pulumi.<stack>.yaml writes it: W4A16 on one L4 unless changed."""
    return {"name": "svc", "variant": "w4a16", "prefix": "svc/", "pool": "pool", **changes}


def settings_of(*services: dict[str, Any], instance: str = "g6.2xlarge", count: int = 1, **values: Any) -> Settings:
    pools = {"groups": only_pools({"name": "pool", "instanceType": instance, "count": count})}
    return settings_from({"platform": "eks", "services": only_services(*services), "pools": pools, **values}, "Pulumi.test.yaml")


@pytest.fixture
def plan() -> Callable[..., ServicePlan]:
    """plan(variant="fp8", instance="g6.12xlarge", tensorParallelSize=2, ...) -> ServicePlan."""

    def planned(
        *, instance: str = "g6.2xlarge", engine: str = MEASURED_ENGINE, platform: str = "eks", **changes: Any
    ) -> ServicePlan:
        found = plan_stack(settings_of(service(**changes), instance=instance, platform=platform), stack="test", engine=engine)
        return found.services[0]

    return planned


@pytest.fixture
def stack() -> Callable[..., StackPlan]:
    """stack(service(...), ..., instance=, count=, **settings) -> StackPlan."""

    def planned(*services: dict[str, Any], **values: Any) -> StackPlan:
        return plan_stack(settings_of(*services, **values), stack="test")

    return planned


@pytest.fixture
def make_service() -> Callable[..., dict[str, Any]]:
    return service


# config.json of public models, the fields that size depends on: an engine's own memory reports and benchmarks exist for them.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rope_scaling": {"factor": 8.0, "rope_type": "llama3"},
        "tie_word_embeddings": False,
    },
    "llama-3.3-70b-fp8": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel", "group_size": None}}},
            "ignore": ["lm_head"],
        },
    },
    "qwen3-0.6b": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": True,
    },
    "qwen3-32b": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 5120,
        "intermediate_size": 25600,
        "num_hidden_layers": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": False,
    },
    "qwen2.5-0.5b": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    },
    "mixtral-8x7b": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
}


@pytest.fixture
def config(tmp_path: Any) -> Callable[[str], Any]:
    """config("llama-3.1-8b") -> path of its config.json."""

    def written(name: str) -> Any:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
        return folder / "config.json"

    return written


@pytest.fixture
def of_file(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """of_file(config) -> a folder with that config.json, which each call overwrites."""

    def written(config: dict[str, Any]) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return written


@pytest.fixture
def of(of_file: Callable[..., Path], catalogue: Catalogue) -> Callable[..., ServicePlan]:
    """of(config, gpu="L4", ...) -> the plan of a checkpoint of which only config.json is there."""
    return lambda config, **asked: plan_checkpoint(Question(config=of_file(config), **asked), catalogue).services[0]
