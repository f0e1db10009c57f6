from __future__ import annotations

from typing import Any

import pytest

from bench.plan import configs
from mistral_on_l4.planner import NotComputed
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.config_json import architecture_from
from mistral_on_l4.planner.memory import activation_gib, workspace_gib
from mistral_on_l4.planner.quantization import quantization_from
from mistral_on_l4.planner.splits import uneven_split
from mistral_on_l4.planner.standalone import Question
from mistral_on_l4.planner.standalone import request_of as asked_of

PARAMETERS = 48 * 128 * 3 * 768 * 2048  # of all experts of Qwen3-30B-A3B


@pytest.fixture
def request_of(of_file: Any, catalogue: Catalogue) -> Any:
    """request_of(config, count=4, ...) -> the ServiceRequest that `demo plan --config` plans."""
    return lambda config, **asked: asked_of(Question(config=of_file(config), **asked), catalogue)


@pytest.mark.parametrize(
    ("config", "bytes_per_group"), [(configs.QWEN3_30B_AWQ, 2.5), (configs.QWEN3_30B_GPTQ, 2.0)], ids=["awq", "gptq"]
)
def test_groups_of_experts_are_halved_until_no_gpu_cuts_them(request_of: Any, config: Any, bytes_per_group: float) -> None:
    # 768 / 4 = 192 columns: groups of 64 instead of 128, so each scale (and zero point) is there twice.
    halved, whole = request_of(config, count=4, engine="vllm-0.33"), request_of(config, count=2, engine="vllm-0.33")
    assert uneven_split(halved) is None
    found = (workspace_gib(halved) - workspace_gib(whole)) * 2**30
    assert found == pytest.approx(PARAMETERS * (1 / 64 - 1 / 128) * bytes_per_group / 4)


def test_the_older_kernel_of_small_batches_wants_whole_blocks_of_experts(request_of: Any) -> None:
    assert "size_k must divisible by BLOCK_SIZE_K" in str(uneven_split(request_of(configs.QWEN3_30B_AWQ, count=4)))
    assert uneven_split(request_of(configs.QWEN3_30B_AWQ, count=2)) is None
    # Eight bits take another kernel.
    eight = {**configs.QWEN3_30B, "quantization_config": {**configs.GPTQ, "bits": 8}}
    assert uneven_split(request_of(eight, count=4)) is None


def test_experts_that_stay_whole_cut_no_group(request_of: Any) -> None:
    whole = request_of(configs.QWEN3_30B_AWQ, count=4, extra_args=("--enable-expert-parallel",))
    assert workspace_gib(whole) == 0


def test_a_dense_model_has_no_experts_to_keep_whole(of: Any) -> None:
    assert "Number of experts" in of(configs.LLAMA_8B, gpu="L40S", extra_args=("--enable-expert-parallel",)).reason


def test_a_step_of_a_mixture_holds_the_outputs_of_all_experts_that_a_token_takes(request_of: Any) -> None:
    # Few sequences, so that the step and not the sampler is the peak: 3h, and per expert an output (wider than gate and up) and i.
    few = request_of(configs.QWEN3_30B, count=4, max_num_seqs=1)
    assert activation_gib(few) == pytest.approx(2048 * (3 * 2048 + 8 * (2048 + 192)) * 2 / 2**30)


def test_a_kv_head_is_on_every_gpu_where_there_are_more_gpus_than_heads(request_of: Any) -> None:
    # Two heads over eight GPUs: each has a whole one's k and v, 2 x 32 layers x 128 rows x 4,096 columns x 2 bytes.
    few = {**configs.LLAMA_8B, "num_key_value_heads": 2}
    weights = request_of(few, count=8).weights
    kv = 2 * 32 * 128 * 4096 * 2
    even = (weights.total_bytes - weights.norm_bytes - 2 * kv) / 8 + weights.norm_bytes + kv
    assert weights.per_gpu_bytes(8) == pytest.approx(even)
    assert weights.per_gpu_bytes(2) == pytest.approx((weights.total_bytes - weights.norm_bytes) / 2 + weights.norm_bytes)


def test_zero_points_count_where_they_are_loaded() -> None:
    def zeros(**changes: Any) -> bool:
        return quantization_from({"quantization_config": {**configs.GPTQ, **changes}}, "x").zeros

    assert not zeros()
    assert zeros(sym=False)
    assert quantization_from({"quantization_config": configs.AWQ}, "x").zeros


@pytest.mark.parametrize(
    ("rules", "partly"),
    [
        ({"dynamic": {"-:.*\\.mlp\\.gate$": {}, "lm_head": {}}}, False),
        ({"dynamic": {"-:.*visual.*": {}}}, False),
        ({"dynamic": {"-:.*attn.*": {}}}, True),
        ({"dynamic": {"+:.*\\.(?:1[0-5])\\..*": {"bits": 8}}}, True),
        ({"extra_config": {"model.layers.0.mlp.shared_expert_gate": {"bits": 16}}}, False),
        ({"extra_config": {"model.layers.3.self_attn.q_proj": {"bits": 16}}}, True),
    ],
)
def test_rules_by_module_leave_the_size_to_the_headers(rules: Any, partly: bool) -> None:
    assert quantization_from({"quantization_config": {**configs.GPTQ, **rules}}, "x").partly is partly


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "marlin-24"},
        {"sparsity_config": {"format": "sparse-24-bitmask", "sparsity_structure": "2:4", "targets": ["Linear"]}},
        {"config_groups": {"group_0": {**configs.W4A16["config_groups"]["group_0"], "format": "marlin-24"}}},
    ],
)
def test_sparse_weights_are_not_computed(changes: Any) -> None:
    with pytest.raises(NotComputed, match="sparse"):
        quantization_from({"quantization_config": {**configs.W4A16, **changes}}, "x")


def test_a_dense_checkpoint_with_an_empty_sparsity_config_is_computed() -> None:
    dense = {"format": "dense", "global_sparsity": 0.14, "sparsity_structure": "unstructured", "targets": [], "ignore": []}
    assert quantization_from({"quantization_config": {**configs.W4A16, "sparsity_config": dense}}, "x").scheme == "int4"


@pytest.mark.parametrize(
    "kept",
    [["model.layers.0.self_attn.q_proj"], ["re:.*layers\\.0\\..*"], ["model.layers.3"], ["re:.*shared_expert.*"], ["q_proj"]],
)
def test_what_is_kept_of_decoder_layers_leaves_the_size_to_the_headers(kept: list[str]) -> None:
    for config in ({**configs.BLOCK_FP8, "modules_to_not_convert": kept}, {**configs.W4A16, "ignore": ["lm_head", *kept]}):
        assert quantization_from({"quantization_config": config}, "x").partly
    assert quantization_from({"quantization_config": {"quant_method": "fbgemm_fp8", "modules_to_not_convert": kept}}, "x").partly


def test_what_is_never_quantized_may_be_listed() -> None:
    kept = ["lm_head", "re:.*mlp.gate$", "model.layers.0.mlp.gate", "gate", "re:vision_tower.*", "multi_modal_projector", "visual"]
    kept += [
        "model.embed_tokens",
        "model.layers.0.input_layernorm",
        "re:.*router",
        "model.layers.0.mlp.shared_expert_gate",
        "mtp.fc",
    ]
    assert not quantization_from({"quantization_config": {**configs.W4A16, "ignore": kept}}, "x").partly


@pytest.mark.parametrize(
    "changed",
    [
        {"quant_method": "auto-round", "bits": 4, "group_size": 32, "data_type": "mx_fp"},
        {
            **configs.W4A16,
            "config_groups": {"g": {**configs.W4A16["config_groups"]["group_0"], "input_activations": {"num_bits": 8}}},
        },
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "NVFP4"},
    ],
)
def test_formats_with_kernels_of_their_own_are_not_computed(changed: Any) -> None:
    with pytest.raises(NotComputed):
        quantization_from({"quantization_config": changed}, "x")


def test_a_head_is_tied_where_the_remote_class_ties_it() -> None:
    minicpm = {**configs.LLAMA_8B, "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm"}
    del minicpm["tie_word_embeddings"]
    assert architecture_from(minicpm, "x").tied_embeddings
    assert not architecture_from({**minicpm, "tie_word_embeddings": False}, "x").tied_embeddings


def test_dense_layers_of_llama_4_have_a_width_of_their_own() -> None:
    guard = {**configs.LLAMA_8B, "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "num_local_experts": 0}
    assert architecture_from({**guard, "intermediate_size_mlp": 16384}, "x").intermediate == 16384


def test_heads_that_no_kv_head_serves_evenly_are_refused(of: Any) -> None:
    assert "is not divisible by num_kv_heads" in of({**configs.LLAMA_8B, "num_key_value_heads": 5}, gpu="L40S").reason


def test_a_cache_scheme_of_compressed_tensors_is_followed_by_the_newer_engine(of: Any) -> None:
    kept = {**configs.CHANNEL_FP8, "kv_cache_scheme": {"num_bits": 8, "type": "float", "strategy": "tensor"}}
    older, newer = (of({**configs.LLAMA_8B, "quantization_config": kept}, engine=name) for name in ("vllm-0.11", "vllm-0.33"))
    assert older.memory.kv_bytes_per_token == 2 * newer.memory.kv_bytes_per_token
    assert any("takes one if --kv-cache-dtype says so" in warning for warning in older.warnings)
    assert any("since the checkpoint says so" in warning for warning in newer.warnings)
