from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from bench.plan.flags import flags_of
from embedded.images.engine import flags_0_11, flags_0_33
from embedded.images.engine.flags import Table
from mistral_on_l4.planner import PlanError, ServicePlan
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.catalogue.families import command_lines, registry_of
from mistral_on_l4.planner.request import SHORT, parse_flags
from mistral_on_l4.planner.standalone import Question, plan_checkpoint

Plan = Callable[..., ServicePlan]
MISTRAL = "mistral-small-24b-instruct-2501"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--max-model-lenn", "4096"], "--max-model-lenn, which vLLM 0.11.0 does not know: did you mean --max-model-len?"),
        # argparse completes a beginning; the plan would not see it.
        (["--max-num-batched", "4096"], "did you mean --max-num-batched-tokens?"),
        (["--zzz"], "`vllm serve --help=all` lists what it takes"),
        (["--attention-backend", "FLASHINFER"], "does not know: vllm-0.33 does"),
        (["4096"], "has '4096', which belongs to no argument"),
        (["--seed"], "gives --seed no value"),
        (["--no-enable-prefix-caching", "true"], "gives --no-enable-prefix-caching the value 'true', but it takes none"),
        (["-O3"], "sets --compilation-config, which the planner cannot compute"),
        (["--compilation-config.level", "3"], "sets --compilation-config, which the planner cannot compute"),
        (["--kv-transfer-config", "{}"], "cannot compute"),
        (["--enable-sleep-mode"], "cannot compute"),
    ],
)
def test_an_argument_that_is_unknown_or_not_computed_is_refused(plan: Plan, extra: list[str], says: str) -> None:
    with pytest.raises(PlanError, match=re.escape(says)):
        plan(variant="w4a16", extraArgs=extra)


@pytest.mark.parametrize(
    "extra",
    [
        ["--no-enable-prefix-caching"],
        ["--disable-log-requests"],
        ["--chat_template", "x.jinja"],
        ["--tool-call-parser=mistral", "--enable-auto-tool-choice"],
        ["--seed", "-1"],
    ],
)
@pytest.mark.parametrize("engine", ["vllm-0.11", "vllm-0.33"])
def test_an_argument_that_changes_no_memory_is_taken(plan: Plan, extra: list[str], engine: str) -> None:
    assert plan(variant="w4a16", extraArgs=extra, engine=engine).fits


def test_a_refusal_speaks_of_the_option_that_was_written(catalogue: Catalogue) -> None:
    def refused(*extra: str) -> str:
        with pytest.raises(PlanError) as caught:
            plan_checkpoint(Question(model=MISTRAL, precision="w4a16", extra_args=extra), catalogue)
        return str(caught.value)

    assert "--vllm-args sets --max-model-len" in refused("--max-model-len", "4096")
    assert refused("--max-model-len", "4096").endswith("say it to `demo plan` as --max-model-len")
    assert refused("--language-model-only").endswith("vllm-0.33 does, add --engine vllm-0.33")
    assert "extraArgs" not in refused("--dtype", "float32")


@pytest.mark.parametrize(("engine", "table"), [("vllm-0.11", flags_0_11.TABLE), ("vllm-0.33", flags_0_33.TABLE)])
def test_the_names_are_those_of_the_simulated_engine_which_were_read_on_their_own(engine: str, table: Table) -> None:
    line, registry = command_lines()[engine], registry_of(engine)
    assert registry is not None
    switches = {f"--{pair.split()[0]}" for pair in table.pairs} | {f"--{name}" for name in table.switches}
    assert line.switches == switches
    spellings = {value.short for value in table.values.values() if value.short.startswith("--")}
    assert line.names - line.switches == {f"--{name}" for name in table.values} | spellings
    assert line.inverses is table.inverses
    assert registry.quantizations == set(table.quantization)


def test_an_inverse_is_taken_by_the_version_that_has_it(plan: Plan) -> None:
    assert plan(variant="w4a16", extraArgs=["--disable-prefix-caching"], engine="vllm-0.33").fits
    with pytest.raises(PlanError, match=r"does not know: vllm-0\.33 does"):
        plan(variant="w4a16", extraArgs=["--disable-prefix-caching"], engine="vllm-0.11")


def test_short_names_are_those_of_vllm() -> None:
    for engine, line in command_lines().items():
        assert line.takes("--max-model-len")
        assert line.is_switch("--enforce-eager")
        assert not line.is_switch("--max-model-len"), engine
    known: frozenset[str] = frozenset().union(*(line.names for line in command_lines().values()))
    assert set(SHORT.values()) <= known
    assert parse_flags(["-tp", "2", "-O3", "x"]) == {"--tensor-parallel-size": "2", "--compilation-config": "x"}


ENGINE = """
class EngineArgs:
    model: str = ""
    enforce_eager: bool = False
    old_name: bool | None = None
    enable_prefix_caching: bool | None = None
    @staticmethod
    def add_cli_args(parser):
        group.add_argument("--model", **kwargs["model"])
        group.add_argument("--enforce-eager", **kwargs["enforce_eager"])
        group.add_argument("--enable-prefix-caching", **kwargs["enable_prefix_caching"])
        group.add_argument("--tensor-parallel-size", "-tp", **kwargs["tensor_parallel_size"])
        group.add_argument("--enable-log-requests", action=argparse.BooleanOptionalAction)
        for flag, kind in [("--old-name", bool)]:
            group.add_argument(flag, type=kind)
"""
SERVER = """
class FrontendArgs:
    api_key: list[str] | None = None
    enable_auto_tool_choice: bool = False
def make_arg_parser(parser):
    parser.add_argument("model_tag")
    parser.add_argument("--headless", action="store_true")
"""


def test_the_generator_reads_flags_switches_and_short_names() -> None:
    found: dict[str, Any] = flags_of(ENGINE, SERVER, "class EnableDisableAction: ...")
    assert (found["inverses"], flags_of(ENGINE, SERVER, "")["inverses"]) == (True, False)
    assert found["flags"] == ["--api-key", "--model", "--old-name", "--tensor-parallel-size"]
    assert found["switches"] == [
        "--enable-auto-tool-choice",
        "--enable-log-requests",
        "--enable-prefix-caching",
        "--enforce-eager",
        "--headless",
    ]
    assert found["short"] == {"-tp": "--tensor-parallel-size"}
