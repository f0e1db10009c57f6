"""The report: what it says of whole, partial, simulated and missing measurements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mistral_on_l4.cli.stacks import stack_plan, stack_settings
from mistral_on_l4.measuring.results import STANDARD, Measurement
from mistral_on_l4.planner.request import Workload
from mistral_on_l4.report.content import Accuracy, Inputs
from mistral_on_l4.report.markdown import markdown
from tests.unit.measuring.test_results import measurement


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    plan = stack_plan(stack_settings("local"), "local", Workload(STANDARD.levels, 256, 256))
    names = [service.name for service in plan.services]
    return Inputs(plan, {name: measurement(service=name) for name in names}, version="0.1.0")


def changed(inputs: Inputs, **more: Any) -> Inputs:
    """With the first service's measurement changed."""
    name, one = next(iter(inputs.measured.items()))
    return replace(inputs, measured={**inputs.measured, name: replace(one, **more)})


def test_measured_stands_beside_planned_for_every_level(inputs: Inputs) -> None:
    said = markdown(inputs)
    rows = [line for line in said.splitlines() if line.startswith(("| 1 |", "| 5 |", "| 10 |", "| 15 |"))]
    assert len(rows) == 8
    assert "54 / 54" in rows[0]


def test_the_same_inputs_give_the_same_bytes(inputs: Inputs) -> None:
    assert markdown(inputs) == markdown(replace(inputs, measured=dict(reversed(inputs.measured.items()))))


def test_what_was_simulated_is_said_and_what_was_not_is_not_called_so(inputs: Inputs) -> None:
    assert "Simulated: the engine of mistral-24b-full" in markdown(changed(inputs, simulated=True))
    assert "Simulated" not in markdown(inputs)


def test_what_is_not_whole_is_marked_where_its_numbers_stand(inputs: Inputs) -> None:
    said = markdown(changed(inputs, problems=("the service was restarted while it was measured",)))
    assert "Not whole: the service was restarted while it was measured." in said
    assert "Not comparable: mistral-24b-full" in said


def test_a_service_that_was_not_measured_keeps_its_plan(inputs: Inputs) -> None:
    said = markdown(replace(inputs, measured={}))
    assert "not measured: `demo bench` does" in said
    assert "– / 54" in said


def test_recovery_is_against_bf16_on_the_same_task(inputs: Inputs) -> None:
    entry = Accuracy("mistral-24b-full", "gsm8k", "exact_match", 0.9, 0.03, 100, "lm-eval", "2026", simulated=False)
    said = markdown(replace(inputs, accuracy=(entry, replace(entry, service="mistral-24b-fp8", score=0.81))))
    assert "| mistral-24b-fp8 | FP8 | gsm8k, exact_match | 81.0 ± 3.0 % | 90.0 % | 100 |" in said


def test_text_from_outside_breaks_no_table(inputs: Inputs) -> None:
    said = markdown(changed(inputs, image="a|b\nc"))
    assert "a\\|b c" in said


def test_a_result_without_a_value_is_a_dash(inputs: Inputs) -> None:
    one: Measurement = next(iter(inputs.measured.values()))
    levels = tuple({**level, "p95_ttft_ms": None} for level in one.levels)
    assert "| – / " in markdown(changed(inputs, levels=levels))
