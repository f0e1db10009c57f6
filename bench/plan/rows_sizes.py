"""Rows of bench/plan/rows.py: parameters of public models of many families, as their pages on the hub count them.

In GiB of BF16 on one H100, whether or not that fits: a family that is computed by another's rule shows here.
"""

from __future__ import annotations

from typing import Any

from bench.plan.configs import Config, dense
from bench.plan.rows import Row

HUB = "https://huggingface.co/"


def _row(repository: str, billions: float, config: Config) -> Row:
    asked: dict[str, Any] = {"gpu": "H100"}
    if config["architectures"] == ["QWenLMHeadModel"]:
        asked["engine"] = "vllm-0.11"
    return Row("weights", repository.partition("/")[2], config, billions * 2e9 / 2**30, HUB + repository, asked, None, 0.002)


def _plain(repository: str, billions: float, name: str, kind: str, shape: tuple[int, int, int, int, int, int], **more: Any) -> Row:
    """shape: layers, hidden size, width, heads, KV heads, vocabulary."""
    config = dense(name, kind, *shape, **more)
    return _row(repository, billions, {key: value for key, value in config.items() if value != "-"})


TIED: dict[str, Any] = {"tie_word_embeddings": True}
UNSAID: dict[str, Any] = {"tie_word_embeddings": "-"}  # left out: the family's default counts
LLAMA, QWEN2, QWEN3 = ("LlamaForCausalLM", "llama"), ("Qwen2ForCausalLM", "qwen2"), ("Qwen3ForCausalLM", "qwen3")
MISTRAL = ("MistralForCausalLM", "mistral")
NO_WINDOW: dict[str, Any] = {"sliding_window": None}


def _experts(count: int, taken: int, **more: Any) -> dict[str, Any]:
    return {"num_experts": count, "num_experts_per_tok": taken, "decoder_sparse_step": 1, **more}


PLAIN = [
    _plain("meta-llama/Llama-3.2-1B", 1.2358, *LLAMA, (16, 2048, 8192, 32, 8, 128256), head_dim=64, **TIED),
    _plain("meta-llama/Llama-3.2-3B", 3.2128, *LLAMA, (28, 3072, 8192, 24, 8, 128256), head_dim=128, **TIED),
    _plain("meta-llama/Llama-3.1-70B", 70.554, *LLAMA, (80, 8192, 28672, 64, 8, 128256)),
    _plain("meta-llama/Llama-3.1-405B", 405.85, *LLAMA, (126, 16384, 53248, 128, 8, 128256)),
    _plain("meta-llama/Llama-2-7b-hf", 6.738, *LLAMA, (32, 4096, 11008, 32, 32, 32000)),
    _plain("01-ai/Yi-34B", 34.389, *LLAMA, (60, 7168, 20480, 56, 8, 64000)),
    _plain("tiiuae/Falcon3-7B-Base", 7.4557, *LLAMA, (28, 3072, 23040, 12, 4, 131072), head_dim=256),
    _plain("HuggingFaceTB/SmolLM3-3B", 3.0751, "SmolLM3ForCausalLM", "smollm3", (36, 2048, 11008, 16, 4, 128256), **TIED),
    _plain("Qwen/Qwen2.5-32B-Instruct", 32.764, *QWEN2, (64, 5120, 27648, 40, 8, 152064)),
    _plain("Qwen/Qwen3-4B", 4.0225, *QWEN3, (36, 2560, 9728, 32, 8, 151936), head_dim=128, **TIED),
    _plain("Qwen/Qwen3-14B", 14.768, *QWEN3, (40, 5120, 17408, 40, 8, 151936), head_dim=128),
    _plain("mistralai/Mistral-Nemo-Instruct-2407", 12.248, *MISTRAL, (40, 5120, 14336, 32, 8, 131072), head_dim=128, **NO_WINDOW),
    _plain("mistralai/Mistral-Large-Instruct-2411", 122.61, *MISTRAL, (88, 12288, 28672, 96, 8, 32768), head_dim=128, **NO_WINDOW),
    _plain("google/gemma-7b", 8.5377, "GemmaForCausalLM", "gemma", (28, 3072, 24576, 16, 16, 256000), head_dim=256, **UNSAID),
    _plain("google/gemma-2-9b", 9.2417, "Gemma2ForCausalLM", "gemma2", (42, 3584, 14336, 16, 8, 256000), head_dim=256, **UNSAID),
    _plain("google/gemma-2-27b", 27.227, "Gemma2ForCausalLM", "gemma2", (46, 4608, 36864, 32, 16, 256000), head_dim=128, **UNSAID),
    _plain("microsoft/Phi-3-mini-4k-instruct", 3.8211, "Phi3ForCausalLM", "phi3", (32, 3072, 8192, 32, 32, 32064)),
    _plain("microsoft/phi-4", 14.66, "Phi3ForCausalLM", "phi3", (40, 5120, 17920, 40, 10, 100352)),
    _plain("microsoft/phi-2", 2.7797, "PhiForCausalLM", "phi", (32, 2560, 10240, 32, 32, 51200)),
    _plain("ibm-granite/granite-3.1-8b-instruct", 8.1708, "GraniteForCausalLM", "granite", (40, 4096, 12800, 32, 8, 49155), **TIED),
    _plain("allenai/OLMo-2-1124-13B", 13.716, "Olmo2ForCausalLM", "olmo2", (40, 5120, 13824, 40, 40, 100352)),
    _plain("CohereForAI/c4ai-command-r-v01", 34.981, "CohereForCausalLM", "cohere", (40, 8192, 22528, 64, 64, 256000), **UNSAID),
    _plain(
        "CohereLabs/c4ai-command-a-03-2025", 111.06, "Cohere2ForCausalLM", "cohere2", (64, 12288, 36864, 96, 8, 256000), **UNSAID,
    ),
    _plain("bigcode/starcoder2-3b", 3.0304, "Starcoder2ForCausalLM", "starcoder2", (30, 3072, 12288, 24, 2, 49152), **UNSAID),
    _plain("THUDM/GLM-4-9B-0414", 9.4, "Glm4ForCausalLM", "glm4", (40, 4096, 13696, 32, 2, 151552), head_dim=128),
    _plain("openbmb/MiniCPM-2B-sft-bf16", 2.7249, "MiniCPMForCausalLM", "minicpm", (40, 2304, 5760, 36, 36, 122753), **UNSAID),
    _plain("nvidia/Minitron-8B-Base", 8.2719, "NemotronForCausalLM", "nemotron", (32, 4096, 16384, 48, 8, 256000), head_dim=128),
    _plain("stabilityai/stablelm-2-12b", 12.143, "StableLmForCausalLM", "stablelm", (40, 5120, 13824, 32, 8, 100352)),
    _plain("internlm/internlm2_5-7b", 7.7376, "InternLM2ForCausalLM", "internlm2", (32, 4096, 14336, 32, 8, 92544)),
    _plain("baichuan-inc/Baichuan2-7B-Base", 7.506, "BaichuanForCausalLM", "baichuan", (32, 4096, 11008, 32, 32, 125696)),
    _plain("baichuan-inc/Baichuan2-13B-Base", 13.897, "BaichuanForCausalLM", "baichuan", (40, 5120, 13696, 40, 40, 125696)),
    _plain(
        "LGAI-EXAONE/EXAONE-4.0-32B", 32.003, "Exaone4ForCausalLM", "exaone4", (64, 5120, 27392, 40, 8, 102400), head_dim=128,
        sliding_window=4096, sliding_window_pattern="LLLG", layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 16,
    ),
    _plain(
        "ByteDance-Seed/Seed-OSS-36B-Instruct", 36.151, "SeedOssForCausalLM", "seed_oss", (64, 5120, 27648, 80, 8, 155136),
        head_dim=128, attention_bias=True,
    ),
]  # fmt: skip
MIXTURES = [
    _plain(
        "mistralai/Mixtral-8x22B-v0.1", 140.63, "MixtralForCausalLM", "mixtral", (56, 6144, 16384, 48, 8, 32768),
        num_local_experts=8, num_experts_per_tok=2, **NO_WINDOW,
    ),
    _plain(
        "Qwen/Qwen2-57B-A14B", 57.409, "Qwen2MoeForCausalLM", "qwen2_moe", (28, 3584, 18944, 28, 4, 151936),
        **_experts(64, 8, moe_intermediate_size=2560, shared_expert_intermediate_size=20480),
    ),
    _plain(
        "Qwen/Qwen1.5-MoE-A2.7B", 14.316, "Qwen2MoeForCausalLM", "qwen2_moe", (24, 2048, 5632, 16, 16, 151936),
        **_experts(60, 4, moe_intermediate_size=1408, shared_expert_intermediate_size=5632),
    ),
    _plain(
        "Qwen/Qwen3-235B-A22B", 235.09, "Qwen3MoeForCausalLM", "qwen3_moe", (94, 4096, 12288, 64, 4, 151936), head_dim=128,
        **_experts(128, 8, moe_intermediate_size=1536),
    ),
    _plain(
        "deepseek-ai/deepseek-moe-16b-base", 16.376, "DeepseekForCausalLM", "deepseek", (28, 2048, 10944, 16, 16, 102400),
        n_routed_experts=64, num_experts_per_tok=6, moe_intermediate_size=1408, n_shared_experts=2, first_k_dense_replace=1,
    ),
    _plain("allenai/OLMoE-1B-7B-0924", 6.9192, "OlmoeForCausalLM", "olmoe", (16, 2048, 1024, 16, 16, 50304), **_experts(64, 8)),
    _plain(
        "zai-org/GLM-4.5-Air", 106.85, "Glm4MoeForCausalLM", "glm4_moe", (46, 4096, 10944, 96, 8, 151552), head_dim=128,
        attention_bias=True, n_routed_experts=128, num_experts_per_tok=8, moe_intermediate_size=1408, n_shared_experts=1,
        first_k_dense_replace=1,
    ),
    _plain(
        "microsoft/Phi-3.5-MoE-instruct", 41.873, "PhiMoEForCausalLM", "phimoe", (32, 4096, 6400, 32, 8, 32064),
        num_local_experts=16, num_experts_per_tok=2, attention_bias=True,
    ),
]  # fmt: skip
LLAMA4_TOWER: Config = {
    "model_type": "llama4_vision_model", "hidden_size": 1408, "intermediate_size": 5632, "num_hidden_layers": 34, "image_size": 336,
    "patch_size": 14, "vision_output_dim": 4096,
}  # fmt: skip
QWEN_TOWER: Config = {"depth": 32, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
SIGLIP: Config = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "patch_size": 14,
}  # fmt: skip
PIXTRAL: Config = {
    "model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "image_size": 1540,
    "patch_size": 14,
}  # fmt: skip


def _llama4(experts: int, step: int) -> Config:
    text = dense("", "llama4_text", 48, 5120, 8192, 40, 8, 202048, head_dim=128, intermediate_size_mlp=16384)
    del text["architectures"]
    text |= {"num_local_experts": experts, "num_experts_per_tok": 1, "interleave_moe_layer_step": step}
    return {
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "text_config": text,
        "vision_config": LLAMA4_TOWER,
    }


def _of_text(name: str, kind: str, text: Config, tower: Config, **more: Any) -> Config:
    return {"architectures": [name], "model_type": kind, "text_config": text, "vision_config": tower, **more}


QWEN_7B: Config = dense("Qwen2VLForConditionalGeneration", "qwen2_vl", 28, 3584, 18944, 28, 4, 152064, use_sliding_window=False)
GEMMA3_27B: Config = {
    "model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62,
    "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
}  # fmt: skip
MISTRAL_24B: Config = {
    **dense("MistralForCausalLM", "mistral", 40, 5120, 32768, 32, 8, 131072, head_dim=128), "sliding_window": None,
}  # fmt: skip
TOWERS = [
    _row("meta-llama/Llama-4-Scout-17B-16E-Instruct", 108.64, _llama4(16, 1)),
    _row("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 401.65, _llama4(128, 2)),
    _row("Qwen/Qwen2-VL-7B-Instruct", 8.2914, {**QWEN_7B, "vision_config": {**QWEN_TOWER, "embed_dim": 1280, "hidden_size": 3584}}),
    _row(
        "Qwen/Qwen2.5-VL-7B-Instruct", 8.2922,
        {
            **QWEN_7B, "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl",
            "vision_config": {**QWEN_TOWER, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
        },
    ),
    _row(
        "google/gemma-3-27b-it", 27.432,
        _of_text("Gemma3ForConditionalGeneration", "gemma3", GEMMA3_27B, {**SIGLIP, "image_size": 896}),
    ),
    _row(
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503", 24.011,
        _of_text("Mistral3ForConditionalGeneration", "mistral3", MISTRAL_24B, PIXTRAL, spatial_merge_size=2),
    ),
]  # fmt: skip
SIZES = [*PLAIN, *MIXTURES, *TOWERS]
