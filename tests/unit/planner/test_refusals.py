from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bench.plan import configs
from mistral_on_l4.planner import PlanError, ServicePlan
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.standalone import Question, plan_checkpoint

Plan = Callable[..., ServicePlan]
MISTRAL = "mistral-small-24b-instruct-2501"


@pytest.mark.parametrize("flags", [["--quantization", "fp8"], ["--quantization=fp8"], ["-q", "fp8"]])
def test_quantization_fp8_on_compressed_tensors_is_refused_in_vllms_words(plan: Plan, flags: list[str]) -> None:
    found = plan(variant="fp8", instance="g6e.xlarge", extraArgs=flags)
    assert not found.loads
    assert "Quantization method specified in the model config (compressed-tensors) does not match" in found.reason
    assert found.remedies[0].change == "without --quantization"


def test_naming_the_checkpoints_own_method_is_harmless(plan: Plan) -> None:
    assert plan(variant="w4a16", extraArgs=["--quantization", "compressed-tensors"]).fits


def test_online_fp8_needs_the_whole_bf16_model_first_in_the_old_engine(plan: Plan) -> None:
    online = {"variant": "bf16", "extraArgs": ["--quantization", "fp8"]}
    assert "before it quantizes" in plan(**online, instance="g6e.xlarge").reason
    assert plan(**online, instance="g6e.xlarge", engine="vllm-0.33").fits
    quarter = plan(**online, instance="g6.12xlarge", tensorParallelSize=4)
    assert quarter.fits
    assert quarter.memory.weights_gib == pytest.approx(23.21 / 4, abs=0.01)


def asked(catalogue: Catalogue, **values: Any) -> ServicePlan:
    return plan_checkpoint(Question(model=MISTRAL, **values), catalogue).services[0]


def test_fp8_below_compute_capability_8_is_refused(catalogue: Catalogue) -> None:
    found = asked(catalogue, gpu="T4", precision="fp8")
    assert found.reason == "Quantization scheme is not supported for the current GPU. Min capability: 80. Current capability: 75."


def test_fp8_from_8_to_8_8_is_weight_only_and_prefills_slower(catalogue: Catalogue) -> None:
    ampere = asked(catalogue, gpu="A100-40GB", precision="fp8")
    ada = asked(catalogue, gpu="L40S", precision="fp8")
    assert ampere.fits
    assert any("weight-only" in warning for warning in ampere.warnings)
    assert not any("weight-only" in warning for warning in ada.warnings)
    # Per FLOP of the card, since the cards differ: one multiplies in 16 bits, the other in 8.
    assert ampere.at(10).ttft_ms * 312 > 1.5 * ada.at(10).ttft_ms * 362


def test_bfloat16_on_a_t4_is_refused_and_half_is_not(catalogue: Catalogue) -> None:
    assert (
        "Bfloat16 is only supported on GPUs with compute capability of at least 8.0" in asked(catalogue, gpu="T4", count=4).reason
    )
    assert "Bfloat16" not in asked(catalogue, gpu="T4", count=4, precision="half").reason


@pytest.mark.parametrize("flags", [("--dtype", "half"), ("--dtype=float16",)])
def test_a_dtype_among_the_extra_arguments_counts_like_any_other(catalogue: Catalogue, flags: tuple[str, ...]) -> None:
    assert "Bfloat16 is only supported" in asked(catalogue, gpu="T4", count=4).reason
    assert "Bfloat16 is only supported" not in asked(catalogue, gpu="T4", count=4, extra_args=flags).reason


def test_a_checkpoint_that_is_quantized_while_loading_is_not_computed(catalogue: Catalogue) -> None:
    with pytest.raises(PlanError, match="cannot compute"):
        asked(catalogue, gpu="L4", count=4, extra_args=("--quantization=bitsandbytes",))


def test_tensor_parallelism_must_divide_the_heads(catalogue: Catalogue) -> None:
    assert asked(catalogue, gpu="L4", count=8, tensor_parallel_size=3).reason.startswith(
        "Total number of attention heads (32) must be divisible by tensor parallel size (3)"
    )


def test_more_gpus_than_kv_heads_must_be_a_multiple_of_them(tmp_path: Any, catalogue: Catalogue) -> None:
    file = tmp_path / "config.json"
    file.write_text(
        '{"architectures": ["LlamaForCausalLM"], "hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 12,'
        ' "num_key_value_heads": 3, "vocab_size": 32000, "max_position_embeddings": 4096}'
    )

    def reason(gpus: int) -> str:
        return plan_checkpoint(Question(config=file, gpu="H100", count=gpus), catalogue).services[0].reason

    assert "must divide the KV heads (3)" in reason(4)
    assert "KV heads" not in reason(3)
    assert "KV heads" not in reason(6)


def test_a_context_beyond_the_models_is_refused(plan: Plan) -> None:
    found = plan(variant="w4a16", maxModelLen=65536)
    assert "greater than the derived max_model_len (max_position_embeddings=32768" in found.reason
    assert any(remedy.change.startswith("maxModelLen") for remedy in found.remedies)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--max-model-len", "4096"], "which maxModelLen sets"),
        (["--cpu-offload-gb=8"], "which cpuOffload sets"),
        (["-tp", "2"], "which tensorParallelSize sets"),
        (["--pipeline-parallel-size", "2"], "cannot compute"),
        (["--dtype", "float32"], "cannot compute"),
        (["--hf-overrides", '{"num_hidden_layers": 99}'], "cannot compute"),
        (["--num-gpu-blocks-override", "10"], "cannot compute"),
        (["--block-size", "7"], "cannot compute"),
        (["--enforce-eager", "false"], "takes none"),
    ],
)
def test_extra_arguments_that_contradict_the_plan_are_refused(plan: Plan, extra: list[str], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        plan(variant="w4a16", extraArgs=extra)


def test_a_refusal_names_remedies_with_speed_and_price(plan: Plan, stack: Any, make_service: Any) -> None:
    text = stack(make_service(name="in-fp8", variant="fp8")).misfits[0]
    first, second = text.splitlines()
    assert first.startswith("in-fp8 does not fit 1x L4: 23.21 GiB of weights, 22.03 GiB visible")
    changes = [part.strip().partition(" (")[0] for part in second.removeprefix("  remedies:").split("|")]
    assert changes == ["W4A16 on 1x L4", "FP8 on 1x L40S", "FP8 on 2x L4", "cpuOffload"]
    assert "$0.98/h" in second
    assert "$1.86/h" in second
    assert "unmeasured" in second


def test_every_remedy_is_one_that_loads_when_it_is_taken(plan: Plan) -> None:
    changes = {
        "W4A16 on 1x L4": {"variant": "w4a16"},
        "FP8 on 1x L40S": {"variant": "fp8", "instance": "g6e.xlarge"},
        "FP8 on 2x L4": {"variant": "fp8", "instance": "g6.12xlarge", "tensorParallelSize": 2},
        "cpuOffload": {"variant": "fp8", "cpuOffload": "auto"},
    }
    remedies = plan(variant="fp8").remedies
    assert {remedy.change for remedy in remedies} == set(changes)
    for remedy in remedies:
        taken = plan(**changes[remedy.change])
        assert taken.loads
        assert taken.at(1).tpot_ms == pytest.approx(remedy.tpot_ms)


def test_underscores_do_not_hide_an_argument_since_vllm_takes_them_for_dashes(plan: Plan) -> None:
    with pytest.raises(PlanError, match="which maxModelLen sets"):
        plan(variant="w4a16", extraArgs=["--max_model_len=32768"])


def test_a_node_that_is_too_small_is_answered_with_the_same_gpu_on_a_larger_one(plan: Plan) -> None:
    found = plan(variant="w4a16", instance="g6.xlarge")
    assert "take a larger instance type" in found.reason
    assert found.remedies[0].change == "W4A16 on g6.2xlarge"
    assert plan(variant="w4a16", instance="g6.2xlarge").at(1).tpot_ms == pytest.approx(found.remedies[0].tpot_ms)


def test_another_precision_is_offered_on_a_node_that_holds_it(plan: Plan) -> None:
    assert plan(variant="fp8", instance="g6.xlarge").remedies[0].change == "W4A16 on 1x L4 of g6.2xlarge"


@pytest.mark.parametrize(("given", "tokens"), [("512", 512), ("2K", 2048), ("2k", 2000), ("1.5k", 1500)])
def test_a_number_of_tokens_is_read_as_vllm_reads_it(plan: Plan, given: str, tokens: int) -> None:
    # Few sequences, so that the step and not the sampler is the peak: tokens x (3 hidden + 3 intermediate) x 2 bytes.
    found = plan(variant="w4a16", maxNumSeqs=1, extraArgs=["--max-num-batched-tokens", given])
    assert found.memory.activation_gib == pytest.approx(tokens * 3 * (5120 + 32768) * 2 / 2**30)


@pytest.mark.parametrize("given", ["abc", "0", "1.5K", "-2"])
def test_a_number_of_tokens_that_vllm_does_not_read_is_refused(plan: Plan, given: str) -> None:
    with pytest.raises(PlanError, match="--max-num-batched-tokens the value"):
        plan(variant="w4a16", extraArgs=[f"--max-num-batched-tokens={given}"])


def test_a_step_must_have_a_token_for_every_sequence(plan: Plan) -> None:
    found = plan(variant="w4a16", maxNumSeqs=64, extraArgs=["--max-num-batched-tokens", "32"])
    assert found.reason == "max_num_batched_tokens (32) must be greater than or equal to max_num_seqs (64)."


def test_offload_on_too_small_a_node_is_answered_with_a_larger_one(plan: Plan) -> None:
    asked = {"variant": "fp8", "cpuOffload": "auto", "maxNumSeqs": 16}
    found = plan(**asked, instance="g6.xlarge")
    assert not found.loads
    assert found.remedies[-1].change == "cpuOffload on g6.2xlarge"
    assert plan(**asked, instance="g6.2xlarge").fits_with_offload


def test_more_gpus_than_a_node_has_are_answered_with_a_node_that_has_them(plan: Plan) -> None:
    found = plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=8)
    assert found.reason == "g6.12xlarge has 4x L4, tensorParallelSize is 8"
    assert [remedy.change for remedy in found.remedies][:2] == ["BF16 on 4x L4", "BF16 on g6.48xlarge"]
    assert plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=4).fits


LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 8,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
}

COMPRESSED = "Quantization scheme is not supported for the current GPU. Min capability: 80. Current capability: 75."


@pytest.mark.parametrize(
    ("quantization", "old", "new"),
    [
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"type": "int", "num_bits": 4}}}},
            COMPRESSED,
            "",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"type": "int", "num_bits": 8}}}},
            COMPRESSED,
            "",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"type": "int", "num_bits": 8}, "input_activations": {"num_bits": 8}}},
            },
            "",
            "",
        ),
        ({"quant_method": "fp8"}, "The quantization method fp8 is not supported for the current GPU. Minimum capability: 80.", ""),
        ({"quant_method": "awq", "bits": 4}, "", ""),
        ({"quant_method": "gptq", "bits": 4}, "", ""),
    ],
    ids=["w4a16", "w8a16", "w8a8", "fp8", "awq", "gptq"],
)
def test_what_a_t4_can_load_depends_on_format_and_engine(
    tmp_path: Any, catalogue: Catalogue, quantization: dict[str, Any], old: str, new: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**LLAMA, "quantization_config": quantization}))
    for engine, says in (("vllm-0.11", old), ("vllm-0.33", new)):
        found = plan_checkpoint(Question(config=file, gpu="T4", engine=engine), catalogue).services[0]
        assert found.fits is (not says)
        assert says in found.reason


BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FBGEMM = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}


@pytest.mark.parametrize(
    ("method", "asked", "says"),
    [
        (BITSANDBYTES, {"engine": "vllm-0.33"}, "Unknown quantization method: bitsandbytes"),
        (BITSANDBYTES, {"engine": "vllm-0.11"}, ""),
        (BITSANDBYTES, {"engine": "vllm-0.11", "count": 2}, "Prequant BitsAndBytes models with tensor parallelism"),
        (FBGEMM, {"engine": "vllm-0.33"}, "fbgemm_fp8 is deprecated"),
        (FBGEMM, {"engine": "vllm-0.33", "extra_args": ("--allow-deprecated-quantization",)}, ""),
        (FBGEMM, {"engine": "vllm-0.11"}, ""),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}, {"engine": "vllm-0.33"}, ""),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, {"extra_args": ("--quantization", "awq_marlin")}, ""),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, {"extra_args": ("-q", "gptq_marlin")}, ""),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, {"extra_args": ("-q", "awq")}, "does not match"),
    ],
)
def test_a_method_is_one_that_the_engine_loads(of: Any, method: dict[str, Any], asked: dict[str, Any], says: str) -> None:
    found = of({**configs.LLAMA_8B, "quantization_config": method}, gpu="L40S", **asked)
    assert found.fits is (not says)
    assert says in found.reason


def test_a_family_without_float16_is_served_in_bfloat16_whatever_its_checkpoint_is_stored_in(of: Any) -> None:
    gemma = {**configs.GEMMA3_4B, "torch_dtype": "float16"}
    assert "--dtype" in of(gemma).args
    assert "bfloat16" in of(gemma).args
    assert "does not support float16" in of(gemma, precision="fp16").reason
    # On a card without bfloat16 neither way is left, and no advice leads to the other.
    old_card = of(gemma, gpu="T4").reason
    assert "no dtype is left" in old_card
    assert "--dtype=half" not in old_card
    assert "instead., " not in of(gemma, gpu="T4", precision="fp16").reason


@pytest.mark.parametrize(
    ("changes", "gpus", "says"),
    [
        # Qwen2-72B's MLP: 29,568 / 8 = 3,696, which is 28.9 groups of 128; over 4 it is 57.75; in 16 bits it can be cut.
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
            8,
            "input_size_per_partition = 3696 is not",
        ),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}, 8, "The input size is not aligned"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, 1, None),
        # One scale a row: the part needs whole tiles of Marlin's, 28.9 of 128 columns; in float16 Exllama multiplies it.
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": -1}}, 8, "min_thread_k = 128"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": -1}, "torch_dtype": "float16"}, 8, None),
        ({}, 8, None),
        ({"intermediate_size": 29570}, 4, "29570 is not divisible by 4"),
    ],
)
def test_what_cannot_be_cut_into_equal_parts_is_refused(
    tmp_path: Any, catalogue: Catalogue, changes: dict[str, Any], gpus: int, says: str | None
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**LLAMA, **changes}))
    found = plan_checkpoint(Question(config=file, count=gpus), catalogue).services[0]
    assert found.fits is (says is None)
    assert (says or "") in found.reason


def test_a_split_that_the_engine_refuses_is_answered_with_the_largest_that_it_takes(catalogue: Catalogue) -> None:
    found = asked(catalogue, gpu="L4", count=8, tensor_parallel_size=6, precision="w4a16")
    assert "must be divisible by tensor parallel size (6)" in found.reason
    assert found.remedies[0].change == "W4A16 on 4x L4"


def test_no_remedy_needs_an_instance_type_that_the_catalogue_lacks(plan: Plan, catalogue: Catalogue) -> None:
    most = {gpu: max((each.gpus for each in catalogue.instances.values() if each.gpu == gpu), default=0) for gpu in catalogue.gpus}
    assert (most["L40S"], most["A10G"]) == (4, 4)
    eight = plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=8)
    four = plan(variant="bf16", instance="g5.12xlarge", tensorParallelSize=4, maxModelLen=65536, gpuMemoryUtilization=0.5)
    assert eight.remedies
    for remedy in (*eight.remedies, *four.remedies):
        assert remedy.usd_per_hour is not None, remedy.change
