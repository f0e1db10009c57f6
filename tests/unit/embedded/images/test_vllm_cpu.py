"""What becomes of a command line and an environment on their way to vLLM itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from embedded.images.vllm_cpu import __main__ as image

Become = Any


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> Become:
    """became(words, **environment) -> (argv, environment) of the program that took over."""

    def call(*words: str, **environment: str) -> tuple[list[str], dict[str, str]]:
        found: list[Any] = []
        monkeypatch.setattr(os, "execve", lambda program, argv, env: found.append((argv, env)))
        image.become(image.MODULE, words, {image.PYTHON_VARIABLE: "/vllm/bin/python", **environment})
        return found[0]

    return call


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        (["--tensor-parallel-size", "4", "--dtype", "bfloat16"], ["--tensor-parallel-size", "1", "--dtype", "bfloat16"]),
        (["--tensor-parallel-size=4"], ["--tensor-parallel-size=1"]),
        (["-tp", "2"], ["-tp", "1"]),
        (["--max-model-len", "8192"], ["--max-model-len", "8192"]),
        # What is no number is vLLM's to refuse.
        (["--tensor-parallel-size", "many"], ["--tensor-parallel-size", "many"]),
        (["--tensor-parallel-size"], ["--tensor-parallel-size"]),
    ],
)
def test_one_device_takes_a_tensor_parallel_size_of_one_and_all_else_as_it_is(
    became: Become, words: list[str], passed: list[str]
) -> None:
    argv, _ = became(*words)
    assert argv == ["/vllm/bin/python", "-m", image.MODULE, *passed, "--enforce-eager"]


@pytest.mark.parametrize(("flags", "cache"), [({"avx2"}, "auto"), ({"avx2", "avx512f"}, "fp8")])
def test_a_cpu_without_avx_512_gets_no_fp8_cache_which_vllm_refuses_there(
    became: Become, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: set[str], cache: str
) -> None:
    monkeypatch.setattr(image, "cpu_flags", lambda: flags)
    argv, _ = became("--kv-cache-dtype", "fp8", "--enforce-eager")
    assert argv[-3:] == ["--kv-cache-dtype", cache, "--enforce-eager"]
    assert ("--kv-cache-dtype fp8, which runs as auto" in capsys.readouterr().err) is (cache == "auto")


def test_the_log_says_what_was_changed(became: Become, capsys: pytest.CaptureFixture[str]) -> None:
    became("--tensor-parallel-size", "4", "--enforce-eager")
    assert capsys.readouterr().err == "vLLM on this machine's CPU: one device, so tensor parallel size 4 runs as 1\n"


def test_the_pods_own_variables_go_before_the_images(became: Become) -> None:
    _, environment = became(VLLM_CPU_KVCACHE_SPACE="3", VLLM_API_KEY="key", PYTHONPATH="/ours")
    assert (environment["VLLM_CPU_KVCACHE_SPACE"], environment["VLLM_API_KEY"]) == ("3", "key")
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert "PYTHONPATH" not in environment


def test_an_engine_that_is_gone_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert image.become(image.MODULE, [image.EAGER], {image.PYTHON_VARIABLE: str(tmp_path / "python")}) == 1
    said = capsys.readouterr().err
    assert said.endswith("`make up ENGINE=vllm` installs it\n")
    assert said.count("\n") == 1
