from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hf_mem.safetensors.kv_cache import compute_safetensors_kv_cache_size
from hf_mem.safetensors.metadata import parse_safetensors_metadata

from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.catalogue.schema import Architecture, Quantization
from mistral_on_l4.planner.checkpoint import Weights, kv_bytes_per_token, weights_of

ROOT = Path(__file__).parents[3]
MISTRAL = "mistral-small-24b-instruct-2501"
# GB as the hub lists the files: BF16 as consolidated.safetensors, FP8 as the sum of its six shards, W4A16 by the exact shapes.
LISTED = {"bf16": (47.1, 0.001), "fp8": (4.90 + 4.84 + 4.98 + 5.00 + 3.87 + 1.34, 0.001), "w4a16": (14.147430, 0.005)}


def weights(catalogue: Catalogue, variant: str) -> Weights:
    model = catalogue.models[MISTRAL]
    return weights_of(model.architecture, dict(model.variants.items())[variant].quantization)  # type: ignore[index]


@pytest.mark.parametrize("variant", LISTED)
def test_a_checkpoint_has_the_bytes_that_the_hub_lists(catalogue: Catalogue, variant: str) -> None:
    listed, tolerance = LISTED[variant]
    assert weights(catalogue, variant).total_bytes / 1e9 == pytest.approx(listed, rel=tolerance)


@pytest.mark.parametrize("variant", LISTED)
def test_hf_mem_counts_the_same_bytes_in_the_headers(catalogue: Catalogue, header: Callable[[str], Any], variant: str) -> None:
    counted = parse_safetensors_metadata({"Transformer": header(variant)}).bytes_count
    # The planner leaves out the two integers per matrix that say its unpacked shape.
    shapes = 40 * 7 * 2 * 8 if variant == "w4a16" else 0
    assert weights(catalogue, variant).total_bytes == counted - shapes


@pytest.mark.parametrize(("dtype", "theirs"), [("auto", "BF16"), ("fp8", "F8_E4M3")])
def test_hf_mem_counts_the_same_kv_cache(catalogue: Catalogue, dtype: str, theirs: str) -> None:
    config = {"hidden_size": 5120, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 40}
    expected = compute_safetensors_kv_cache_size(config, theirs, 8192)
    assert kv_bytes_per_token(catalogue.models[MISTRAL].architecture, dtype, 1) * 8192 == expected


def test_tensor_parallelism_splits_the_kv_heads_until_each_gpu_has_one(catalogue: Catalogue) -> None:
    shape = catalogue.models[MISTRAL].architecture
    assert [kv_bytes_per_token(shape, "auto", gpus) for gpus in (1, 2, 4, 8, 16)] == [163840, 81920, 40960, 20480, 20480]


def test_parts_of_all_gpus_add_up_to_the_checkpoint_and_the_norms_of_each(catalogue: Catalogue) -> None:
    whole = weights(catalogue, "bf16")
    assert 4 * whole.per_gpu_bytes(4) == whole.total_bytes + 3 * whole.norm_bytes


def test_decoding_reads_everything_but_the_embedding(catalogue: Catalogue) -> None:
    whole = weights(catalogue, "bf16")
    assert whole.read_bytes(1, 1) == whole.total_bytes - 131072 * 5120 * 2


def test_a_tied_embedding_is_held_once_and_read_as_the_head() -> None:
    shape = {"family": "X", "layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "intermediate": 128}
    shape |= {"vocabulary": 1000, "max_positions": 512}
    tied = weights_of(Architecture(**shape, tied_embeddings=True), Quantization())  # type: ignore[arg-type]
    untied = weights_of(Architecture(**shape), Quantization())  # type: ignore[arg-type]
    assert untied.total_bytes - tied.total_bytes == 1000 * 64 * 2
    assert tied.read_bytes(1, 1) == untied.read_bytes(1, 1)


def test_a_step_of_a_mixture_reads_more_experts_the_more_requests_it_serves() -> None:
    shape = Architecture(
        family="M",
        layers=2,
        hidden=64,
        heads=4,
        kv_heads=2,
        head_dim=16,
        intermediate=128,
        vocabulary=1000,
        max_positions=512,
        experts=8,
        experts_per_token=2,
    )
    mixture = weights_of(shape, Quantization())
    one, many = mixture.read_bytes(1, 1), mixture.read_bytes(1, 64)
    assert mixture.expert_bytes / 4 == pytest.approx(one - (mixture.read_bytes(1, 10**6) - mixture.expert_bytes))
    assert one < many < mixture.total_bytes


@pytest.mark.parametrize(("variant", "gpus"), [("fp8", 1), ("w4a16", 1), ("bf16", 4), ("bf16", 1)])
def test_the_proof_on_a_gpu_builds_the_planners_bytes(catalogue: Catalogue, variant: str, gpus: int) -> None:
    from bench.gpu import shapes

    assert sum(tensor.size for tensor in shapes.tensors(variant, gpus)) == weights(catalogue, variant).per_gpu_bytes(gpus)


def test_the_proof_carries_what_the_planner_says_today() -> None:
    from bench.gpu import predict

    assert json.loads(predict.FILE.read_text()) == json.loads(json.dumps(predict.prediction()))


def test_the_h100_agreed_with_the_planner() -> None:
    result = json.loads((ROOT / "bench/gpu/results/h100.json").read_text())
    for case in result["cases"].values():
        assert case["loads"] == case["predicted"]["loads"]
        if case["loads"]:
            assert case["remainder_gib"] == pytest.approx(case["predicted"]["remainder_gib"], abs=0.05)
    assert result["cases"]["fp8"]["failed_at"] == "lm_head"
