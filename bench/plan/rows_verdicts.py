"""Rows of bench/plan/rows.py: what loads, what vLLM refuses, and what is not computed."""

from __future__ import annotations

from typing import Any

from bench.plan import configs as c
from bench.plan.rows import MISTRAL, NEW, Row

V33, V11 = "vllm-0.33", "vllm-0.11"
DEMO = "graphs-rhoai3-demo"
MOE = "l4-moe-memory"
WNA16 = "https://github.com/vllm-project/vllm/issues/17604"
# vLLM 0.9.2; the report names the error and both ways out.
WNA16_235B = "https://github.com/vllm-project/vllm/issues/17327"


def _says(label: str, model: c.Config | str, says: str, source: str, beside: c.Config | None = None, **asked: Any) -> Row:
    return Row("verdict", label, model, says, source, asked, beside)


VERDICTS = [
    _says("24B FP8, 1x L4", MISTRAL, "OutOfMemoryError", "mistral-fp8-files", precision="fp8"),
    _says("24B FP8, 2x L4", MISTRAL, "fits", "mistral-fp8-files", precision="fp8", count=4, tensor_parallel_size=2),
    _says("24B FP8, 1x L40S", MISTRAL, "fits", "mistral-fp8-files", precision="fp8", gpu="L40S"),
    _says("24B BF16, 2x L4", MISTRAL, "OutOfMemoryError", "mistral-bf16-files", count=4, tensor_parallel_size=2),
    _says("24B BF16, 4x L4 at 0.90", MISTRAL, "fits", DEMO, count=4, gpu_memory_utilization=0.90),
    _says("24B W4A16, 1x L4 at 0.92", MISTRAL, "fits", DEMO, precision="w4a16", gpu_memory_utilization=0.92),
    _says("24B W4A16, 1x L4 at 0.95", MISTRAL, "CUDA graphs", DEMO, precision="w4a16", gpu_memory_utilization=0.95),
    _says("24B FP8 on a T4", MISTRAL, "Min capability: 80", V11, precision="fp8", gpu="T4"),
    _says("70B FP8, 1x H100", c.LLAMA_70B_FP8, "No available memory", "h100-vllm-memory", gpu="H100", max_model_len=16000),
    _says("70B FP8, 2x H100", c.LLAMA_70B_FP8, "fits", "h100-vllm-memory", gpu="H100", count=2, max_model_len=16000),
    _says("Qwen3 32B, H100, 16,000 tokens", c.QWEN3_32B, "fits", "h100-vllm-memory", gpu="H100", max_model_len=16000),
    _says("Qwen3 32B, H100, 32,000 tokens", c.QWEN3_32B, "at most", "h100-vllm-memory", gpu="H100", max_model_len=32000),
    _says("Qwen3 32B FP8, 1x L4", c.QWEN3_32B_FP8, "OutOfMemoryError", "g6-link"),
    _says("Qwen3 30B FP8, 4x L4", c.QWEN3_30B_FP8, "192 is not divisible", MOE, count=4, gpu_memory_utilization=0.85),
    # 0.29 still refused it. 0.33 has code that cuts the blocks into 64 x 64; refused until somebody has seen it run.
    _says("the same on 0.33", c.QWEN3_30B_FP8, "192 is not divisible", V33, count=4, gpu_memory_utilization=0.85, engine=NEW),
    _says("the same on 0.33, 4x A10G", c.QWEN3_30B_FP8, "192 is not divisible", V33, gpu="A10G", count=4, engine=NEW),
    _says("Qwen3 30B AWQ, 4x L4", c.QWEN3_30B_AWQ, "size_k must divisible by BLOCK_SIZE_K", WNA16, count=4),
    _says("Qwen3 30B AWQ, 8x L4", c.QWEN3_30B_AWQ, "size_k must divisible by BLOCK_SIZE_K", WNA16, count=8),
    _says("Qwen3 30B AWQ, 2x L4", c.QWEN3_30B_AWQ, "fits", WNA16, count=4, tensor_parallel_size=2, gpu_memory_utilization=0.85),
    _says(
        "Qwen3 30B AWQ, 4x L4, whole experts", c.QWEN3_30B_AWQ, "fits", WNA16_235B,
        count=4, gpu_memory_utilization=0.85, extra_args=("--enable-expert-parallel",),
    ),
    _says("Qwen3 235B GPTQ, 8x A100 40 GB", c.QWEN3_235B_GPTQ, "BLOCK_SIZE_K", WNA16_235B, gpu="A100-40GB", count=8),
    _says(
        "the same with whole experts", c.QWEN3_235B_GPTQ, "fits", WNA16_235B, gpu="A100-40GB", count=8, gpu_memory_utilization=0.85,
        extra_args=("--enable-expert-parallel",),
    ),
    _says("Qwen3 30B GPTQ, 4x L4 on 0.33", c.QWEN3_30B_GPTQ, "fits", V33, count=4, engine=NEW, gpu_memory_utilization=0.85),
    _says("Qwen3 30B GPTQ in groups of 32, 8x L4", c.QWEN3_30B_GPTQ32, "BLOCK_SIZE_K", V11, count=8),
    _says("the same on 0.33", c.QWEN3_30B_GPTQ32, "fits", V33, count=8, engine=NEW, gpu_memory_utilization=0.85),
    _says("Qwen3 30B W4A16, 4x L4", c.QWEN3_30B_W4A16, "cut groups of 128", V11, count=4),
    _says("Qwen3 30B W4A16, 4x L4 on 0.33", c.QWEN3_30B_W4A16, "static group scales requires", V33, count=4, engine=NEW),
    _says("Qwen3 30B W4A16, 2x L4", c.QWEN3_30B_W4A16, "fits", V11, count=4, tensor_parallel_size=2),
    _says("Llama 8B GPTQ in another order, 0.33", c.LLAMA_8B_ACT_ORDER, "desc_act=True", V33, engine=NEW),
    _says("Llama 8B GPTQ in another order, 0.11", c.LLAMA_8B_ACT_ORDER, "fits", V11),
    _says("Llama 8B W4A16, 2:4 sparse", c.LLAMA_8B_SPARSE, "sparse", V11),
    _says("Qwen2.5 7B 1M, dual chunk attention", c.QWEN25_7B_1M, "dual chunk attention", V11),
    _says(
        "Qwen3 30B FP8, 2x L4", c.QWEN3_30B_FP8, "fits", MOE,
        count=4, tensor_parallel_size=2, engine=NEW, gpu_memory_utilization=0.88,
    ),
    _says("the same on 0.11 at 0.85", c.QWEN3_30B_FP8, "fits", MOE, count=4, tensor_parallel_size=2, gpu_memory_utilization=0.85),
    _says("Qwen3 30B FP8, 1x L4", c.QWEN3_30B_FP8, "OutOfMemoryError", MOE),
    _says("Qwen3 30B BF16, 4x A10G", c.QWEN3_30B, "out of memory while capturing", "h100-vllm-memory", gpu="A10G", count=4),
    _says(
        "gpt-oss-20b, 1x L4 at 0.85", c.GPT_OSS_20B, "fits", "l4-gpt-oss",
        engine=NEW, gpu_memory_utilization=0.85, max_model_len=32768,
    ),
    _says(
        "gpt-oss-20b, 1x L4 at 0.90, 1,024 sequences", c.GPT_OSS_20B, "KV cache is needed", "l4-gpt-oss",
        engine=NEW, gpu_memory_utilization=0.90, max_num_seqs=1024, max_model_len=32768,
    ),
    _says("gpt-oss-20b on a T4", c.GPT_OSS_20B, "Minimum capability: 80", V33, gpu="T4", engine=NEW),
    _says("gpt-oss-120b, 1x L4", c.GPT_OSS_120B, "OutOfMemoryError", "h100-vllm-memory"),
    _says("Gemma 3 4B, 1x L4", c.GEMMA3_4B, "fits", "transformers-configs"),
    _says("Gemma 3 4B, float16", c.GEMMA3_4B, "does not support float16", "vllm-models", precision="fp16"),
    _says("Gemma 3 4B, float16 on a T4", c.GEMMA3_4B, "no dtype is left", "vllm-models", precision="fp16", gpu="T4"),
    _says("Gemma 3 4B, bfloat16 on a T4", c.GEMMA3_4B, "Bfloat16 is only supported", "vllm-models", gpu="T4"),
    _says("Nemotron-H 8B", c.NEMOTRON_H, "not computed", "vllm-models"),
    _says("Llama 3.2 11B Vision", c.MLLAMA_11B, "cross attention", "vllm-models", gpu="A100-80GB"),
    _says("DeepSeek-R1", c.DEEPSEEK_R1, "latent attention", "vllm-models", gpu="H100", count=8),
    _says("Gemma 4 26B", c.GEMMA4_26B, "layers that differ in shape", "vllm-models", gpu="L40S"),
    _says("Qwen3-Next", c.QWEN3_NEXT, "not computed", "vllm-models"),
    _says("an architecture that nobody knows", c.UNHEARD_OF, "not computed", "vllm-models"),
    _says("Qwen 7B (v1), 1x L4", c.QWEN_V1, "fits", "vllm-models"),
    _says("Qwen 7B (v1) on 0.33", c.QWEN_V1, "not supported anymore", "vllm-models", engine=NEW),
    _says("Llama 3.1 8B ModelOpt, 1x L4", c.LLAMA_8B, "fits", V33, c.MODELOPT_FP8),
    _says("Llama 3.1 8B ModelOpt, A100 on 0.11", c.LLAMA_8B, "Minimum capability: 89", V11, c.MODELOPT_FP8, gpu="A100-40GB"),
    _says("Llama 3.1 8B ModelOpt, A100 on 0.33", c.LLAMA_8B, "fits", V33, c.MODELOPT_FP8, gpu="A100-40GB", engine=NEW),
    _says(
        "24B W4A16, whole prompts of 32,768 tokens", MISTRAL, "No available memory", V11, precision="w4a16", max_model_len=32768,
        extra_args=("--no-enable-chunked-prefill",),
    ),
    _says(
        "the same with fewer tokens a step", MISTRAL, "is smaller than max_model_len", V11, precision="w4a16", max_model_len=32768,
        extra_args=("--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192"),
    ),
]  # fmt: skip
