from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mistral_on_l4.embedded.hub.checkpoints import CHECKPOINTS
from mistral_on_l4.embedded.hub.checkpoints import config as hub_config
from mistral_on_l4.planner import PlanError
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.config_json import architecture_from, quantization_from
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
        ({"num_key_value_heads": "8"}, None),
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


@pytest.mark.parametrize("found", [{"quant_method": "mxfp4"}, {"quant_method": "gptq", "bits": 3}, {"bits": 4}])
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
