"""Rows of bench/plan/rows.py: bytes of weights per GPU, and sizes of KV caches."""

from __future__ import annotations

from bench.plan import configs as c
from bench.plan.rows import MISTRAL, NEW, Row

H100 = "h100-vllm-memory"
STUDY = "https://github.com/akamaslabs/vllm-benchmark"
HUB = "https://huggingface.co"


def _weights(label: str, model: c.Config | str, gib: float, source: str, **asked: object) -> Row:
    return Row("weights", label, model, gib, source, {"gpu": "H100", "max_model_len": 2048, **asked})


def _h100(label: str, model: c.Config, gib: float, **asked: object) -> Row:
    return Row("kv GiB", label, model, gib, H100, {"gpu": "H100", "max_model_len": 16000, "gpu_memory_utilization": 0.9, **asked})


MEMORY = [
    _weights("Mistral 24B BF16, file list", MISTRAL, 47.14e9 / 2**30, "mistral-bf16-files"),
    _weights("Mistral 24B FP8, file list", MISTRAL, 24.93e9 / 2**30, "mistral-fp8-files", precision="fp8"),
    _weights("Mistral 24B W4A16", MISTRAL, 14.15e9 / 2**30, "mistral-w4a16-card", precision="w4a16"),
    _weights("Llama 3.1 8B, vLLM's log", c.LLAMA_8B, 14.99, H100),
    _weights("Llama 3.3 70B FP8, vLLM's log", c.LLAMA_70B_FP8, 67.72, H100),
    _weights("Llama 3.3 70B FP8 over 2, vLLM's log", c.LLAMA_70B_FP8, 33.88, H100, count=2),
    _weights("Qwen3 0.6B, vLLM's log", c.QWEN3_06B, 1.12, H100),
    _weights("Qwen3 32B, vLLM's log", c.QWEN3_32B, 61.03, H100),
    _weights("Qwen2.5 7B, vLLM's log", c.QWEN25_7B, 14.25, f"{HUB}/Qwen/Qwen2.5-7B-Instruct"),
    _weights("Qwen2.5 14B over 2, vLLM's log", c.QWEN25_14B, 13.9476, "https://github.com/vllm-project/vllm/issues/13061", count=2),
    _weights("Qwen3 8B block FP8", c.QWEN3_8B_FP8, 8.79, "g6-link"),
    _weights("Qwen3 30B-A3B BF16", c.QWEN3_30B, 56.87, "l4-moe-memory"),
    _weights("Qwen3 30B-A3B block FP8", c.QWEN3_30B_FP8, 29.03, "l4-moe-memory"),
    _weights("Qwen3 30B-A3B block FP8 over 2", c.QWEN3_30B_FP8, 14.5, "l4-moe-memory", count=2),
    _weights("gpt-oss-20b, file list", c.GPT_OSS_20B, 12.81, "l4-gpt-oss"),
    _weights("gpt-oss-20b on a 24 GB card", c.GPT_OSS_20B, 12.88, "https://github.com/vllm-project/vllm/issues/22331"),
    _weights("Qwen 7B (v1)", c.QWEN_V1, 14.38, f"{HUB}/Qwen/Qwen-7B-Chat"),
    Row("weights", "Llama 3.1 8B ModelOpt FP8", c.LLAMA_8B, 8.5, f"{HUB}/nvidia/Llama-3.1-8B-Instruct-FP8", {}, c.MODELOPT_FP8),
    _weights("Gemma 3 4B with its tower, 4.30 B", c.GEMMA3_4B, 8.6e9 / 2**30, f"{HUB}/google/gemma-3-4b-it"),
    _weights("Mixtral 8x7B, 46.7 B", c.MIXTRAL, 93.4e9 / 2**30, f"{HUB}/mistralai/Mixtral-8x7B-Instruct-v0.1"),
    # vLLM's own report on H100 at 0.90, GiB of KV cache per GPU.
    _h100("Llama 3.1 8B, H100", c.LLAMA_8B, 51.38),
    _h100("Qwen3 0.6B, H100", c.QWEN3_06B, 64.45),
    _h100("Qwen3 0.6B, H100, 32,000 tokens", c.QWEN3_06B, 64.45, max_model_len=32000),
    _h100("Qwen3 32B, H100", c.QWEN3_32B, 4.45),
    _h100("Llama 3.3 70B FP8, 2x H100", c.LLAMA_70B_FP8, 32.0, count=2),
    _h100("gpt-oss-20b, H100", c.GPT_OSS_20B, 50.28),
    Row(
        "kv GiB", "gpt-oss-20b, A100 80 GB at 0.65, vLLM 0.19", c.GPT_OSS_20B, 36.56,
        "https://myoceane.fr/index.php/ai-vllm-a100-gemma-4/",
        {"gpu": "A100-80GB", "gpu_memory_utilization": 0.65, "max_model_len": 131072},
    ),
    Row(
        "kv tokens", "W4A16, 1x L4 at 0.85, FP8 cache", MISTRAL, 56_032, "rhoai3-demo-rows",
        {"precision": "w4a16", "gpu_memory_utilization": 0.85, "kv_cache_dtype": "fp8"},
    ),
    # Of vLLM 0.29, planned on 0.33.
    Row(
        "kv tokens", "Qwen3 8B FP8, 1x L4 at 0.90, 128 sequences", c.QWEN3_8B_FP8, 63_000, "g6-link",
        {"engine": NEW, "gpu_memory_utilization": 0.90, "max_num_seqs": 128, "max_model_len": 8192},
    ),
    Row(
        "kv tokens", "the same with its other flags", c.QWEN3_8B_FP8, 63_000, "g6-link",
        {
            "engine": NEW, "gpu_memory_utilization": 0.90, "max_num_seqs": 128, "max_model_len": 8192,
            "extra_args": ("--max-num-batched-tokens", "8192", "--attention-backend", "FLASHINFER"),
        },
    ),
    Row(
        "kv tokens", "the same, FP8 cache", c.QWEN3_8B_FP8, 126_000, "g6-link",
        {
            "engine": NEW, "gpu_memory_utilization": 0.90, "max_num_seqs": 128, "max_model_len": 8192, "kv_cache_dtype": "fp8",
            "extra_args": ("--max-num-batched-tokens", "8192", "--attention-backend", "FLASHINFER"),
        },
    ),
    Row(
        "kv tokens", "Qwen3 30B FP8, 4x L4 at 0.85, expert parallel", c.QWEN3_30B_FP8, 401_776, "l4-moe-memory",
        {
            "engine": NEW, "gpu_memory_utilization": 0.85, "count": 4, "max_model_len": 8192,
            "extra_args": ("--enable-expert-parallel", "--attention-backend", "TRITON_ATTN"),
        },
    ),
    Row(
        "kv tokens", "gpt-oss-20b, 1x L4 at 0.85", c.GPT_OSS_20B, 82_819, "l4-gpt-oss",
        {"engine": NEW, "gpu_memory_utilization": 0.85, "max_model_len": 32768},
    ),
    Row(
        "kv tokens", "gpt-oss-20b, 1x L4 at 0.90", c.GPT_OSS_20B, 119_483, "l4-gpt-oss",
        {"engine": NEW, "gpu_memory_utilization": 0.90, "max_model_len": 32768},
    ),
    Row(
        "kv GiB", "Llama 3.1 8B, A100 40 GB, eager", c.LLAMA_8B, 19.28, "https://github.com/vllm-project/vllm",
        {"gpu": "A100-40GB", "max_model_len": 131072, "gpu_memory_utilization": 0.9, "extra_args": ("--enforce-eager",)},
    ),
    Row(
        "kv tokens", "the same in tokens", c.LLAMA_8B, 157_936, "https://github.com/vllm-project/vllm",
        {"gpu": "A100-40GB", "max_model_len": 131072, "gpu_memory_utilization": 0.9, "extra_args": ("--enforce-eager",)},
    ),
]  # fmt: skip
