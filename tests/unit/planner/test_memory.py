from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mistral_on_l4.planner import ServicePlan
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.standalone import Question, plan_checkpoint

Plan = Callable[..., ServicePlan]


def test_fp8_does_not_fit_one_l4_whatever_the_flags(plan: Plan) -> None:
    for utilization in (0.85, 0.90, 0.95):
        for length in (4096, 8192, 32768):
            found = plan(variant="fp8", gpuMemoryUtilization=utilization, maxModelLen=length, kvCacheDtype="fp8", maxNumSeqs=16)
            assert not found.fits
            assert "23.21 GiB of weights, 22.03 GiB visible" in found.reason


def test_the_homes_that_the_facts_give_each_precision_do_fit(plan: Plan) -> None:
    assert plan(variant="w4a16").fits
    assert plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=4).fits
    assert plan(variant="fp8", instance="g6.12xlarge", tensorParallelSize=2).fits
    assert plan(variant="fp8", instance="g6e.xlarge").fits
    assert not plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=2).fits


# Published: rhoai3-demo's own log line, and the ranges of vLLM's formula with 1.0 to 1.6 GiB of activations.
KV = [
    ({"variant": "w4a16", "gpuMemoryUtilization": 0.85, "kvCacheDtype": "fp8"}, "g6.4xlarge", 56_032, 56_032),
    ({"variant": "w4a16"}, "g6.2xlarge", 34_000, 39_000),
    ({"variant": "w4a16", "kvCacheDtype": "fp8"}, "g6.2xlarge", 68_000, 78_000),
    ({"variant": "bf16", "tensorParallelSize": 4}, "g6.12xlarge", 190_000, 205_000),
    ({"variant": "fp8", "tensorParallelSize": 2}, "g6.12xlarge", 88_000, 88_000),
    ({"variant": "fp8", "tensorParallelSize": 2, "kvCacheDtype": "fp8"}, "g6.12xlarge", 176_000, 176_000),
    ({"variant": "fp8"}, "g6e.xlarge", 99_000, 99_000),
]


@pytest.mark.parametrize(("changes", "instance", "low", "high"), KV)
def test_the_kv_cache_is_within_ten_percent_of_what_was_published(
    plan: Plan, changes: dict[str, Any], instance: str, low: int, high: int
) -> None:
    assert low * 0.9 <= plan(instance=instance, **changes).kv_tokens <= high * 1.1


# vLLM's own memory report on H100 at utilization 0.90 (llm-d-benchmark): model, GPUs, GiB of KV cache per GPU.
REPORTS = [("llama-3.1-8b", 1, 51.38), ("qwen3-0.6b", 1, 64.45), ("qwen3-32b", 1, 4.45), ("llama-3.3-70b-fp8", 2, 32.0)]


@pytest.mark.parametrize(("model", "gpus", "kv_gib"), REPORTS)
def test_other_models_on_another_card_get_the_kv_cache_that_vllm_reported(
    catalogue: Catalogue, config: Callable[[str], Path], model: str, gpus: int, kv_gib: float
) -> None:
    question = Question(config=config(model), gpu="H100", count=gpus, max_model_len=16000, gpu_memory_utilization=0.9)
    found = plan_checkpoint(question, catalogue).services[0]
    assert found.fits
    assert found.memory.kv_gib == pytest.approx(kv_gib, rel=0.10)


def test_a_card_filled_by_weights_has_no_room_for_cache_blocks(catalogue: Catalogue, config: Callable[[str], Path]) -> None:
    question = Question(config=config("llama-3.3-70b-fp8"), gpu="H100", max_model_len=16000, gpu_memory_utilization=0.9)
    found = plan_checkpoint(question, catalogue).services[0]
    assert "No available memory for the cache blocks" in found.reason
    assert found.memory.kv_gib == pytest.approx(-1.44, abs=0.3)


def test_a_context_that_does_not_fit_names_the_one_that_does(plan: Plan) -> None:
    found = plan(variant="w4a16", gpuMemoryUtilization=0.70, maxModelLen=32768)
    assert not found.fits
    assert f"at most {found.kv_tokens} tokens" in found.reason
    length = next(int(each.change.split()[1]) for each in found.remedies if each.change.startswith("maxModelLen"))
    assert plan(variant="w4a16", gpuMemoryUtilization=0.70, maxModelLen=length).fits
    assert not plan(variant="w4a16", gpuMemoryUtilization=0.70, maxModelLen=length + 1024).fits


def test_graphs_decide_how_high_utilization_may_go_on_an_l4(plan: Plan) -> None:
    """rhoai3-demo: 0.95 ran out of memory in graph capture; 0.92 worked on one GPU, 0.90 on four."""
    full = {"variant": "bf16", "instance": "g6.12xlarge", "tensorParallelSize": 4}
    assert plan(gpuMemoryUtilization=0.92).fits
    assert "CUDA graphs" in plan(gpuMemoryUtilization=0.95).reason
    assert plan(gpuMemoryUtilization=0.95).remedies[0].change == "gpuMemoryUtilization 0.90"
    assert plan(gpuMemoryUtilization=0.95, extraArgs=["--enforce-eager"]).fits
    assert plan(**full, gpuMemoryUtilization=0.90).fits
    assert not plan(**full, gpuMemoryUtilization=0.92).fits
    assert "Free memory on device" in plan(gpuMemoryUtilization=0.98).reason


def test_the_default_utilization_is_never_too_high_for_graphs(catalogue: Catalogue) -> None:
    """Four T4 leave 1.46 GiB beside 0.90: people run vLLM so, and what contexts take of it was reported on cards with NVLink."""
    found = plan_checkpoint(Question(model="mistral-small-24b-instruct-2501", precision="half", gpu="T4", count=4), catalogue)
    assert found.services[0].fits


def test_a_newer_engine_takes_its_graphs_off_the_kv_cache(plan: Plan) -> None:
    def lost_to_graphs(engine: str) -> float:
        eager = plan(engine=engine, gpuMemoryUtilization=0.9, extraArgs=["--enforce-eager"])
        return eager.memory.kv_gib - plan(engine=engine, gpuMemoryUtilization=0.9).memory.kv_gib

    assert lost_to_graphs("vllm-0.11") == 0
    assert lost_to_graphs("vllm-0.33") == pytest.approx(plan(engine="vllm-0.33").memory.graphs_gib)


def test_fewer_sequences_leave_more_kv_cache(plan: Plan) -> None:
    assert plan(maxNumSeqs=16).kv_tokens > plan().kv_tokens


def test_auto_takes_the_smallest_offload_that_loads(plan: Plan) -> None:
    wanted = {"variant": "fp8", "kvCacheDtype": "fp8", "maxNumSeqs": 16}
    found = plan(**wanted, cpuOffload="auto")
    assert (found.fits, found.fits_with_offload, found.cpu_offload_gib) == (False, True, 5.0)
    assert "--cpu-offload-gb 5 " in " ".join(found.args) + " "
    assert plan(**wanted, cpuOffload=5).fits_with_offload
    assert not plan(**wanted, cpuOffload=4.5).fits_with_offload
    assert plan(**wanted, cpuOffload="auto", maxModelLen=32768).cpu_offload_gib > 5.0


def test_an_offload_is_slow_within_a_range_that_is_marked_unmeasured(plan: Plan) -> None:
    found = plan(variant="fp8", kvCacheDtype="fp8", maxNumSeqs=16, cpuOffload="auto")
    assert found.offload
    assert found.offload.unmeasured
    assert found.offload.step_ms == (pytest.approx(413, abs=1), pytest.approx(537, abs=1))
    low, high = found.offload.tpot_ms
    assert low < found.at(1).tpot_ms < high
    assert any("unmeasured" in warning for warning in found.warnings)
    assert found.remedies[0].change == "W4A16 on 1x L4"


def test_what_fits_needs_no_offload_even_if_it_may(plan: Plan) -> None:
    found = plan(variant="w4a16", cpuOffload="auto")
    assert (found.fits, found.fits_with_offload, found.offload) == (True, True, None)
    assert "--cpu-offload-gb" not in found.args


def test_an_offload_that_the_engine_ignores_is_a_misfit(plan: Plan) -> None:
    found = plan(variant="fp8", kvCacheDtype="fp8", maxNumSeqs=16, cpuOffload="auto", engine="vllm-0.20")
    assert not found.loads
    assert "ignores it" in found.reason
    assert not any("cpuOffload" in remedy.change for remedy in found.remedies)


def test_int4_weights_are_repacked_so_the_old_engine_loses_their_offload(plan: Plan) -> None:
    asked = {"variant": "w4a16", "cpuOffload": 2.0}
    assert "repacks INT4" in plan(**asked).reason
    assert plan(**asked, engine="vllm-0.33").fits_with_offload


def test_pinned_weights_need_a_node_with_memory_for_them(plan: Plan) -> None:
    found = plan(variant="fp8", instance="g6.xlarge", kvCacheDtype="fp8", maxNumSeqs=16, cpuOffload="auto")
    assert not found.loads
    assert "g6.xlarge leaves" in found.reason


GEMMA = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_size": 5376,
    "intermediate_size": 21504,
    "num_hidden_layers": 62,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "sliding_window": 1024,
}


def test_layers_with_a_window_need_cache_for_it_and_a_step_alone(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(GEMMA))

    def planned(length: int) -> ServicePlan:
        return plan_checkpoint(Question(config=file, precision="w4a16", max_model_len=length), catalogue).services[0]

    # By hand: 8,192 bytes per token and layer; 10 full layers of 8,192 tokens, 52 of 1,023 + 2,048 tokens in blocks and one more,
    # in groups of 10 layers, of which the last is padded: vLLM's log warns of 8 padding layers.
    needed = (10 * 8192 + 60 * (3072 + 16)) * 8192 / 2**30
    found = planned(8192)
    assert found.fits
    assert f"{found.memory.kv_gib / needed:.1f} requests of the greatest length" in found.reason
    longer = planned(32768)
    assert not longer.fits
    shorter = next(remedy.change for remedy in longer.remedies if remedy.change.startswith("maxModelLen "))
    length = int(shorter.removeprefix("maxModelLen "))
    assert length > found.kv_tokens  # what it would be if every layer kept every token
    assert planned(length).fits
    assert not planned(length + 512).fits


def test_an_offload_that_cannot_be_had_is_left_out_where_all_weights_fit(plan: Plan) -> None:
    found = plan(variant="bf16", instance="g6.12xlarge", tensorParallelSize=4, cpuOffload=100)
    assert found.loads
    assert "--cpu-offload-gb" not in found.args
    assert found.reason.startswith("all weights fit the GPU, and cpuOffload is left out: cpuOffload 100.0 GiB is more than")


def test_an_a100_gets_the_defaults_of_small_cards_however_much_memory_it_has(catalogue: Catalogue) -> None:
    def activation(gpu: str) -> float:
        return (
            plan_checkpoint(Question(model="mistral-small-24b-instruct-2501", gpu=gpu), catalogue).services[0].memory.activation_gib
        )

    assert activation("A100-80GB") == activation("L4")
    assert activation("H100") > 3 * activation("A100-80GB")


def test_a_step_of_few_tokens_lets_few_sequences_run(plan: Plan) -> None:
    # 64 sequences x 131,072 logits x 38.4 bytes; by default it would be 256.
    few = plan(variant="w4a16", extraArgs=["--max-num-batched-tokens", "64"])
    assert few.memory.activation_gib == pytest.approx(64 * 131072 * 38.4 / 2**30)


def test_an_engine_that_schedules_ahead_needs_more_cache_for_a_window(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(GEMMA))

    def tokens_beyond(engine: str) -> float:
        question = Question(config=file, precision="w4a16", engine=engine, max_model_len=8192, gpu="L40S")
        found = plan_checkpoint(question, catalogue).services[0]
        requests = float(found.reason.partition(" tokens, ")[2].partition(" requests")[0])
        return found.memory.kv_gib / requests * 2**30 / 8192  # layer-tokens of one request

    # By hand: 10 full layers of 8,192 tokens, and 52 (padded to 60) of 1,023 + 2,048 or + 4,096 in whole blocks and one.
    assert tokens_beyond("vllm-0.11") == pytest.approx(10 * 8192 + 60 * (3072 + 16), rel=0.01)
    assert tokens_beyond("vllm-0.33") == pytest.approx(10 * 8192 + 60 * (5120 + 16), rel=0.01)
