from __future__ import annotations

import hashlib

import pytest

from mistral_on_l4.jobs.weights_files import Digest, HubFile, combined_digest, missing_shards, select, selected
from mistral_on_l4.jobs.weights_limits import MIB, Failure, Limits, Stop, Stopped


@pytest.mark.parametrize(
    "path",
    [
        "model-00001-of-00010.safetensors",
        "model.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "tekken.json",
        "tokenizer.model",
        "tokenizer.model.v3",
        "chat_template.jinja",
        "merges.txt",
    ],
)
def test_what_vllm_loads_in_hugging_faces_format_is_brought(path: str) -> None:
    assert selected(path)


@pytest.mark.parametrize(
    "path",
    [
        "consolidated.safetensors",
        "consolidated-00001-of-00002.safetensors",
        "params.json",
        "model-Q4_K_M.gguf",
        "original/model.safetensors",
        "original/params.json",
        "onnx/model.json",
        "pytorch_model.bin",
        "README.md",
        ".gitattributes",
        "recipe.yaml",
        "modeling.py",
    ],
)
def test_a_second_copy_of_the_weights_and_everything_else_stays_behind(path: str) -> None:
    assert not selected(path)


def file(path: str, size: int = 1) -> HubFile:
    return HubFile(path, size, None, "0" * 40)


def test_a_repository_without_shards_or_config_is_no_checkpoint() -> None:
    with pytest.raises(Failure, match="no checkpoint in Hugging Face's format"):
        select("o/r", [file("model.safetensors")])
    with pytest.raises(Failure, match="no checkpoint in Hugging Face's format"):
        select("o/r", [file("config.json"), file("consolidated.safetensors")])


def test_shards_without_an_index_are_refused() -> None:
    with pytest.raises(Failure, match=r"without model\.safetensors\.index\.json"):
        select("o/r", [file("config.json"), file("model-00001-of-00002.safetensors")])


def test_a_shard_that_the_index_names_and_nobody_has_is_found() -> None:
    assert missing_shards({"a": "one", "b": "two", "c": "one"}, ["one", "config.json"]) == ["two"]


def test_a_git_blob_is_proven_by_gits_own_id() -> None:
    content = b'{"a": 1}\n'
    blob = hashlib.sha1(b"blob 9\0" + content, usedforsecurity=False).hexdigest()
    digest = Digest(HubFile("config.json", 9, None, blob))
    digest.update(content)
    assert digest.problem() is None
    assert digest.sha256 == hashlib.sha256(content).hexdigest()
    wrong = Digest(HubFile("config.json", 9, None, blob))
    wrong.update(b'{"a": 2}\n')
    assert "git SHA-1" in (wrong.problem() or "")


def test_the_digest_of_a_checkpoint_depends_on_every_name_size_and_content_and_on_no_order() -> None:
    files = [("a", 1, "0" * 64), ("b", 2, "1" * 64)]
    base = combined_digest(files)
    assert combined_digest(reversed(files)) == base
    for changed in (("c", 2, "1" * 64), ("b", 3, "1" * 64), ("b", 2, "2" * 64)):
        assert combined_digest([files[0], changed]) != base


@pytest.mark.parametrize("size", [0, 1, 16 * MIB, 5 * 10**9, 156 * 2**30, 157 * 2**30, 5 * 2**40])
def test_no_file_needs_more_parts_than_s3_allows(size: int) -> None:
    part = Limits().part_bytes(size)
    assert -(-size // part) <= 10_000
    assert part % MIB == 0
    assert part >= 16 * MIB


def test_memory_at_defaults_stays_far_below_the_pods_limit() -> None:
    assert Limits().buffer_bytes == 384 * MIB


def test_pauses_double_with_jitter_up_to_a_bound_and_give_the_server_what_it_asks() -> None:
    limits = Limits(pause_seconds=1.0, pause_most_seconds=10.0)
    for tries, longest in ((1, 1.0), (2, 2.0), (4, 8.0), (9, 10.0)):
        drawn = {limits.pause(tries) for _ in range(200)}
        assert longest / 2 <= min(drawn) < max(drawn) <= longest
    assert limits.pause(1, asked=42.0) == 42.0


def test_whoever_sleeps_is_woken_when_it_is_over_and_the_first_reason_counts() -> None:
    stop = Stop()
    stop.because(Failure("first"))
    stop.because(Failure("second"))
    with pytest.raises(Stopped):
        stop.sleep(60)
    assert str(stop.reason) == "first"
