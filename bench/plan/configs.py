"""config.json of public models, the fields that a plan depends on, as published; for the rows of bench/plan/rows.py."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def dense(
    architecture: str, kind: str, layers: int, hidden: int, width: int, heads: int, kv: int, words: int, **more: Any
) -> Config:
    return {
        "architectures": [architecture],
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": words,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        **more,
    }


def _quantized(method: Config, **config: Any) -> Config:
    return {**config, "quantization_config": method}


BLOCK_FP8: Config = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
CHANNEL_FP8: Config = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel", "group_size": None}}},
    "ignore": ["lm_head"],
}
MXFP4: Config = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
}
MODELOPT_FP8: Config = {
    "producer": {"name": "modelopt", "version": "0.17.0"},
    "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
}

LLAMA_8B = dense("LlamaForCausalLM", "llama", 32, 4096, 14336, 32, 8, 128256)
LLAMA_70B_FP8 = _quantized(CHANNEL_FP8, **dense("LlamaForCausalLM", "llama", 80, 8192, 28672, 64, 8, 128256))
QWEN3_06B = dense("Qwen3ForCausalLM", "qwen3", 28, 1024, 3072, 16, 8, 151936, head_dim=128, tie_word_embeddings=True)
QWEN3_8B = dense("Qwen3ForCausalLM", "qwen3", 36, 4096, 12288, 32, 8, 151936, head_dim=128)
QWEN3_8B_FP8 = _quantized(BLOCK_FP8, **QWEN3_8B)
QWEN3_32B = dense("Qwen3ForCausalLM", "qwen3", 64, 5120, 25600, 64, 8, 151936, head_dim=128, max_position_embeddings=40960)
QWEN3_32B_FP8 = _quantized(BLOCK_FP8, **QWEN3_32B)
QWEN25_05B = dense("Qwen2ForCausalLM", "qwen2", 24, 896, 4864, 14, 2, 151936, tie_word_embeddings=True)
QWEN25_7B = dense("Qwen2ForCausalLM", "qwen2", 28, 3584, 18944, 28, 4, 152064, max_position_embeddings=32768)
QWEN25_14B = dense("Qwen2ForCausalLM", "qwen2", 48, 5120, 13824, 40, 8, 152064)
QWEN25_72B = dense("Qwen2ForCausalLM", "qwen2", 80, 8192, 29568, 64, 8, 152064, max_position_embeddings=32768)
QWEN3_30B: Config = {
    **dense("Qwen3MoeForCausalLM", "qwen3_moe", 48, 2048, 6144, 32, 4, 151936, head_dim=128),
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
QWEN3_30B_FP8 = _quantized({**BLOCK_FP8, "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate"]}, **QWEN3_30B)
AWQ: Config = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
GPTQ: Config = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
W4A16: Config = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}}},
    "ignore": ["lm_head", "re:.*mlp.gate$"],
    "sparsity_config": {},
}
QWEN3_30B_AWQ = _quantized({**AWQ, "modules_to_not_convert": ["mlp.gate"]}, **QWEN3_30B)
QWEN3_30B_GPTQ = _quantized({**GPTQ, "dynamic": {"-:.*\\.mlp\\.gate$": {}}}, **QWEN3_30B)
QWEN3_235B_GPTQ: Config = _quantized(
    GPTQ,
    **{
        **dense("Qwen3MoeForCausalLM", "qwen3_moe", 94, 4096, 12288, 64, 4, 151936, head_dim=128),
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 1536,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
)
QWEN3_30B_GPTQ32 = _quantized({**GPTQ, "group_size": 32}, **QWEN3_30B)
QWEN3_30B_W4A16 = _quantized(W4A16, **QWEN3_30B)
LLAMA_8B_ACT_ORDER = _quantized({**GPTQ, "desc_act": True}, **LLAMA_8B)
LLAMA_8B_SPARSE = _quantized({**W4A16, "format": "marlin-24"}, **LLAMA_8B)
QWEN25_7B_1M: Config = {**QWEN25_7B, "max_position_embeddings": 1010000, "dual_chunk_attention_config": {"chunk_size": 262144}}
MIXTRAL = {
    **dense("MixtralForCausalLM", "mixtral", 32, 4096, 14336, 32, 8, 32000),
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
MIXTRAL["sliding_window"] = None


def _gpt_oss(layers: int, experts: int) -> Config:
    return {
        **dense("GptOssForCausalLM", "gpt_oss", layers, 2880, 2880, 64, 8, 201088, head_dim=64),
        "num_local_experts": experts,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
        "quantization_config": MXFP4,
    }


GPT_OSS_20B, GPT_OSS_120B = _gpt_oss(24, 32), _gpt_oss(36, 128)
QWEN_V1: Config = {
    **dense("QWenLMHeadModel", "qwen", 32, 4096, 22016, 32, 32, 151936),
    "seq_length": 8192,
    "max_position_embeddings": 32768,
}
GEMMA3_4B: Config = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "image_size": 896,
        "patch_size": 14,
    },
}
MLLAMA_11B: Config = {
    "architectures": ["MllamaForConditionalGeneration"],
    "model_type": "mllama",
    "text_config": {
        **dense("MllamaForCausalLM", "mllama_text_model", 40, 4096, 14336, 32, 8, 128256),
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
    },
    "vision_config": {
        "model_type": "mllama_vision_model",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_global_layers": 8,
        "image_size": 560,
        "patch_size": 14,
        "max_num_tiles": 4,
        "vision_output_dim": 7680,
    },
}
NEMOTRON_H: Config = {
    **dense("NemotronHForCausalLM", "nemotron_h", 52, 4096, 21504, 32, 8, 131072),
    "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
}
DEEPSEEK_R1: Config = {
    **dense("DeepseekV3ForCausalLM", "deepseek_v3", 61, 7168, 18432, 128, 128, 129280),
    "kv_lora_rank": 512,
    "quantization_config": BLOCK_FP8,
}
GEMMA4_26B: Config = dense("Gemma4ForConditionalGeneration", "gemma4", 30, 2816, 2112, 16, 8, 262144)
QWEN3_NEXT: Config = dense("Qwen3NextForCausalLM", "qwen3_next", 48, 2048, 5120, 16, 2, 151936)
UNHEARD_OF: Config = dense("AcmeForCausalLM", "acme", 32, 4096, 14336, 32, 8, 128256)
