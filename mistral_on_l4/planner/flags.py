"""Which of vLLM's own arguments a service may be given: what the engine takes, and what the planner can compute.

An argument that the engine does not know, one that the plan writes itself, and one that changes memory or speed in a way that the
planner has no rule for are all refused, since the plan would be that of another service.
"""

from __future__ import annotations

from difflib import get_close_matches

from mistral_on_l4.planner.catalogue.families import CommandLine, command_lines
from mistral_on_l4.planner.plan import PlanError
from mistral_on_l4.planner.request import EXTRA_ARGS, SHORT, ServiceRequest, readable_int

# Arguments that the plan writes itself: what sets them in a stack, and as an option of `demo plan` ("" for none).
OWNED = {
    "--port": ("the runtime", ""),
    "--model": ("the runtime", ""),
    "--served-model-name": ("the runtime", ""),
    "--tensor-parallel-size": ("tensorParallelSize", "--tp"),
    "--max-model-len": ("maxModelLen", "--max-model-len"),
    "--max-num-seqs": ("maxNumSeqs", "--max-num-seqs"),
    "--kv-cache-dtype": ("kvCacheDtype", "--kv-cache-dtype"),
    "--gpu-memory-utilization": ("gpuMemoryUtilization", "--gpu-memory-utilization"),
    "--cpu-offload-gb": ("cpuOffload", "--cpu-offload"),
}
# Beginnings of arguments that split, load, cache or compile the model, or make another one of it, in ways that are not computed.
UNPLANNED = (
    "--pipeline-parallel", "--data-parallel", "--decode-context-parallel", "--prefill-context-parallel", "--nnodes", "--node-rank",
    "--speculative", "--spec-", "--kv-cache-memory", "--kv-cache-dtype-skip", "--kv-transfer", "--kv-offloading", "--kv-sharing",
    "--num-gpu-blocks", "--swap-space", "--block-size", "--hf-overrides", "--hf-config-path", "--model-impl",
    "--model-class-overrides", "--rope-", "--load-format", "--runner", "--convert", "--task", "--pooler", "--override-pooler",
    "--enable-lora", "--lora-modules", "--config", "--quantization-config", "--compilation-config", "--optimization-level",
    "--performance-mode", "--cuda-graph-sizes", "--cudagraph-capture", "--max-cudagraph", "--attention-config", "--kernel-config",
    "--moe-backend", "--linear-backend", "--enable-sleep-mode", "--enable-cumem", "--device-memory-utilization",
    "--cpu-offload-params", "--offload-", "--enable-dbo", "--ubatch", "--dbo-", "--enable-eplb", "--eplb-config", "--num-redun",
    "--enable-elastic-ep", "--disable-sliding-window", "--disable-hybrid-kv-cache-manager", "--num-lookahead-slots", "--mamba-",
    "--mm-encoder-only", "--mm-ipc-gpu", "--diffusion", "--engram", "--worker-cls", "--worker-extension", "--scheduler-cls",
    "--additional-config", "--model-loader-extra-config", "--override-attention-dtype", "--headless", "--grpc", "--monokernel",
)  # fmt: skip
# Methods that quantize while loading, beside FP8, in one of the versions.
_ONLINE = ("bitsandbytes", "experts_int8", "int8_per_channel_weight_only", "mxfp8", "nvfp4_per_token", "online", "rtn", "torchao")
# What --dtype may say where the planner knows what follows: 16 bits, as the weights are stored or computed with.
_DTYPES = ("auto", "half", "float16", "bfloat16")


def check_flags(request: ServiceRequest) -> None:
    """Raises PlanError if the extra arguments are unknown to the engine, contradict the plan, or are not computed."""
    source, flags = request.args_source, request.flags
    head = f"{request.name}: {source}"
    if stray := flags.get(""):
        raise PlanError(f"{head} has {stray!r}, which belongs to no argument: vLLM would not start")
    known = command_lines().get(request.engine_name)
    for flag in flags:
        name = flag.partition(".")[0]
        if name in OWNED:
            setting, option = OWNED[name]
            if source == EXTRA_ARGS or not option:
                raise PlanError(f"{head} sets {name}, which {setting} sets: remove it there")
            raise PlanError(f"{head} sets {name}, which the plan writes itself: say it to `demo plan` as {option}")
        if known and not known.takes(name):
            raise PlanError(
                f"{head} has {name}, which vLLM {request.engine.version} does not know: {_instead(name, known, request)}"
            )
        if name.startswith(UNPLANNED):
            raise PlanError(f"{head} sets {name}, which the planner cannot compute: remove it")
        if known and known.is_switch(name) and flags[flag]:
            raise PlanError(f"{head} gives {name} the value {flags[flag]!r}, but it takes none: vLLM would not start")
        if known and not known.is_switch(name) and not flags[flag]:
            raise PlanError(f"{head} gives {name} no value, and it needs one: vLLM would not start")
    _check_values(request, head)


def _check_values(request: ServiceRequest, head: str) -> None:
    flags = request.flags
    if (dtype := flags.get("--dtype", "auto")) not in _DTYPES:
        raise PlanError(f"{head} sets --dtype {dtype}, which the planner cannot compute: known are {', '.join(_DTYPES)}")
    online = flags.get("--quantization", "")
    if request.quantization.method == "none" and online in _ONLINE:
        raise PlanError(f"{head} quantizes with {online} while loading, which the planner cannot compute")
    tokens = flags.get("--max-num-batched-tokens")
    if tokens is not None and not readable_int(tokens):
        raise PlanError(f"{head} gives --max-num-batched-tokens the value {tokens!r}: write a number such as 2048 or 2K")


def _instead(name: str, known: CommandLine, request: ServiceRequest) -> str:
    """What to write instead of an argument that the engine does not know."""
    others = [version for version, line in command_lines().items() if version != request.engine_name and line.takes(name)]
    if others:
        newer = " and ".join(others)
        return f"{newer} does" if request.args_source == EXTRA_ARGS else f"{newer} does, add --engine {others[-1]}"
    names = {*known.names, *SHORT}
    near = [each for each in sorted(names) if len(name) > 3 and each.startswith(name)][:1]
    near = near or get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "`vllm serve --help=all` lists what it takes"
