"""Runs as `python3 -m vllm.entrypoints.openai.api_server ARGS` or `vllm serve MODEL ARGS`, in place of vLLM."""

from __future__ import annotations

import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedded.images.engine import flags as command_line
from embedded.images.engine import simulator as behind
from embedded.images.engine.checkpoint import Loaded, check
from embedded.images.engine.flags import MODULE, Refused, Table
from embedded.images.engine.front import Front, Keys
from embedded.images.engine.simulator import Simulator, SimulatorEnded

VERSION_VARIABLE = "MISTRAL_ON_L4_ENGINE"
_DEFAULT_MODEL = "Qwen/Qwen3-0.6B"  # vLLM's, when --model is forgotten
_DEFAULT_PORT = 8000
# Below the 30 s that Kubernetes waits before it kills.
_DRAIN_SECONDS = 25.0
# What would change how the service is reached or what it answers, and is not simulated: refused, not ignored.
_NOT_SIMULATED = ("uds", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "lora_modules", "enable_lora", "headless", "middleware")


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def python() -> int:
    """The image's python3: runs vLLM's API server and no other module."""
    words = sys.argv[1:]
    if words[:1] == ["-u"]:
        words.pop(0)
    if words[:2] != ["-m", MODULE]:
        log(f"python3: this simulation of vLLM runs `python3 -m {MODULE}` only, not {' '.join(words[:2]) or 'an interpreter'!r}")
        return 1
    return start(words[2:], "api_server.py", os.environ)


def vllm() -> int:
    """The image's vllm: `vllm serve [MODEL] ...` and `vllm --version`."""
    words = sys.argv[1:]
    if words in (["--version"], ["-v"]):
        print(os.environ.get(VERSION_VARIABLE, ""))
        return 0
    if words[:1] != ["serve"]:
        log(f"vllm: this simulation of vLLM runs `vllm serve` only, not {' '.join(words[:1]) or 'no command'!r}")
        return 1
    return start(words[1:], "vllm serve", os.environ)


def start(words: Sequence[str], program: str, environment: Mapping[str, str]) -> int:
    """Checks everything, then serves until SIGTERM. Returns the exit status."""
    version = environment.get(VERSION_VARIABLE, "")
    try:
        flags = command_line.table(version)
    except LookupError as error:
        log(f"this simulation of vLLM cannot start: {error}")
        return 1
    try:
        if program == "vllm serve":
            words = command_line.served_words(list(words), flags)
        given = command_line.parse(words, flags, program)
        # Only `vllm serve` takes the model as a bare word; the module has the same parser and ignores it.
        model = (given.model_tag if program == "vllm serve" else None) or given.model or _DEFAULT_MODEL
        check_flags(given, flags)
        loaded = check(given, model, flags, environment)
    except Refused as refused:
        for line in refused.lines:
            log(line)
        return 1
    return serve(given, model, loaded, flags, environment)


def check_flags(given: Namespace, flags: Table) -> None:
    """What vLLM checks before it reads the model (entrypoints/openai/cli_args.py, api_server.py). Raises Refused."""
    template = given.chat_template
    if template is not None and not set(template) & set("{}\n") and not Path(template).exists():
        raise Refused(f"ValueError: The supplied chat template string ({template}) appears path-like, but doesn't exist!")
    if given.enable_auto_tool_choice and not given.tool_call_parser:
        raise Refused("TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser")
    if given.enable_log_outputs and not given.enable_log_requests:
        raise Refused("TypeError: Error: --enable-log-outputs requires --enable-log-requests")
    if given.enable_auto_tool_choice and given.tool_call_parser not in flags.tool_parsers and not given.tool_parser_plugin:
        raise Refused(
            f"KeyError: 'invalid tool call parser: {given.tool_call_parser} (chose from {{ {','.join(flags.tool_parsers)} }})'"
        )
    for name in _NOT_SIMULATED:
        if getattr(given, name):
            raise Refused(f"this simulation of vLLM does not simulate --{name.replace('_', '-')}: leave it out")


def serve(given: Namespace, model: str, loaded: Loaded, flags: Table, environment: Mapping[str, str]) -> int:
    version = environment[VERSION_VARIABLE]
    speed = behind.latency(environment)
    what = "as the plan predicts" if speed.predicted else "not predicted: the pod carries no prediction"
    log(
        f"SIMULATION of vLLM {version}: no model runs, the text is made up; time to first token {speed.ttft_ms:g} ms, "
        f"{speed.tpot_ms:g} ms per token ({what})"
    )
    log(f"checked {model}: {len(loaded.shards)} shards, quantization {loaded.quantization}, max_model_len {loaded.max_model_len}")
    if idle := behind.without_effect(given):
        log(f"checked, without effect in this simulation: {' '.join(idle)}")
    for note in loaded.notes:
        log(f"WARNING {note}")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    port = given.port or _DEFAULT_PORT
    inner = behind.free_port()
    program = environment.get(behind.PROGRAM_VARIABLE) or behind.PROGRAM
    try:
        simulator = Simulator(behind.command(program, given, model, loaded, speed, inner), inner)
        try:
            simulator.wait_ready(stopping)
            return _run(given, flags, environment, port, simulator, stopping)
        finally:
            simulator.stop()
    except SimulatorEnded as error:
        log(f"this simulation of vLLM cannot go on: the simulator: {error}")
        return 1


def _run(
    given: Namespace, flags: Table, environment: Mapping[str, str], port: int, simulator: Simulator, stopping: threading.Event
) -> int:
    # --api-key goes before VLLM_API_KEY, as in vLLM.
    keys = Keys([key for key in given.api_key or [environment.get("VLLM_API_KEY", "")] if key], flags.guarded)
    version = environment[VERSION_VARIABLE]
    try:
        quiet = bool(given.disable_uvicorn_access_log)
        front = Front(given.host or "0.0.0.0", port, simulator.port, keys, version, given.root_path or "", quiet)
    except OSError as error:
        log(f"OSError: [Errno {error.errno}] {error.strerror}: {given.host or '0.0.0.0'}:{port}")
        return 1
    ended = threading.Event()

    def watch() -> None:
        simulator.wait()
        ended.set()
        stopping.set()

    threading.Thread(target=watch, daemon=True).start()
    threading.Thread(target=front.serve, daemon=True).start()
    log(f"Starting the simulation's API server on http://{given.host or '0.0.0.0'}:{front.port}")
    log("requests to /v1 need the API key" if keys.asked_for else "no API key is set: /v1 is open")
    stopping.wait()
    if ended.is_set():
        raise SimulatorEnded(simulator.ended())
    log("Shutting down: waiting for the running requests")
    if not front.drain(_DRAIN_SECONDS):
        log(f"stopped with requests unanswered after {_DRAIN_SECONDS:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(python())
