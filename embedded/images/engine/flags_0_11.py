"""Flags of `vllm serve` 0.11.0, and the names it accepts where argparse does not list them.

Source: the parser that vLLM's own make_arg_parser builds (vllm/entrypoints/openai/cli_args.py and vllm/engine/arg_utils.py in
the wheel of vLLM 0.11.0 on PyPI), read out action by action; QUANTIZATION: vllm/model_executor/layers/quantization/__init__.py;
LOAD_FORMATS: vllm/model_executor/model_loader/__init__.py; TOOL_PARSERS: vllm/entrypoints/openai/tool_parsers.
"""

from __future__ import annotations

from collections.abc import Mapping

from embedded.images.engine.flags import Table, Value

VERSION = "0.11.0"

# --x and --no-x
PAIRS = """
disable-uvicorn-access-log allow-credentials trust-request-chat-template enable-ssl-refresh return-tokens-as-token-ids
disable-frontend-multiprocessing enable-request-id-headers enable-auto-tool-choice exclude-tools-when-tool-choice-none
disable-fastapi-docs enable-prompt-tokens-details enable-server-load-tracking enable-force-include-usage
enable-tokenizer-info-endpoint enable-log-outputs log-error-stack trust-remote-code enforce-eager disable-sliding-window
disable-cascade-attn skip-tokenizer-init enable-prompt-embeds enable-sleep-mode use-tqdm-on-load data-parallel-hybrid-lb
enable-expert-parallel enable-dbo enable-eplb eplb-log-balancedness ray-workers-use-nsight disable-custom-all-reduce
enable-prefix-caching calculate-kv-scales kv-sharing-fast-prefill interleave-mm-strings skip-mm-profiling enable-lora
enable-lora-bias fully-sharded-loras enable-chunked-prefill disable-chunked-mm-input disable-hybrid-kv-cache-manager
async-scheduling enable-log-requests disable-log-requests
"""

# --x alone
SWITCHES = """
headless enable-multimodal-encoder-data-parallel disable-mm-preprocessor-cache disable-log-stats
"""

# --x VALUE; the type words are those of flags.py
VALUES: Mapping[str, Value] = {
    "api-server-count": Value("int", short="-asc"),
    "config": Value("str"),
    "host": Value("optional:str"),
    "port": Value("int"),
    "uds": Value("optional:str"),
    "uvicorn-log-level": Value("str", choices=("critical", "debug", "error", "info", "trace", "warning")),
    "allowed-origins": Value("raw-json"),
    "allowed-methods": Value("raw-json"),
    "allowed-headers": Value("raw-json"),
    "api-key": Value("optional:str", nargs="+"),
    "lora-modules": Value("optional:str", nargs="+"),
    "chat-template": Value("optional:str"),
    "chat-template-content-format": Value("str", choices=("auto", "openai", "string")),
    "response-role": Value("str"),
    "ssl-keyfile": Value("optional:str"),
    "ssl-certfile": Value("optional:str"),
    "ssl-ca-certs": Value("optional:str"),
    "ssl-cert-reqs": Value("int"),
    "root-path": Value("optional:str"),
    "middleware": Value("str", append=True),
    "tool-call-parser": Value("optional:str"),
    "tool-parser-plugin": Value("str"),
    "tool-server": Value("optional:str"),
    "log-config-file": Value("optional:str"),
    "max-log-len": Value("optional:int"),
    "h11-max-incomplete-event-size": Value("int"),
    "h11-max-header-count": Value("int"),
    "model": Value("str"),
    "runner": Value("str", choices=("auto", "draft", "generate", "pooling")),
    "convert": Value("str", choices=("auto", "classify", "embed", "none", "reward")),
    "task": Value(
        "optional:str",
        choices=("auto", "classify", "draft", "embed", "embedding", "generate", "reward", "score", "transcription", "None"),
    ),
    "tokenizer": Value("str"),
    "tokenizer-mode": Value("str", choices=("auto", "custom", "mistral", "slow")),
    "dtype": Value("str", choices=("auto", "bfloat16", "float", "float16", "float32", "half")),
    "seed": Value("optional:int"),
    "hf-config-path": Value("optional:str"),
    "allowed-local-media-path": Value("str"),
    "allowed-media-domains": Value("optional:str", nargs="+"),
    "revision": Value("optional:str"),
    "code-revision": Value("optional:str"),
    "rope-scaling": Value("json"),
    "rope-theta": Value("optional:float"),
    "tokenizer-revision": Value("optional:str"),
    "max-model-len": Value("count"),
    "quantization": Value("optional:str", short="-q"),
    "max-logprobs": Value("int"),
    "logprobs-mode": Value("str", choices=("processed_logits", "processed_logprobs", "raw_logits", "raw_logprobs")),
    "served-model-name": Value("optional:str", nargs="+"),
    "config-format": Value("str"),
    "hf-token": Value("str", nargs="?"),
    "hf-overrides": Value("text-or-json"),
    "pooler-config": Value("optional:object"),
    "override-pooler-config": Value("optional:object"),
    "logits-processor-pattern": Value("optional:str"),
    "generation-config": Value("str"),
    "override-generation-config": Value("json"),
    "model-impl": Value("str"),
    "override-attention-dtype": Value("optional:str"),
    "logits-processors": Value("optional:str", nargs="+"),
    "io-processor-plugin": Value("optional:str"),
    "load-format": Value("str"),
    "download-dir": Value("optional:str"),
    "safetensors-load-strategy": Value("str"),
    "model-loader-extra-config": Value("text-or-json"),
    "ignore-patterns": Value("optional:str", nargs="+"),
    "pt-load-map-location": Value("text-or-json"),
    "reasoning-parser": Value(
        "str", choices=("deepseek_r1", "glm45", "openai_gptoss", "granite", "hunyuan_a13b", "mistral", "qwen3", "seed_oss", "step3")
    ),
    "guided-decoding-backend": Value("str"),
    "guided-decoding-disable-fallback": Value("bool"),
    "guided-decoding-disable-any-whitespace": Value("bool"),
    "guided-decoding-disable-additional-properties": Value("bool"),
    "distributed-executor-backend": Value("optional:str"),
    "pipeline-parallel-size": Value("int", short="-pp"),
    "tensor-parallel-size": Value("int", short="-tp"),
    "decode-context-parallel-size": Value("int", short="-dcp"),
    "data-parallel-size": Value("int", short="-dp"),
    "data-parallel-rank": Value("int", short="-dpn"),
    "data-parallel-start-rank": Value("int", short="-dpr"),
    "data-parallel-size-local": Value("int", short="-dpl"),
    "data-parallel-address": Value("str", short="-dpa"),
    "data-parallel-rpc-port": Value("int", short="-dpp"),
    "data-parallel-backend": Value("str", short="-dpb"),
    "dbo-decode-token-threshold": Value("int"),
    "dbo-prefill-token-threshold": Value("int"),
    "eplb-config": Value("object"),
    "expert-placement-strategy": Value("str", choices=("linear", "round_robin")),
    "num-redundant-experts": Value("int"),
    "eplb-window-size": Value("int"),
    "eplb-step-interval": Value("int"),
    "max-parallel-loading-workers": Value("optional:int"),
    "worker-cls": Value("str"),
    "worker-extension-cls": Value("str"),
    "block-size": Value("int", choices=(1, 8, 16, 32, 64, 128)),
    "gpu-memory-utilization": Value("float"),
    "kv-cache-memory-bytes": Value("optional:count"),
    "swap-space": Value("float"),
    "kv-cache-dtype": Value("str", choices=("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")),
    "num-gpu-blocks-override": Value("optional:int"),
    "prefix-caching-hash-algo": Value("str", choices=("sha256", "sha256_cbor")),
    "cpu-offload-gb": Value("float"),
    "mamba-cache-dtype": Value("str", choices=("auto", "float32")),
    "mamba-ssm-cache-dtype": Value("str", choices=("auto", "float32")),
    "limit-mm-per-prompt": Value("json"),
    "media-io-kwargs": Value("json"),
    "mm-processor-kwargs": Value("optional:json"),
    "mm-processor-cache-gb": Value("float"),
    "mm-processor-cache-type": Value("str", choices=("lru", "shm")),
    "mm-shm-cache-max-object-size-mb": Value("int"),
    "mm-encoder-tp-mode": Value("str", choices=("data", "weights")),
    "video-pruning-rate": Value("optional:float"),
    "max-loras": Value("int"),
    "max-lora-rank": Value("int"),
    "lora-extra-vocab-size": Value("int"),
    "lora-dtype": Value("str", choices=("auto", "bfloat16", "float16")),
    "max-cpu-loras": Value("optional:int"),
    "default-mm-loras": Value("optional:json"),
    "show-hidden-metrics-for-version": Value("optional:str"),
    "otlp-traces-endpoint": Value("optional:str"),
    "collect-detailed-traces": Value(
        "optional:str",
        nargs="+",
        choices=(
            "all",
            "model",
            "worker",
            "None",
            "model,worker",
            "model,all",
            "worker,model",
            "worker,all",
            "all,model",
            "all,worker",
        ),
    ),
    "max-num-batched-tokens": Value("count"),
    "max-num-seqs": Value("int"),
    "max-num-partial-prefills": Value("int"),
    "max-long-partial-prefills": Value("int"),
    "cuda-graph-sizes": Value("int", nargs="+"),
    "long-prefill-token-threshold": Value("int"),
    "num-lookahead-slots": Value("int"),
    "scheduling-policy": Value("str", choices=("fcfs", "priority")),
    "scheduler-cls": Value("str"),
    "speculative-config": Value("optional:json"),
    "kv-transfer-config": Value("optional:object"),
    "kv-events-config": Value("optional:object"),
    "compilation-config": Value("object", short="-O"),
    "additional-config": Value("text-or-json"),
    "structured-outputs-config": Value("object"),
}

QUANTIZATION = (
    "awq deepspeedfp tpu_int8 fp8 ptpc_fp8 fbgemm_fp8 modelopt modelopt_fp4 bitblas gguf gptq_marlin_24 gptq_marlin gptq_bitblas "
    "awq_marlin gptq compressed-tensors bitsandbytes hqq experts_int8 ipex quark moe_wna16 torchao auto-round rtn inc mxfp4 "
    "petit_nvfp4"
)

LOAD_FORMATS = (
    "auto bitsandbytes dummy fastsafetensors gguf mistral npcache pt runai_streamer runai_streamer_sharded safetensors "
    "sharded_state tensorizer"
)

TOOL_PARSERS = (
    "deepseek_v3 deepseek_v31 glm45 granite-20b-fc granite hermes hunyuan_a13b internlm jamba kimi_k2 llama4_pythonic llama4_json "
    "llama3_json longcat minimax mistral openai phi4_mini_json pythonic qwen3_coder qwen3_xml seed_oss step3 xlam"
)

TABLE = Table(VERSION, PAIRS.split(), SWITCHES.split(), VALUES, QUANTIZATION.split(), LOAD_FORMATS.split(), TOOL_PARSERS.split())
