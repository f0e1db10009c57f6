from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.plan import configs
from bench.plan.families import architectures, family_defaults, quantizations
from mistral_on_l4.planner import NotComputed, PlanError, ServicePlan
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.catalogue.families import load_architectures, registry_of
from mistral_on_l4.planner.config_json import architecture_from
from mistral_on_l4.planner.quantization import quantization_from

Plan = Callable[..., ServicePlan]


def test_every_computed_architecture_is_one_that_an_engine_serves_or_served() -> None:
    known: set[str] = set()
    for engine in ("vllm-0.11", "vllm-0.33"):
        registry = registry_of(engine)
        assert registry is not None
        known |= registry.names | set(registry.previously)
    # ForConditionalGeneration of T5 and BART never were in either; they are refused by name all the same.
    computed = {name for name, record in load_architectures().items() if not record.refused}
    assert computed <= known


def test_an_architecture_is_served_by_the_engines_whose_registry_has_it(of: Any) -> None:
    ministral = {**configs.LLAMA_8B, "architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3"}
    with pytest.raises(NotComputed, match=r"vLLM 0\.11\.0 has no class of its own for Ministral3ForCausalLM"):
        of(ministral, engine="vllm-0.11", gpu="L40S")
    assert of(ministral, engine="vllm-0.33", gpu="L40S").fits


def test_an_engine_whose_registry_was_not_read_is_not_asked(of: Any) -> None:
    assert of(configs.LLAMA_8B, engine="vllm-0.20").fits


def test_what_a_family_leaves_out_is_what_its_config_class_assumes() -> None:
    shape = architecture_from(configs.GEMMA3_4B, "x")
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.vocabulary, shape.max_positions) == (8, 4, 256, 262208, 131072)
    assert (shape.sliding_layers, shape.sliding_window, shape.tied_embeddings) == (29, 1024, True)


def test_a_null_window_is_none_although_the_family_has_one() -> None:
    mistral = {**configs.LLAMA_8B, "architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    assert architecture_from(mistral, "x").sliding_window == 4096
    assert architecture_from({**mistral, "sliding_window": None}, "x").sliding_window == 0


def test_a_plain_name_without_a_family_is_refused_rather_than_filled_in() -> None:
    bare = {name: value for name, value in configs.LLAMA_8B.items() if name not in ("model_type", "num_attention_heads")}
    with pytest.raises(PlanError, match="there is no num_attention_heads"):
        architecture_from(bare, "x")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hybrid_override_pattern": "M*"}, "state space"),
        ({"cross_attention_layers": [3]}, "cross attention"),
        ({"global_head_dim": 512}, "differ in shape"),
        ({"linear_num_value_heads": 32}, "linear attention"),
    ],
)
def test_a_field_of_another_kind_of_layer_refuses_a_known_name(changes: configs.Config, says: str) -> None:
    with pytest.raises(NotComputed, match=says):
        architecture_from({**configs.LLAMA_8B, **changes}, "x")


def test_windows_that_differ_by_layer_are_refused_and_equal_ones_are_not() -> None:
    gemma = {**configs.GEMMA3_4B["text_config"], "architectures": ["Gemma3ForCausalLM"]}
    assert architecture_from({**gemma, "sliding_window": [512, None, 512]}, "x").sliding_window == 512
    with pytest.raises(NotComputed, match="windows that differ by layer"):
        architecture_from({**gemma, "sliding_window": [512, 1024]}, "x")


@pytest.mark.parametrize("named", [None, [], "LlamaForCausalLM"])
def test_an_architecture_that_vllm_would_not_find_is_not_computed(named: Any) -> None:
    with pytest.raises(NotComputed, match=r"architectures is .*: vLLM takes the class from there"):
        architecture_from({**configs.LLAMA_8B, "architectures": named}, "x")


def test_a_null_is_no_default_of_the_family() -> None:
    qwen = {name: value for name, value in configs.QWEN3_06B.items() if name != "head_dim"}
    assert architecture_from(qwen, "x").head_dim == 128
    assert architecture_from({**qwen, "head_dim": None}, "x").head_dim == 1024 // 16
    with pytest.raises(PlanError, match="num_hidden_layers is None"):
        architecture_from({**qwen, "num_hidden_layers": None}, "x")


def test_the_smallest_of_several_limits_on_the_context_holds() -> None:
    assert architecture_from(configs.QWEN_V1, "x").max_positions == 8192
    assert architecture_from({**configs.LLAMA_8B, "model_max_length": 500_000}, "x").max_positions == 500_000


@pytest.mark.parametrize("scheme", ["NVFP4", "FP8"])
def test_modelopt_is_read_flat_and_from_its_own_file(scheme: str) -> None:
    part = {"quant_algo": scheme, "exclude_modules": ["lm_head"]}
    flat = quantization_from({"quantization_config": {"quant_method": "modelopt", **part}}, "x")
    beside = quantization_from({}, "x", {"producer": {"name": "modelopt"}, "quantization": part})
    assert flat == beside
    assert flat.scheme == scheme.lower()


def test_the_cache_follows_a_modelopt_checkpoint_on_the_newer_engine_alone(tmp_path: Path, of: Any, catalogue: Catalogue) -> None:
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(configs.MODELOPT_FP8))
    older, newer = (of(configs.LLAMA_8B, engine=engine) for engine in ("vllm-0.11", "vllm-0.33"))
    assert older.memory.kv_bytes_per_token == 2 * newer.memory.kv_bytes_per_token


def test_four_bit_floats_weigh_half_a_byte_and_their_scales(of: Any) -> None:
    linear = 32 * (4096 * 4096 * 2 + 2 * 1024 * 4096 + 3 * 14336 * 4096)
    quantized = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}}
    found = of({**configs.LLAMA_8B, **quantized}, engine="vllm-0.33")
    assert found.memory.weights_gib * 2**30 == pytest.approx(linear * (0.5 + 1 / 16) + 2 * 128256 * 4096 * 2, rel=1e-3)
    assert any("NVFP4 in 16 bits" in warning for warning in found.warnings)
    assert "Minimum capability: 80" in of({**configs.LLAMA_8B, **quantized}, engine="vllm-0.11", gpu="T4").reason


def test_matrices_that_stay_unquantized_need_headers(tmp_path: Path, of: Any) -> None:
    kept = {**configs.BLOCK_FP8, "modules_to_not_convert": ["lm_head", "model.layers.0.self_attn.q_proj"]}
    with pytest.raises(NotComputed, match="only the headers"):
        of({**configs.LLAMA_8B, "quantization_config": kept})
    routers = {**configs.BLOCK_FP8, "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate", "model.norm"]}
    assert of({**configs.LLAMA_8B, "quantization_config": routers}).fits


def test_what_is_not_computed_is_weighed_by_its_index(tmp_path: Path, of: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 10 * 2**30}}))
    with pytest.raises(NotComputed, match=r"not computed: .*its weights are 10\.00 GiB"):
        of(configs.NEMOTRON_H)


def test_headers_beside_a_config_are_read(tmp_path: Path, of: Any) -> None:
    header = {
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [128256, 4096], "data_offsets": [0, 128256 * 4096 * 2]},
        "model.vision_tower.patch.weight": {"dtype": "BF16", "shape": [2**29], "data_offsets": [2**31, 2**31 + 2**30]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert of(configs.LLAMA_8B).memory.weights_gib == pytest.approx(1 + 128256 * 4096 * 2 / 2**30)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(PlanError, match="header cannot be parsed"):
        of(configs.LLAMA_8B)


def test_a_vision_tower_counts_unless_the_language_model_alone_is_served(of: Any) -> None:
    both = of(configs.GEMMA3_4B, engine="vllm-0.33")
    alone = of(configs.GEMMA3_4B, engine="vllm-0.33", extra_args=("--language-model-only",))
    assert both.memory.weights_gib - alone.memory.weights_gib == pytest.approx(0.42e9 * 2 / 2**30, rel=0.02)
    assert any("profile run of its largest image is not" in warning for warning in both.warnings)
    assert not any("vision" in warning for warning in alone.warnings)
    with pytest.raises(PlanError, match=r"does not know: vllm-0\.33 does, add --engine vllm-0\.33"):
        of(configs.GEMMA3_4B, engine="vllm-0.11", extra_args=("--language-model-only",))


TOWERS = [
    ("Qwen2VLForConditionalGeneration", "qwen2_vl", {"depth": 32, "embed_dim": 1280, "hidden_size": 3584}, 0.675),
    ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420}, 0.676),
    (
        "Mistral3ForConditionalGeneration",
        "mistral3",
        {"model_type": "pixtral", "num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "patch_size": 14},
        0.424,  # 0.40 B and a projector to 3,584
    ),
]


@pytest.mark.parametrize(("name", "kind", "vision", "billions"), TOWERS, ids=[tower[0] for tower in TOWERS])
def test_a_tower_has_the_published_number_of_parameters(name: str, kind: str, vision: Any, billions: float) -> None:
    text = {**configs.QWEN25_7B, "model_type": "qwen2"}
    config = {"architectures": [name], "model_type": kind, "text_config": text, "vision_config": vision}
    assert architecture_from(config, "x").vision_parameters == pytest.approx(billions * 1e9, rel=0.03)


def test_a_prompt_in_one_step_takes_the_memory_of_all_its_tokens(plan: Plan) -> None:
    found = plan(variant="w4a16", maxModelLen=8192, maxNumSeqs=16, extraArgs=["--no-enable-chunked-prefill"])
    assert found.memory.activation_gib == pytest.approx(8192 * 3 * (5120 + 32768) * 2 / 2**30)


def test_four_gpus_without_nvlink_are_warned_of_what_lies_beside_the_budget(plan: Plan) -> None:
    found = plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=4, engine="vllm-0.33", gpuMemoryUtilization=0.9)
    assert any("2.3 GiB each beside the budget" in warning for warning in found.warnings)
    lower = plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=4, engine="vllm-0.33", gpuMemoryUtilization=0.85)
    assert not any("beside the budget" in warning for warning in lower.warnings)


def test_nobody_asked_for_a_length_so_the_plan_takes_one_that_is_held(of: Any) -> None:
    assert of(configs.QWEN_V1).max_model_len == 7936
    assert not of(configs.QWEN_V1, max_model_len=8192).fits


REGISTRY = """
_TEXT_GENERATION_MODELS = {"AForCausalLM": ("a", "A"), "BForCausalLM": ("b", "B")}
_EMBEDDING_MODELS = {"CModel": ("c", "C")}
_PREVIOUSLY_SUPPORTED_MODELS = {"OldForCausalLM": "0.9.2"}
"""
CONFIGURATION = """
class BaseConfig:
    model_type = "base"
    hidden_size: int = 64 * 2
    head_dim: int | None = None
    unread: int = 5
class ChildConfig(BaseConfig):
    model_type = "child"
    vocab_size: int = 100
"""


def test_the_generator_reads_quantizations_and_those_that_need_a_flag() -> None:
    source = 'QuantizationMethods = Literal["gptq", "awq"]\nDEPRECATED_QUANTIZATION_METHODS = ["awq"]\nOTHERS = ["x"]\n'
    assert quantizations(source) == {"quantizations": ["awq", "gptq"], "deprecated_quantizations": ["awq"]}


def test_the_generator_reads_registries_and_inherited_defaults(tmp_path: Path) -> None:
    assert architectures(REGISTRY) == {"text": ["AForCausalLM", "BForCausalLM"], "previously": {"OldForCausalLM": "0.9.2"}}
    folder = tmp_path / "transformers" / "models" / "child"
    folder.mkdir(parents=True)
    (folder / "configuration_child.py").write_text(CONFIGURATION)
    assert family_defaults(tmp_path)["child"] == {"hidden_size": 128, "vocab_size": 100}
