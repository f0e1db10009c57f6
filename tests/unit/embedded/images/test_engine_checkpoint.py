"""What the engine's stand-in refuses after a look into the model folder."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from embedded.images.engine import flags
from embedded.images.engine.checkpoint import Loaded, check

TABLE = flags.table("0.11.0")
CONFIG: dict[str, Any] = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 32768,
}
FP8 = {"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}
LAYER = "model.layers.{}.{}.weight"


def shard(path: Path, *names: str) -> None:
    header = {name: {"dtype": "BF16", "shape": [2], "data_offsets": [4 * at, 4 * at + 4]} for at, name in enumerate(names)}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * len(names)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a configuration and two shards; the second has one whole weight of vLLM's, and a part of another."""
    first = [LAYER.format(0, "self_attn.q_proj"), LAYER.format(0, "self_attn.k_proj")]
    second = [LAYER.format(0, "self_attn.v_proj"), LAYER.format(0, "self_attn.o_proj")]
    shard(tmp_path / "model-00001-of-00002.safetensors", *first)
    shard(tmp_path / "model-00002-of-00002.safetensors", *second)
    weights = dict.fromkeys(first, "model-00001-of-00002.safetensors")
    weights |= dict.fromkeys(second, "model-00002-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def loaded(model: Path, *words: str, **environment: str) -> Loaded:
    return check(flags.parse(words, TABLE, "api_server.py"), str(model), TABLE, environment)


def refusal(model: Path, *words: str, **environment: str) -> str:
    with pytest.raises(flags.Refused) as refused:
        loaded(model, *words, **environment)
    return "\n".join(refused.value.lines)


def quantized(model: Path) -> Path:
    (model / "config.json").write_text(json.dumps(CONFIG | FP8))
    return model


def test_defaults_come_from_the_model_and_from_vllm(model: Path) -> None:
    found = loaded(model)
    assert (found.max_model_len, found.max_num_seqs, found.quantization, len(found.shards)) == (32768, 256, None, 2)


def test_the_detected_quantization_may_be_named_and_no_other(model: Path) -> None:
    quantized(model)
    assert loaded(model).quantization == "compressed-tensors"
    assert loaded(model, "--quantization", "Compressed-Tensors").quantization == "compressed-tensors"
    said = refusal(model, "--quantization", "fp8")
    assert "1 validation error for ModelConfig" in said
    assert "(compressed-tensors) does not match the quantization method specified in the `quantization` argument (fp8)." in said


def test_an_unquantized_model_may_be_quantized_by_any_method_there_is(model: Path) -> None:
    assert loaded(model, "-q", "fp8").quantization == "fp8"
    assert "Unknown quantization method: fp9. Must be one of ['awq'," in refusal(model, "-q", "fp9")


def test_the_context_is_no_longer_than_the_models(model: Path) -> None:
    assert loaded(model, "--max-model-len", "32768").max_model_len == 32768
    said = refusal(model, "--max-model-len", "32769")
    assert "(32769) is greater than the derived max_model_len (max_position_embeddings=32768 or model_max_length=None" in said
    assert loaded(model, "--max-model-len", "65536", VLLM_ALLOW_LONG_MAX_MODEL_LEN="1").max_model_len == 65536


def test_rope_scaling_lengthens_the_context(model: Path) -> None:
    scaled = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}}
    (model / "config.json").write_text(json.dumps(CONFIG | scaled))
    assert loaded(model).max_model_len == 32768
    assert "is greater than" in refusal(model, "--max-model-len", "32769")


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32])
def test_heads_that_divide_are_served(model: Path, size: int) -> None:
    loaded(model, "-tp", str(size))


@pytest.mark.parametrize("size", [3, 5, 12, 64])
def test_heads_that_do_not_divide_are_refused(model: Path, size: int) -> None:
    assert f"attention heads (32) must be divisible by tensor parallel size ({size})." in refusal(model, "-tp", str(size))


def test_key_value_heads_must_divide_too(model: Path) -> None:
    (model / "config.json").write_text(json.dumps(CONFIG | {"num_key_value_heads": 6}))
    assert "6 KV heads" in refusal(model, "-tp", "4")


def test_float32_does_not_go_with_a_quantized_checkpoint(model: Path) -> None:
    loaded(model, "--dtype", "float32")
    quantized(model)
    loaded(model, "--dtype", "half")
    assert "torch.float32 is not supported for quantization method compressed-tensors." in refusal(model, "--dtype", "float32")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gpu-memory-utilization", "1.5"], "GPU memory utilization must be less than 1.0. Got 1.5."),
        (["--cpu-offload-gb=-1"], "CPU offload space must be non-negative, but got -1.0"),
        (["--max-num-batched-tokens", "8"], None),
        (["--max-num-batched-tokens", "8", "--max-num-seqs", "9"], "max_num_batched_tokens (8) must be greater than or equal to"),
        (["--load-format", "floppy"], "Load format `floppy` is not supported"),
        (["--config-format", "odd"], "Unknown config format `odd`."),
    ],
)
def test_values_out_of_range_are_refused_with_vllms_sentence(model: Path, words: list[str], sentence: str | None) -> None:
    if sentence is None:
        assert loaded(model, *words).max_num_seqs == 8
    else:
        assert sentence in refusal(model, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu-memory-utilization", "1.5"], ["CacheConfig", "gpu_memory_utilization", "Input should be less than or equal to 1"]),
        (["--gpu-memory-utilization", "0"], ["CacheConfig", "gpu_memory_utilization", "Input should be greater than 0"]),
        (["--cpu-offload-gb=-1"], ["UVAOffloadConfig", "cpu_offload_gb", "Input should be greater than or equal to 0"]),
        (["-tp", "0"], ["ParallelConfig", "tensor_parallel_size", "Input should be greater than or equal to 1"]),
        (["--max-model-len", "-2"], ["ModelConfig", "max_model_len", "Input should be greater than or equal to -1"]),
    ],
)
def test_the_newer_version_says_it_in_pydantics_words(model: Path, words: list[str], said: list[str]) -> None:
    newer = flags.table("0.33.0")
    with pytest.raises(flags.Refused) as refused:
        check(flags.parse(words, newer, "api_server.py"), str(model), newer, {})
    lines = refused.value.lines
    assert [lines[0].rpartition(" ")[2], lines[1], lines[2].strip()] == said


def test_the_newer_version_takes_the_models_length_for_auto(model: Path) -> None:
    newer = flags.table("0.33.0")
    given = flags.parse(["--max-model-len", "auto"], newer, "api_server.py")
    assert check(given, str(model), newer, {}).max_model_len == 32768


def test_a_folder_without_configuration_is_refused_and_shown(model: Path, tmp_path: Path) -> None:
    (model / "config.json").unlink()
    said = refusal(model)
    assert f"Invalid repository ID or local directory specified: '{model}'." in said
    assert "holds model-00001-of-00002.safetensors" in said
    assert "is no folder" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refusal(tmp_path / "empty")


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"'])
def test_a_configuration_that_is_no_json_object_is_refused(model: Path, text: str) -> None:
    (model / "config.json").write_text(text)
    assert "is not a valid JSON file" in refusal(model)


def test_weights_that_no_file_holds_are_refused(model: Path) -> None:
    for file in model.glob("*.safetensors"):
        file.unlink()
    assert refusal(model) == f"RuntimeError: Cannot find any model weights with `{model}`"
    # A file in the other format does not count: it is not in the index.
    shutil.copy(model / "config.json", model / "consolidated.safetensors")
    assert "Cannot find any model weights" in refusal(model)


def test_an_absent_shard_is_refused_as_far_as_vllm_notices(model: Path) -> None:
    (model / "model-00002-of-00002.safetensors").unlink()
    # v_proj is a part of qkv_proj, of which other parts are there.
    assert refusal(model).endswith("were not initialized from checkpoint: {'model.layers.0.self_attn.o_proj.weight'}")
    notes = loaded(quantized(model)).notes
    assert len(notes) == 1
    assert notes[0].startswith("model-00002-of-00002.safetensors of model.safetensors.index.json is not there")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: data[:-1], "incomplete metadata, file not fully covered"),
        (lambda data: data + b"x", "incomplete metadata, file not fully covered"),
        (lambda data: data[:20], "invalid header length"),
        (lambda data: data[:4], "header too small"),
        (lambda data: b"\xff" * 8 + data[8:], "header too large"),
        (lambda data: data[:8] + b"x" + data[9:], "invalid JSON in header"),
    ],
)
def test_a_damaged_shard_is_refused(model: Path, damage: Any, sentence: str) -> None:
    file = model / "model-00001-of-00002.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert f"Error while deserializing header: {sentence}" in refusal(model)
