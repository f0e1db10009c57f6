from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.plan import configs
from mistral_on_l4 import cli

ROOT = Path(__file__).parents[3]
MISTRAL = "mistral-small-24b-instruct-2501"
Demo = Callable[..., tuple[int, str, str]]


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Demo:
    """demo("-s", "dev") runs `demo plan -s dev` in the checkout -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["demo", "plan", *args])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


SERVICE_KEYS = {
    "name", "checkpoint", "gpu", "gpus", "instance", "fits", "fits_with_offload", "reason", "weights_gib_per_gpu", "kv_tokens",
    "max_model_len", "cpu_offload_gib", "tpot_ms", "ttft_ms", "output_tokens_per_s", "usd_per_hour", "usd_per_million_output_tokens",
    "minutes_to_ready", "remedies",
}  # fmt: skip


def test_the_json_has_the_keys_that_other_programs_read(demo: Demo) -> None:
    code, out, _ = demo("-s", "dev", "--json")
    document = json.loads(out)
    assert code == 0
    assert set(document) == {"stack", "usd_per_hour", "fixed_usd_per_hour", "usd_per_up", "services"}
    assert document["stack"] == "dev"
    for service in document["services"]:
        assert set(service) == SERVICE_KEYS
        assert set(service["tpot_ms"]) == {"1", "5", "10"}
        for remedy in service["remedies"]:
            assert set(remedy) == {"change", "fits", "tpot_ms", "usd_per_hour"}


def test_the_table_says_what_a_person_asks(demo: Demo) -> None:
    code, out, _ = demo("-s", "dev")
    assert code == 0
    for words in ("4x L4", "10.98 GiB weights", "KV cache", "TTFT", "TPOT", "output tok/s", "$/1M output tokens", "min after `up`"):
        assert words in out
    assert "W4A16 on 1x L4" in out
    assert "in all $6.20/h" in out


def test_markdown_has_a_row_per_service(demo: Demo) -> None:
    _, out, _ = demo("-s", "dev", "--markdown")
    assert sum(line.startswith("| `mistral-24b-") for line in out.splitlines()) == 2


def test_a_misfit_ends_with_1_and_its_remedies_on_standard_error(demo: Demo) -> None:
    code, out, err = demo("--model", MISTRAL, "--precision", "fp8", "--gpu", "l4", "--json")
    assert code == 1
    assert json.loads(out)["services"][0]["fits"] is False
    assert json.loads(out)["services"][0]["tpot_ms"] == {"1": None, "5": None, "10": None}
    assert "does not fit 1x L4: 23.21 GiB of weights" in err
    assert "remedies: W4A16 on 1x L4" in err


def test_the_standalone_form_takes_all_its_options(demo: Demo) -> None:
    code, out, _ = demo(
        "--model", MISTRAL, "--dtype", "fp8", "--gpu", "L4", "--count", "4", "--tp", "2", "--max-model-len", "16384",
        "--kv-cache-dtype", "fp8", "--gpu-memory-utilization", "0.85", "--users", "2,20", "--prompt-tokens", "512",
        "--output-tokens", "128", "--region", "us-east-1", "--engine", "vllm-0.33", "--json",
    )  # fmt: skip
    service = json.loads(out)["services"][0]
    assert code == 0
    assert (service["gpus"], service["instance"], service["max_model_len"]) == (2, "g6.12xlarge", 16384)
    assert list(service["ttft_ms"]) == ["2", "20"]


def test_a_local_config_needs_no_hub(demo: Demo, config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, out, _ = demo("--config", str(config("llama-3.1-8b")), "--gpu", "L4", "--json")
    assert code == 0
    assert json.loads(out)["services"][0]["weights_gib_per_gpu"] == pytest.approx(14.96, abs=0.01)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["-s", "nope"], "the stacks are: dev, "),
        (["--model", MISTRAL, "--gpu", "L5"], "did you mean L4"),
        (["--model", MISTRAL, "--instance", "g6.xlage"], "did you mean g6.xlarge"),
        (["--model", MISTRAL, "--instance", "m7i.xlarge"], "has no GPU"),
        (["--model", MISTRAL, "--region", "us-east-9"], "did you mean us-east-"),
        (["--model", MISTRAL, "--engine", "vllm-1"], "unknown engine"),
        (["--model", MISTRAL, "--precision", "fp7"], "did you mean"),
        (["--model", "mistral-small-24b"], "did you mean mistral-small-24b-instruct-2501"),
        (["--model", MISTRAL, "--tp", "2"], "--count is 1"),
        (["--model", MISTRAL, "--users", "1,x"], "whole numbers"),
        (["--model", MISTRAL, "--users", "0"], "whole numbers"),
        (["--model", MISTRAL, "--kv-cache-dtype", "int8"], "write auto or fp8"),
        (["--model", MISTRAL, "--cpu-offload", "some"], "write off, auto, or GiB"),
        (["--model", MISTRAL, "--prompt-tokens", "9000"], "more than --max-model-len"),
        (["--model", MISTRAL, "--cpu-offload", "nan"], "write off, auto, or GiB"),
        (["--model", MISTRAL, "--cpu-offload", "inf"], "write off, auto, or GiB"),
        (["-s", "dev", "--prompt-tokens", "9000"], "9256 tokens, more than the maxModelLen 8192 of mistral-24b-full"),
        (["--model", MISTRAL, "-s", "dev"], "not both"),
        (["-s", "dev", "--json", "--markdown"], "exclude each other"),
        (["-s", "dev", "--gpu", "H100"], "--gpu is for a checkpoint (--model, --config); a stack says it in Pulumi.dev.yaml"),
        (["--gpu-memory-utilization", "7"], "'--gpu-memory-utilization': Input should be less than or equal to 1"),
        (["--count", "0"], "'--count': Input should be greater than or equal to 1"),
        (["--output-tokens", "none"], "'--output-tokens'"),
        (["--moddel", "x"], "No such option: --moddel"),
        (["more"], "unexpected extra argument"),
        (["--slo", "tpot=60"], "search for a checkpoint (--model), or with --suggest"),
        (["--model", MISTRAL, "--suggest", "--gpu", "L40S"], "--gpu is what the search chooses: --gpus, --engine"),
        (["--model", MISTRAL, "--suggest", "--engine", "vllm-0.20"], "no image of vllm-0.20 is pinned"),
        (["--model", MISTRAL, "--users", "1000000"], "write whole numbers from 1 to 100,000"),
        (["--model", MISTRAL, "--slo", "speed=60"], "write milliseconds such as tpot=60,ttft=1500"),
        (["--model", MISTRAL, "--slo", "tpot=60", "--gpus", "L5"], "did you mean L4"),
        (["--model", MISTRAL, "--vllm-args", "'"], "--vllm-args"),
        (["--model", ""], "--model is empty: is a variable of the shell not set?"),
        (["--model", MISTRAL, "--slo", " "], "--slo is empty"),
        (["--model", MISTRAL, "--suggest", "--budget", "inf"], "write dollars per hour"),
        (
            ["--model", MISTRAL, "--suggest", "--apply", "--json"],
            "--apply prints lines of a stack file, --json a document: name one",
        ),
    ],
)
def test_a_wrong_command_ends_with_2_and_says_what_would_work(demo: Demo, args: list[str], says: str) -> None:
    code, out, err = demo(*args)
    assert code == 2
    assert out == ""
    assert says in err
    assert err.startswith("demo: ")
    assert len(err.splitlines()) == 1


def test_the_command_imports_neither_pulumi_nor_what_it_does_not_need() -> None:
    program = (
        "import sys; sys.argv = ['demo', 'plan', '-s', 'dev', '--json']\n"
        "from mistral_on_l4.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pulumi', 'boto3', 'botocore', 'huggingface_hub', 'lightkube', 'requests'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_names_every_option_of_the_standalone_form(demo: Demo) -> None:
    code, out, _ = demo("--help")
    assert code == 0
    options: Any = ("--model", "--gpu", "--count", "--precision", "--tp", "--max-model-len", "--users", "--config", "--live-prices")
    assert all(option in out for option in options)


def test_markdown_of_a_stack_without_services_is_no_broken_table(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: mistral-on-l4\nruntime: python\n")
    (tmp_path / "Pulumi.x.yaml").write_text("config:\n  mistral-on-l4:platform: eks\n  mistral-on-l4:services: []\n")
    monkeypatch.chdir(tmp_path)
    code, out, _ = demo("-s", "x", "--markdown")
    assert code == 0
    assert "No service is enabled." in out
    assert "|" not in out


def test_what_is_not_computed_ends_with_2_and_says_the_weights(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(configs.MLLAMA_11B))
    code, out, err = demo("--config", str(tmp_path), "--gpu", "A100-80GB", "--json")
    assert code == 2
    assert "not computed: MllamaForConditionalGeneration has cross attention; its weights are 19.87 GiB" in err
    service = json.loads(out)["services"][0]
    assert service["fits"] is None
    assert service["weights_gib"] == pytest.approx(19.91, abs=0.05)


def test_a_search_prints_the_cheapest_ways_and_the_near_misses(demo: Demo) -> None:
    code, out, _ = demo("--model", MISTRAL, "--slo", "tpot=66,ttft=3000", "--users", "10")
    assert code == 0
    for words in (
        "10 users, 256 tokens in and 256 out, TPOT 66 ms",
        "on 1x L40S (g6e.xlarge)",
        "near miss: W4A16 on 1x L4",
        "at most 66 ms",
    ):
        assert words in out


def test_a_search_as_json_has_a_goal_choices_and_near_misses(demo: Demo) -> None:
    code, out, _ = demo("--model", MISTRAL, "--slo", "tpot=70", "--users", "10", "--accuracy", "99", "--json")
    service = json.loads(out)["services"][0]
    assert code == 0
    assert service["goal"]["tpot_ms"] == 70
    assert service["choices"][0]["variant"] == "fp8"
    assert {"usd_per_hour", "usd_per_million_output_tokens", "minutes_to_ready", "accuracy"} <= set(service["choices"][0])


def test_a_goal_that_nothing_meets_ends_with_1(demo: Demo) -> None:
    code, _, err = demo("--model", MISTRAL, "--slo", "tpot=1", "--users", "10")
    assert code == 1
    assert "nothing in the catalogue meets the goal" in err


def test_the_shipped_services_are_searched_for_something_cheaper(demo: Demo) -> None:
    code, out, _ = demo("-s", "dev", "--suggest", "--accuracy", "99", "--json")
    services = json.loads(out)["services"]
    assert code == 0
    assert [service["name"] for service in services] == ["mistral-24b-full", "mistral-24b-fp8"]
    assert services[0]["choices"][0]["usd_per_hour"] < 4.6016


def test_the_search_applies_to_any_checkpoint(demo: Demo, config: Callable[[str], Path]) -> None:
    code, out, _ = demo("--config", str(config("llama-3.1-8b")), "--slo", "tpot=40", "--users", "4", "--json")
    variants = {choice["variant"] for choice in json.loads(out)["services"][0]["choices"]}
    assert code == 0
    assert {"fp8", "w4a16"} & variants


def test_more_arguments_of_vllm_are_planned_with(demo: Demo) -> None:
    plain, eager = (
        json.loads(demo("--model", MISTRAL, "--precision", "w4a16", "--engine", "vllm-0.33", "--json", *more)[1])["services"][0]
        for more in ((), ("--vllm-args", "--enforce-eager"))
    )
    assert eager["kv_tokens"] > plain["kv_tokens"]
