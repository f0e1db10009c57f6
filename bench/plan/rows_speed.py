"""Rows of bench/plan/rows.py: time per output token and to the first one."""

from __future__ import annotations

from bench.plan import configs as c
from bench.plan.rows import MISTRAL, NEW, OLD, Row, at

DEMO = "rhoai3-demo-rows"
KERNELS = "l4-kernels"
SMALL = "l4-small-model"
L4_BENCH = "https://github.com/ree2raz/inference-bench/blob/0fb76f362bbca176f8cea675b61db5ed9036d71f/README.md"
TWO_H100 = "https://github.com/tenstorrent/tt-inference-server/issues/143"
_W4A16 = {"precision": "w4a16", "kv_cache_dtype": "fp8", "gpu_memory_utilization": 0.85}
_FULL = {"precision": "bf16", "count": 4, "kv_cache_dtype": "fp8", "max_model_len": 32768}
_SMALL = {"gpu_memory_utilization": 0.6, "max_model_len": 8192}
_TWO = {"gpu": "H100", "count": 2, "max_model_len": 16384, "gpu_memory_utilization": 0.95}
_A100 = {"gpu": "A100-40GB", "max_model_len": 32768}


def _small(users: int, ms: float) -> Row:
    return Row("tpot", f"Qwen2.5 0.5B, L4, {users} users", c.QWEN25_05B, ms, SMALL, {**_SMALL, **at(users, 256, 128)})


SPEED = [
    *(
        Row("tpot", f"W4A16, L4, {users} users", MISTRAL, ms, DEMO, {**_W4A16, **at(users, 256, 256)})
        for users, ms in ((1, 56), (5, 60), (10, 68))
    ),
    *(
        Row("tpot", f"BF16, 4x L4, {users} users", MISTRAL, ms, DEMO, {**_FULL, **at(users, 256, 256)})
        for users, ms in ((1, 54), (5, 58), (10, 64))
    ),
    *(_small(users, ms) for users, ms in ((1, 5.1), (2, 5.2), (4, 5.3), (8, 5.5))),
    Row("tpot", "Llama 3.1 8B, A100 40 GB", c.LLAMA_8B, 1000 / 75, "https://johnmusgrave.com", {**_A100, **at(1, 1024, 128)}),
    Row("tpot", "Llama 3.1 8B, A100 40 GB, 28,650 tokens", c.LLAMA_8B, 15.65, "a100-ttft", {**_A100, **at(1, 28650, 64)}),
    Row(
        "tpot", "Llama 3 8B, A100 40 GB (SGLang)", c.LLAMA_8B, 12.93, "https://github.com/FreedomIntelligence/AccelMark",
        {**_A100, **at(1, 256, 256)},
    ),
    Row("tpot", "Llama 3.1 8B, H100, 1 user", c.LLAMA_8B, 6.48, "https://www.yobitel.com", {"gpu": "H100", **at(1, 128, 128)}),
    Row("tpot", "Llama 3.1 8B, H100, 4 users", c.LLAMA_8B, 6.59, "https://www.yobitel.com", {"gpu": "H100", **at(4, 128, 128)}),
    *(
        Row("tpot", f"Qwen2.5 72B, 2x H100, {prompt} tokens", c.QWEN25_72B, ms, TWO_H100, {**_TWO, **at(1, prompt, 128)})
        for prompt, ms in ((128, 30.9), (4096, 31.1), (8192, 31.3))
    ),
    # 17.1 tokens/s with 70 ms to the first of 128; and 15 tokens/s over some 6,000.
    Row("tpot", "Qwen2.5 7B, L4", c.QWEN25_7B, 58.4, L4_BENCH, at(1, 200, 128)),
    Row("tpot", "Qwen3 8B, L4, 6,000 tokens out", c.QWEN3_8B, 66.7, L4_BENCH, {"max_model_len": 8192, **at(1, 200, 6000)}),
    Row("tpot", "Qwen3 8B FP8, L4, Marlin", c.QWEN3_8B_FP8, 36.1, KERNELS, {"engine": NEW, **at(1, 4090, 64)}),
    Row("tpot", "Qwen3 8B FP8, L4, Triton", c.QWEN3_8B_FP8, 41.0, KERNELS, {"engine": OLD, **at(1, 4090, 64)}),
    *(
        Row("ttft", f"W4A16, L4, {users} users", MISTRAL, ms, DEMO, {**_W4A16, **at(users, 256, 256)})
        for users, ms in ((5, 1489), (10, 2822))
    ),
    *(
        Row("ttft", f"BF16, 4x L4, {users} users", MISTRAL, ms, DEMO, {**_FULL, **at(users, 256, 256)})
        for users, ms in ((5, 594), (10, 1167))
    ),
    *(
        Row("ttft", f"Qwen2.5 72B, 2x H100, {prompt} tokens", c.QWEN25_72B, ms, TWO_H100, {**_TWO, **at(1, prompt, 128)})
        for prompt, ms in ((1024, 129.2), (4096, 505.1), (8192, 1063.8))
    ),
    Row("ttft", "Qwen3 8B FP8, L4, Marlin", c.QWEN3_8B_FP8, 1750, KERNELS, {"engine": NEW, **at(1, 4090, 64)}, allowed=0.1),
    Row("ttft", "Qwen3 8B FP8, L4, Triton", c.QWEN3_8B_FP8, 1114, KERNELS, {"engine": OLD, **at(1, 4090, 64)}, allowed=0.1),
    Row(
        "ttft", "Llama 3.1 8B, A100 40 GB, 28,650 tokens", c.LLAMA_8B, 2988, "a100-ttft", {**_A100, **at(1, 28650, 64)},
        allowed=0.1,
    ),
]  # fmt: skip
