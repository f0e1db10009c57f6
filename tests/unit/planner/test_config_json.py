from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedded.hub.checkpoints import CHECKPOINTS
from embedded.hub.checkpoints import config as hub_config
from mistral_on_l4.planner import PlanError
from mistral_on_l4.planner.catalogue import Catalogue, Quantization
from mistral_on_l4.planner.checkpoint import weights_of
from mistral_on_l4.planner.config_json import architecture_from
from mistral_on_l4.planner.quantization import quantization_from
from mistral_on_l4.planner.standalone import Question, plan_checkpoint

PLAIN: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


def test_heads_and_their_size_follow_from_what_is_given() -> None:
    shape = architecture_from(PLAIN, "x")
    assert (shape.kv_heads, shape.head_dim, shape.tied_embeddings) == (32, 128, False)


def test_a_multimodal_checkpoint_is_read_by_its_text_part() -> None:
    shape = architecture_from(
        {"architectures": ["Mistral3ForConditionalGeneration"], "text_config": PLAIN, "vision_config": {}}, "x"
    )
    assert (shape.family, shape.layers) == ("Mistral3ForConditionalGeneration", 32)


def test_a_mixture_has_the_width_of_one_expert() -> None:
    moe = {**PLAIN, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    shape = architecture_from(moe, "x")
    assert (shape.experts, shape.experts_per_token, shape.intermediate) == (128, 8, 768)


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        ({"rope_type": "llama3", "factor": 8.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        ({"type": "linear", "factor": 2.0}, 16384),
        ({"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 4096}, 16384),
        (None, 8192),
    ],
)
def test_the_longest_context_follows_the_rotary_scaling(scaling: Any, longest: int) -> None:
    assert architecture_from({**PLAIN, "rope_scaling": scaling}, "x").max_positions == longest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers is None"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"is_encoder_decoder": True}, "not a decoder with ordinary attention"),
        ({"kv_lora_rank": 512}, "not a decoder with ordinary attention"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "layers of kind linear_attention"),
        ({"layer_types": 5}, "layer_types is 5, not a list"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, "its factor is a number above zero"),
        ({"intermediate_size": [4096, 8192]}, r"intermediate_size is \[4096, 8192\], not a whole number"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": "768"}, "moe_intermediate_size is 768, not a whole"),
        ({"moe_num_experts": 64, "moe_k": 6}, "moe_num_experts is 64, a mixture of experts of a kind"),
        ({"num_experts": 64, "moe_topk": 8}, "there is no num_experts_per_tok"),
        ({"block_configs": [{"ffn": {"ffn_mult": 2.5}}]}, "block_configs"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "not a decoder with ordinary attention"),
        ({"architectures": ["Qwen3ForSequenceClassification"], "model_type": "qwen3"}, "not a decoder with ordinary attention"),
        ({"word_embed_proj_dim": 512}, "an embedding of 512 columns beside its hidden size"),
        ({"num_key_value_heads": "8"}, "num_key_value_heads is 8, not a whole number"),
    ],
)
def test_what_is_not_a_plain_decoder_is_refused_in_one_line(changes: dict[str, Any], says: str | None) -> None:
    if says is None:
        assert architecture_from({**PLAIN, **changes}, "x").kv_heads == 8
        return
    with pytest.raises(PlanError, match=says) as caught:
        architecture_from({**PLAIN, **changes}, "config.json of a/b")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("config.json of a/b: ")


@pytest.mark.parametrize(
    ("found", "scheme", "group"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 0),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4", 128),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, "int4", 64),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "int8", 0),
    ],
)
def test_the_common_ways_to_quantize_are_known(found: dict[str, Any], scheme: str, group: int) -> None:
    quantization = quantization_from({"quantization_config": found}, "x")
    assert (quantization.scheme, quantization.group_size) == (scheme, group)


MIXED = {"a": {"weights": {"type": "float", "num_bits": 8}}, "b": {"weights": {"type": "int", "num_bits": 4, "group_size": 128}}}


@pytest.mark.parametrize(
    "found",
    [
        {"quant_method": "mxfp8"},
        {"quant_method": "gptq", "bits": 3},
        {"bits": 4},
        {"quant_method": "compressed-tensors", "config_groups": MIXED},
        {"quant_method": "compressed-tensors", "config_groups": {"a": "x"}},
    ],
)
def test_an_unknown_quantization_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="does not compute quantization"):
        quantization_from({"quantization_config": found}, "x")


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda each: each.precision)
def test_the_fields_of_the_real_repositories_are_understood(checkpoint: Any) -> None:
    config = hub_config(checkpoint)
    scheme = {"bf16": "none", "fp8": "fp8", "w4a16": "int4"}[checkpoint.precision]
    assert quantization_from(config, "x").scheme == scheme
    assert architecture_from(config, "x").family == "MistralForCausalLM"


@pytest.mark.parametrize(("text", "says"), [("{", "is not JSON"), ("[]", "is not a JSON object"), (None, "No such file")])
def test_a_broken_config_file_is_one_clear_line(tmp_path: Path, catalogue: Catalogue, text: str | None, says: str) -> None:
    file = tmp_path / "config.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PlanError, match=says):
        plan_checkpoint(Question(config=file), catalogue)


def test_a_precision_that_the_checkpoint_does_not_have_is_planned_as_if(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(PLAIN))
    full, quarter = (plan_checkpoint(Question(config=file, precision=each), catalogue) for each in ("bf16", "w4a16"))
    assert quarter.services[0].memory.weights_gib < 0.5 * full.services[0].memory.weights_gib
    assert "if its linear layers were quantized to w4a16" in quarter.notes[0]


@pytest.mark.parametrize("found", [{"config_groups": ["a"]}, {"config_groups": {"a": {"weights": "x"}}}, {"ignore": "lm_head"}])
def test_a_corrupt_quantization_is_one_clear_line(found: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=r"^x: quantization_config is corrupt: .*$"):
        quantization_from({"quantization_config": {"quant_method": "compressed-tensors", **found}}, "x")


INT4 = {"group_0": {"weights": {"type": "int", "num_bits": 4, "group_size": 128}}}


@pytest.mark.parametrize(
    ("found", "quantized"),
    [
        ({"quant_method": "compressed-tensors", "config_groups": INT4, "ignore": ["lm_head"]}, False),
        ({"quant_method": "compressed-tensors", "config_groups": INT4, "ignore": ["re:.*lm_head"]}, False),
        ({"quant_method": "compressed-tensors", "config_groups": INT4, "ignore": ["language_model.lm_head", "re:vision.*"]}, False),
        ({"quant_method": "compressed-tensors", "config_groups": INT4, "ignore": ["re:.*router"]}, True),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": ["visual"]}, False),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "lm_head": True}, True),
    ],
)
def test_the_head_counts_as_it_is_stored_however_the_checkpoint_says_it(found: dict[str, Any], quantized: bool) -> None:
    assert quantization_from({"quantization_config": found}, "x").quantized_head is quantized


def test_gemma_3_says_its_context_after_scaling() -> None:
    scaled = {**PLAIN, "model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert architecture_from(scaled, "x").max_positions == 8192


@pytest.mark.parametrize(
    ("changes", "sliding"),
    [
        ({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 4096}, 32),
        ({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}, 0),
        ({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "sliding_window": 1024}, 27),
        ({"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "sliding_window": 4096}, 16),
        ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, 0),
        (
            {
                "architectures": ["GptOssForCausalLM"],
                "sliding_window": 512,
                "layer_types": ["sliding_attention", "full_attention"] * 16,
            },
            16,
        ),
        ({"sliding_window": 512}, 0),
    ],
)
def test_the_layers_that_attend_over_a_window_are_counted(changes: dict[str, Any], sliding: int) -> None:
    assert architecture_from({**PLAIN, **changes}, "x").sliding_layers == sliding


GLM_AIR = {
    **PLAIN,
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "intermediate_size": 10944,
    "num_hidden_layers": 46,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151552,
    "n_routed_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 1408,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
LLAMA_4 = {
    **PLAIN,
    "architectures": ["Llama4ForConditionalGeneration"],
    "model_type": "llama4_text",
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 202048,
    "num_experts_per_tok": 1,
}
QWEN_3 = {
    **PLAIN,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}


@pytest.mark.parametrize(
    ("config", "billions"),
    [
        (GLM_AIR, 106.9),  # GLM-4.5-Air, "106B"
        ({**LLAMA_4, "num_local_experts": 16, "interleave_moe_layer_step": 1}, 107.8),  # Scout, 109 B with its vision tower
        ({**LLAMA_4, "num_local_experts": 128, "interleave_moe_layer_step": 2}, 400.7),  # Maverick, "400B"
        (QWEN_3, 30.5),
        ({**QWEN_3, "mlp_only_layers": [0, 1]}, 29.4),
    ],
    ids=["GLM-4.5-Air", "Scout", "Maverick", "Qwen3-30B-A3B", "two dense layers"],
)
def test_a_mixture_has_as_many_parameters_as_its_name_says(config: dict[str, Any], billions: float) -> None:
    weights = weights_of(architecture_from(config, "x"), Quantization())
    assert weights.total_bytes / 2e9 == pytest.approx(billions, rel=0.003)


def awq_on_a_t4(tmp_path: Path, **changes: Any) -> Question:
    quantized = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}, "num_key_value_heads": 8}
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**PLAIN, **quantized, **changes}))
    return Question(config=file, gpu="T4")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_quantized_checkpoint_runs_in_half_precision_where_the_card_has_no_bfloat16(
    tmp_path: Path, catalogue: Catalogue, dtype: str
) -> None:
    assert plan_checkpoint(awq_on_a_t4(tmp_path, torch_dtype=dtype), catalogue).services[0].fits


def test_a_checkpoint_in_float16_is_served_in_float16_unless_bf16_is_asked_for(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**PLAIN, "torch_dtype": "float16"}))
    stored, asked = (plan_checkpoint(Question(config=file, precision=each), catalogue).services[0] for each in ("auto", "bf16"))
    assert stored.args[:2] == ("--dtype", "float16")
    assert asked.args[:2] == ("--dtype", "bfloat16")


def test_eight_bit_weights_that_are_only_stored_so_prefill_at_the_rate_of_16_bits(tmp_path: Path, catalogue: Catalogue) -> None:
    def ttft(found: dict[str, Any]) -> float:
        file = tmp_path / "config.json"
        file.write_text(json.dumps({**PLAIN, "quantization_config": found}))
        return plan_checkpoint(Question(config=file), catalogue).services[0].at(10).ttft_ms

    weights = {"type": "int", "num_bits": 8}
    both = {"group_0": {"weights": weights, "input_activations": {"type": "int", "num_bits": 8}}}
    native = ttft({"quant_method": "compressed-tensors", "config_groups": both, "ignore": ["lm_head"]})
    alone = ttft({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}, "ignore": ["lm_head"]})
    assert ttft({"quant_method": "gptq", "bits": 8, "group_size": -1}) == pytest.approx(alone)
    assert alone > 1.5 * native
