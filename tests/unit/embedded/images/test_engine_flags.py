"""vLLM's command line as the engine's stand-in reads it, against what vLLM's own parser did with the same words."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from embedded.images.engine import __main__ as engine
from embedded.images.engine import flags, simulator
from embedded.images.engine.checkpoint import Loaded

RECORDED = [
    (recorded["version"], case)
    for file in sorted(Path(__file__).parent.glob("vllm-*-command-lines.json"))
    for recorded in [json.loads(file.read_text())]
    for case in recorded["cases"]
]
TABLE = flags.table("0.11.0")


def parsed(*words: str) -> argparse.Namespace:
    return flags.parse(words, TABLE, "api_server.py")


@pytest.mark.parametrize(
    ("version", "case"), RECORDED, ids=lambda value: value if isinstance(value, str) else " ".join(value["argv"])[:60]
)
def test_words_end_as_in_vllms_own_parser(version: str, case: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    if case["exit"] == 0:
        given = vars(flags.parse(case["argv"], flags.table(version), "api_server.py"))
        assert {name: given[name] for name in case["values"]} == case["values"]
        return
    with pytest.raises(SystemExit) as ended:
        flags.parse(case["argv"], flags.table(version), "api_server.py")
    last = re.sub(r" at 0x[0-9a-f]+", "", capsys.readouterr().err.strip().splitlines()[-1])
    assert (ended.value.code, last) == (case["exit"], case["error"])


def test_an_older_version_has_no_opposite_of_enable() -> None:
    assert flags.parse(["--disable-prefix-caching"], flags.table("0.33.0"), "x").enable_prefix_caching is False
    with pytest.raises(SystemExit):
        parsed("--disable-prefix-caching")


def test_no_value_is_assumed_for_a_flag_that_was_not_given() -> None:
    assert set(map(repr, vars(parsed()).values())) == {"None"}


def test_json_pieces_of_one_flag_come_together() -> None:
    words = ["--compilation-config.level", "3", "--compilation_config.pass_config.enable_noop=true", "-O.level=2"]
    assert flags.prepared(words) == [
        "--compilation-config",
        '{"level": 3, "pass_config": {"enable_noop": true}}',
        "-O",
        '{"level": 2}',
    ]


def test_a_decimal_after_a_short_flag_is_a_value_and_no_json_piece() -> None:
    assert parsed("--gpu-memory-utilization", "0.95", "--max-model-len", "8192").gpu_memory_utilization == 0.95


def test_there_is_no_table_for_a_version_that_was_not_read() -> None:
    with pytest.raises(LookupError, match=r"vLLM 0\.20\.0"):
        flags.table("0.20.0")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--enable-auto-tool-choice"], "--enable-auto-tool-choice requires --tool-call-parser"),
        (["--enable-auto-tool-choice", "--tool-call-parser", "nope"], "invalid tool call parser: nope (chose from { deepseek_v3,"),
        (["--enable-log-outputs"], "--enable-log-outputs requires --enable-log-requests"),
        (["--chat-template", "no/such/file"], "appears path-like, but doesn't exist!"),
        (["--ssl-certfile", "x", "--ssl-keyfile", "y"], "does not simulate --ssl-keyfile"),
    ],
)
def test_what_vllm_checks_before_the_model_is_checked(words: list[str], sentence: str) -> None:
    with pytest.raises(flags.Refused) as refused:
        engine.check_flags(parsed(*words), TABLE)
    assert sentence in str(refused.value)


SPEED = simulator.Latency(210.0, 62.5, predicted=True)


def test_the_simulator_gets_only_flags_that_it_knows() -> None:
    words = ["--served-model-name", "mistral-24b-fp8", "--kv-cache-dtype", "fp8", "--cpu-offload-gb", "5", "-tp", "1", "--seed=7"]
    given = parsed(*words, "--api-key", "secret")
    argv = simulator.command("/sim", given, "/mnt/models", Loaded(8192, 16, None, (), ()), SPEED, 18080)
    assert argv[argv.index("--max-model-len") + 1] == "8192"
    assert argv[argv.index("--time-to-first-token") + 1] == "210ms"
    assert argv[argv.index("--inter-token-latency") + 1] == "62.5ms"
    assert argv[argv.index("--seed") + 1] == "7"
    known = {"--model", "--port", "--force-dummy-tokenizer", "--served-model-name", "--max-model-len", "--max-num-seqs", "--seed"}
    assert {word for word in argv if word.startswith("--")} == known | {"--time-to-first-token", "--inter-token-latency"}
    assert "secret" not in argv


def test_flags_without_a_counterpart_are_named_in_the_log() -> None:
    given = parsed("-tp", "4", "--dtype", "bfloat16", "--max-num-seqs", "16", "--no-enforce-eager")
    assert simulator.without_effect(given) == ["--dtype", "--enforce-eager", "--tensor-parallel-size"]


@pytest.mark.parametrize("annotations", [{}, {"mistral-on-l4/predicted-ttft-ms": "fast", "mistral-on-l4/predicted-tpot-ms": "5"}])
def test_without_a_usable_prediction_latencies_are_small_and_say_so(tmp_path: Path, annotations: dict[str, str]) -> None:
    file = tmp_path / "pod.json"
    file.write_text(json.dumps({"annotations": annotations}))
    speed = simulator.latency({"MISTRAL_ON_L4_POD": str(file)})
    assert not speed.predicted
    assert 0 < speed.ttft_ms < 100


def test_the_pods_annotations_give_the_latencies(tmp_path: Path) -> None:
    file = tmp_path / "pod.json"
    annotations = {"mistral-on-l4/predicted-ttft-ms": "2400", "mistral-on-l4/predicted-tpot-ms": "310"}
    file.write_text(json.dumps({"annotations": annotations}))
    assert simulator.latency({"MISTRAL_ON_L4_POD": str(file)}) == simulator.Latency(2400.0, 310.0, predicted=True)


def test_the_images_python_runs_no_other_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["python3", "-m", "http.server"])
    assert engine.python() == 1
    assert "not '-m http.server'" in capsys.readouterr().err


def test_vllm_serve_takes_the_model_as_a_word_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["vllm", "serve", "--model", "/mnt/models"])
    monkeypatch.setenv(engine.VERSION_VARIABLE, "0.11.0")
    assert engine.vllm() == 1
    assert "you should provide the model as a positional argument" in capsys.readouterr().err


def test_a_newer_vllm_serve_takes_the_model_as_a_flag_too() -> None:
    newer = flags.table("0.33.0")
    assert flags.served_words(["-tp", "2", "--model", "m", "--port=1"], newer) == ["m", "-tp", "2", "--port=1"]
    assert flags.served_words(["--model=m", "-tp", "2"], newer) == ["m", "-tp", "2"]
    with pytest.raises(flags.Refused, match="first positional argument"):
        flags.served_words(["--served-model-name", "x"], newer)
