"""The engine's stand-in with the real simulator behind it and generated checkpoints before it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.embedded

PORT = 8080
MODULE = "vllm.entrypoints.openai.api_server"
KEY = "the-key-that-nobody-may-see"


@pytest.fixture
def engine(pod: Any, tool: Callable[[str], str], images: Path, image_environment: dict[str, str]) -> Callable[..., Any]:
    """Starts the stand-in as the container would: engine(model, *flags, key=..., ttft=..., tpot=...)."""

    def run(
        model: Path, *words: str, key: str | None = KEY, predicted: tuple[str, str] | None = None, version: str = "0.11.0"
    ) -> Any:
        environment = {
            **image_environment,
            "MISTRAL_ON_L4_ENGINE": version,
            "MISTRAL_ON_L4_INFERENCE_SIM": tool("llm-d-inference-sim"),
            "HF_HUB_OFFLINE": "1",
        }
        if key:
            environment["VLLM_API_KEY"] = key
        if predicted:
            annotations = {"mistral-on-l4/predicted-ttft-ms": predicted[0], "mistral-on-l4/predicted-tpot-ms": predicted[1]}
            (pod.folder / "pod.json").write_text(
                json.dumps({"name": "p", "namespace": "n", "labels": {}, "annotations": annotations})
            )
            environment["MISTRAL_ON_L4_POD"] = str(pod.folder / "pod.json")
        command = [str(images / "engine/bin/python3"), "-m", MODULE, f"--port={PORT}", f"--model={model}", *words]
        return pod.start(command, environment, "engine")

    return run


@pytest.fixture
def serving(pod: Any, engine: Callable[..., Any], await_condition: Callable[..., None]) -> Callable[..., Any]:
    def run(*args: Any, **keywords: Any) -> Any:
        started = engine(*args, **keywords)
        await_condition(lambda: pod.listening(PORT) or started.process.poll() is not None, 60, "the stand-in listening")
        assert started.process.poll() is None, started.text()
        return started

    return run


def chat(text: str = "Why is the sky blue?", **more: Any) -> dict[str, Any]:
    return {"model": "mistral-24b-fp8", "messages": [{"role": "user", "content": text}], "ignore_eos": True, **more}


BEARER = {"Authorization": f"Bearer {KEY}"}
SHIPPED = ("--served-model-name=mistral-24b-fp8", "--kv-cache-dtype=fp8", "--max-model-len=8192", "--max-num-seqs=16",
           "--gpu-memory-utilization=0.90", "--cpu-offload-gb=5")  # fmt: skip


def test_it_answers_a_chat_with_exactly_the_tokens_asked_for(pod: Any, serving: Any, small_checkpoints: dict[str, Path]) -> None:
    serving(small_checkpoints["fp8"], *SHIPPED)
    status, answer = pod.request(PORT, "POST", "/v1/chat/completions", chat(max_tokens=7), BEARER)
    assert status == 200, answer
    assert json.loads(answer)["usage"]["completion_tokens"] == 7


def test_models_carries_the_served_name_and_the_context_length(pod: Any, serving: Any, small_checkpoints: dict[str, Path]) -> None:
    serving(
        small_checkpoints["bf16"], "--served-model-name", "mistral-24b-full", "--tensor-parallel-size", "4", "--dtype", "bfloat16"
    )
    status, answer = pod.request(PORT, "GET", "/v1/models", headers=BEARER)
    assert status == 200
    listed = json.loads(answer)["data"][0]
    assert (listed["id"], listed["max_model_len"]) == ("mistral-24b-full", 32768)


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}]
)
def test_v1_without_the_key_is_unauthorized_in_vllms_words(
    pod: Any, serving: Any, small_checkpoints: dict[str, Path], header: dict[str, str]
) -> None:
    serving(small_checkpoints["fp8"], *SHIPPED)
    for path in ("/v1/models", "/v1/nothing", "/%761/models", "/v1"):
        assert pod.request(PORT, "GET", path, headers=header) == (401, b'{"error":"Unauthorized"}')


def test_what_vllm_leaves_open_is_open_and_what_only_the_simulator_has_is_not_there(
    pod: Any, serving: Any, small_checkpoints: dict[str, Path]
) -> None:
    serving(small_checkpoints["fp8"], *SHIPPED)
    assert pod.request(PORT, "GET", "/health")[0] == 200
    assert pod.request(PORT, "GET", "/version") == (200, b'{"version":"0.11.0"}')
    assert pod.request(PORT, "GET", "/ping") == (200, b"")
    assert b"vllm:num_requests_running" in pod.request(PORT, "GET", "/metrics")[1]
    # A path that the simulator's router would tidy up to a guarded one must not slip by.
    for path in (
        "/admin/config",
        "/health/ready",
        "/sleep",
        "//v1/models",
        "/x/../v1/models",
        "/V1/models",
        "/health/../v1/models",
    ):
        assert pod.request(PORT, "GET", path)[0] == 404, path
    assert pod.request(PORT, "POST", "/invocations", chat())[0] == 501
    assert pod.request(PORT, "GET", "/v1/chat/completions", headers=BEARER)[0] == 405


def test_a_newer_version_guards_more_and_knows_other_flags(pod: Any, serving: Any, small_checkpoints: dict[str, Path]) -> None:
    serving(small_checkpoints["fp8"], *SHIPPED, "--disable-prefix-caching", version="0.33.0")
    assert pod.request(PORT, "GET", "/version") == (200, b'{"version":"0.33.0"}')
    assert pod.request(PORT, "POST", "/v2/rerank", chat())[0] == 401
    assert pod.request(PORT, "POST", "/v1/chat/completions", chat(max_tokens=1), BEARER)[0] == 200


def test_without_a_key_v1_is_open(pod: Any, serving: Any, small_checkpoints: dict[str, Path]) -> None:
    started = serving(small_checkpoints["fp8"], *SHIPPED, key=None)
    assert pod.request(PORT, "GET", "/v1/models")[0] == 200
    assert "no API key" in started.text()


def events(pod: Any, body: dict[str, Any]) -> Iterator[tuple[float, bytes]]:
    """(seconds since the request, event) of a streamed chat, as the bytes come in."""
    connection = pod.connect(PORT)
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    begun = time.monotonic()
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    with connection:
        while received := connection.recv(65536):
            yield time.monotonic() - begun, received
            if b"[DONE]" in received:
                return


def test_tokens_arrive_one_by_one_at_the_predicted_latencies(pod: Any, serving: Any, small_checkpoints: dict[str, Path]) -> None:
    started = serving(small_checkpoints["fp8"], *SHIPPED, predicted=("300", "50"))
    assert "SIMULATION of vLLM 0.11.0" in started.text()
    assert "time to first token 300 ms, 50 ms per token (as the plan predicts)" in started.text()
    times = [at for at, data in events(pod, chat(max_tokens=10, stream=True)) if b'"content":"' in data.replace(b" ", b"")]
    assert len(times) >= 10
    # Never early; late only by what a busy machine adds.
    assert 0.295 <= times[0] <= 1.0
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.045 <= sum(gaps[:9]) / 9 <= 0.15


def test_the_key_reaches_neither_the_log_nor_the_simulator(pod: Any, serving: Any, small_checkpoints: dict[str, Path]) -> None:
    started = serving(small_checkpoints["fp8"], *SHIPPED)
    pod.request(PORT, "POST", "/v1/chat/completions", chat(max_tokens=1), BEARER)
    pod.request(PORT, "GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}x"})
    assert KEY not in started.text()
    inner = child(started.process.pid)
    for name in ("cmdline", "environ"):
        assert KEY.encode() not in Path(f"/proc/{inner}/{name}").read_bytes()


def child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def test_when_the_simulator_dies_the_container_fails_and_says_so(
    pod: Any, serving: Any, small_checkpoints: dict[str, Path]
) -> None:
    started = serving(small_checkpoints["fp8"], *SHIPPED)
    os.kill(child(started.process.pid), signal.SIGKILL)
    assert started.wait() == 1
    assert "the simulator: it ended with exit status -9" in started.text().splitlines()[-1]


def test_when_the_container_is_killed_no_simulator_is_left(
    pod: Any, serving: Any, small_checkpoints: dict[str, Path], await_condition: Callable[..., None]
) -> None:
    started = serving(small_checkpoints["fp8"], *SHIPPED)
    inner = child(started.process.pid)
    started.process.kill()
    started.wait()
    await_condition(lambda: not Path(f"/proc/{inner}/exe").exists(), 30, "the end of the simulator")


def test_a_simulator_that_does_not_take_its_flags_fails_the_container(
    pod: Any, small_checkpoints: dict[str, Path], images: Path, image_environment: dict[str, str]
) -> None:
    command = [str(images / "engine/bin/vllm"), "serve", str(small_checkpoints["fp8"])]
    environment = {**image_environment, "MISTRAL_ON_L4_ENGINE": "0.11.0", "MISTRAL_ON_L4_INFERENCE_SIM": "/usr/bin/true"}
    started = pod.start(command, environment)
    assert started.wait() == 1
    assert "it ended with exit status 0" in started.text()


def test_sigterm_lets_a_running_answer_end(pod: Any, serving: Any, small_checkpoints: dict[str, Path]) -> None:
    started = serving(small_checkpoints["fp8"], *SHIPPED, predicted=("200", "50"))
    received = b""
    for _, data in events(pod, chat(max_tokens=20, stream=True)):
        if not received:
            started.process.terminate()
        received += data
    assert b"[DONE]" in received
    assert started.wait() == 0


@pytest.mark.parametrize(
    ("precision", "words", "sentence"),
    [
        (
            "fp8",
            ["--quantization", "fp8"],
            "specified in the model config (compressed-tensors) does not match the quantization method",
        ),
        ("bf16", ["--max-model-len", "65536"], "User-specified max_model_len (65536) is greater than the derived max_model_len"),
        ("bf16", ["-tp", "3"], "Total number of attention heads (8) must be divisible by tensor parallel size (3)."),
        ("w4a16", ["--dtype", "float32"], "torch.float32 is not supported for quantization method compressed-tensors."),
    ],
)
def test_flags_that_do_not_go_with_the_model_end_it_with_vllms_sentence(
    engine: Any, small_checkpoints: dict[str, Path], precision: str, words: list[str], sentence: str
) -> None:
    started = engine(small_checkpoints[precision], *words)
    assert started.wait() == 1
    assert sentence in started.text().splitlines()[-1]


def test_an_unknown_flag_ends_it_as_argparse_does(engine: Any, small_checkpoints: dict[str, Path]) -> None:
    started = engine(small_checkpoints["fp8"], "--num-scheduler-steps", "8")
    assert started.wait() == 2
    assert started.text().splitlines()[-1] == "api_server.py: error: unrecognized arguments: --num-scheduler-steps"


def test_a_model_folder_that_was_not_filled_ends_it(engine: Any, small_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    started = engine(tmp_path / "nothing")
    assert started.wait() == 1
    assert "Invalid repository ID or local directory specified" in started.text()
    cut = tmp_path / "cut"
    shutil.copytree(small_checkpoints["fp8"], cut)
    shard = sorted(cut.glob("*.safetensors"))[0]
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1)
    started = engine(cut)
    assert started.wait() == 1
    assert "Error while deserializing header" in started.text().splitlines()[-1]


def test_it_holds_less_than_25_mib_after_fifty_streams(pod: Any, serving: Any, small_checkpoints: dict[str, Path]) -> None:
    started = serving(small_checkpoints["fp8"], *SHIPPED, predicted=("1", "1"))
    for _ in range(50):
        assert list(events(pod, chat(max_tokens=5, stream=True)))
    status = Path(f"/proc/{started.process.pid}/status").read_text()
    resident_kib = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident_kib < 25 * 1024
