"""Runs as `python3 -m vllm.entrypoints.openai.api_server ARGS` or `vllm serve MODEL ARGS`, and becomes vLLM with these arguments.

One device, so a tensor parallel size becomes 1; without AVX-512 there is no FP8 KV cache, so that is `auto`; nothing is compiled
(--enforce-eager is added). Other flags are passed as they are.
What vLLM takes from the machine is bounded by its own variables, unless the pod sets them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence

MODULE = "vllm.entrypoints.openai.api_server"
# vLLM's command line, which `vllm` is an entry point of.
COMMAND = "vllm.entrypoints.cli.main"
PYTHON_VARIABLE = "MISTRAL_ON_L4_VLLM_PYTHON"
# "FP8 KV cache on CPU requires x86 with AVX-512 or AMX." (vLLM 0.32.0)
_CACHE = ("--kv-cache-dtype", "--kv_cache_dtype")
_PARALLEL = ("--tensor-parallel-size", "--tensor_parallel_size", "-tp")
EAGER = "--enforce-eager"
DEFAULTS = {
    # GiB of KV cache: 45,000 tokens of the small model, in place of a share of the machine's whole memory.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Two engines share this machine: bound to cores, both would sit on the same ones.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Workers find each other on the pod's own loopback; by default vLLM asks a name server for an address.
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def python() -> int:
    """The image's python3: runs vLLM's API server and no other module."""
    words = sys.argv[1:]
    if words[:1] == ["-u"]:
        words.pop(0)
    if words[:2] != ["-m", MODULE]:
        log(f"python3: this image runs `python3 -m {MODULE}` only, not {' '.join(words[:2]) or 'an interpreter'!r}")
        return 1
    return become(MODULE, words[2:], os.environ)


def vllm() -> int:
    """The image's vllm."""
    return become(COMMAND, sys.argv[1:], os.environ)


def become(module: str, words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Replaces this process by vLLM's; returns only where that fails."""
    program = environment.get(PYTHON_VARIABLE, "")
    words, asked = on_one_device(words)
    if asked:
        log(f"vLLM on this machine's CPU: one device, so tensor parallel size {asked} runs as 1")
    if "avx512f" not in cpu_flags():
        words, cache = replaced(words, _CACHE, lambda text: text.startswith("fp8"), "auto")
        if cache:
            log(f"vLLM on this machine's CPU: without AVX-512 it refuses --kv-cache-dtype {cache}, which runs as auto")
    if module == MODULE and EAGER not in words:
        log(f"vLLM on this machine's CPU: {EAGER} is added, since compiling takes longer than a small model saves")
        words = [*words, EAGER]
    settings: MutableMapping[str, str] = {**DEFAULTS, **environment}
    settings.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    # They would lead it to this project's packages.
    for name in ("PYTHONPATH", "PYTHONHOME"):
        settings.pop(name, None)
    try:
        os.execve(program, [program, "-m", module, *words], dict(settings))
    except OSError as error:
        log(f"vLLM's Python {program!r} cannot be started: {error.strerror}: `make up ENGINE=vllm` installs it")
        return 1


def on_one_device(words: Sequence[str]) -> tuple[list[str], str]:
    """The command line with tensor parallel size 1, and the size that was asked for where it is another, else ""."""
    return replaced(words, _PARALLEL, lambda text: text.isdigit() and text != "1", "1")


def replaced(words: Sequence[str], flags: Sequence[str], changes: Callable[[str], bool], value: str) -> tuple[list[str], str]:
    """The command line with another value of a flag, by all its spellings, where `changes` says so; and what it was, else ""."""
    changed, was = list(words), ""
    for place, word in enumerate(words):
        flag, equals, text = word.partition("=")
        if flag not in flags:
            continue
        at = place if equals else place + 1
        text = text if equals else "".join(words[at : at + 1])
        if changes(text):
            was = text
            changed[at] = f"{flag}={value}" if equals else value
    return changed, was


def cpu_flags() -> set[str]:
    with open("/proc/cpuinfo") as lines:  # noqa: PTH123  (pathlib would cost every start its import)
        return next((set(line.split()) for line in lines if line.startswith("flags")), set())


if __name__ == "__main__":
    sys.exit(python())
