"""What the report says, as sections of tables and sentences; how it looks is markdown.py's and page.py's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistral_on_l4.measuring.results import Measurement
from mistral_on_l4.planner import ServicePlan, StackPlan
from mistral_on_l4.planner.plan import LoadPoint

_ABSENT = "–"


@dataclass(frozen=True)
class Accuracy:
    """One service's score on one task. score, error: 0 to 1; samples: how many questions; tool, started: as of a Measurement."""

    service: str
    task: str
    metric: str
    score: float
    error: float | None
    samples: int
    tool: str
    started: str
    simulated: bool


@dataclass(frozen=True)
class Inputs:
    """plan: with the load that was measured; measured: the newest of each service, by name; version: of this program."""

    plan: StackPlan
    measured: Mapping[str, Measurement]
    accuracy: Sequence[Accuracy] = ()
    version: str = ""


@dataclass(frozen=True)
class Section:
    """columns, rows: a table, () for none; lines: sentences below it."""

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    lines: tuple[str, ...] = ()


def title(inputs: Inputs) -> str:
    return f"{inputs.plan.stack}: Mistral on {', '.join(sorted({service.gpu for service in inputs.plan.services}))}"


def sections(inputs: Inputs) -> list[Section]:
    """All of them, in order."""
    return [
        _side_by_side(inputs),
        *(_levels(service, measured) for service in inputs.plan.services if (measured := inputs.measured.get(service.name))),
        _accuracy(inputs),
        _memory(inputs),
        _how(inputs),
        _truth(inputs),
    ]


def usd_per_million(service: ServicePlan, result: Mapping[str, Any]) -> float | None:
    """Dollars for a million output tokens at a measured throughput."""
    rate = float(result["output_throughput"])
    return None if service.usd_per_hour is None or rate <= 0 else service.usd_per_hour / (rate * 3600) * 1e6


def planned(service: ServicePlan, users: int) -> LoadPoint | None:
    return next((point for point in service.points if point.users == users), None)


def _side_by_side(inputs: Inputs) -> Section:
    rows = []
    for service in inputs.plan.services:
        measured = inputs.measured.get(service.name)
        levels = list(measured.levels) if measured else []
        one = next((result for result in levels if int(result["max_concurrency"]) == 1), {})
        best = max(levels, key=lambda result: float(result["output_throughput"]), default=None)
        rows.append(
            (
                service.name,
                service.variant.upper(),
                f"{service.gpus}x {service.gpu}",
                service.instance or _ABSENT,
                _usd(service.usd_per_hour),
                _pair(one.get("median_ttft_ms"), service.at(1).ttft_ms),
                _pair(one.get("mean_tpot_ms"), service.at(1).tpot_ms),
                _ABSENT if best is None else f"{float(best['output_throughput']):.0f} at {best['max_concurrency']} users",
                _usd(usd_per_million(service, best) if best else None),
            )
        )
    columns = (
        *("service", "precision", "GPUs", "instance", "$/h", "TTFT ms, one user: measured / planned"),
        *("TPOT ms, one user: measured / planned", "most output tokens/s", "$/1M output tokens there"),
    )
    prices = [service.usd_per_hour for service in inputs.plan.services]
    lines = []
    if len(prices) > 1 and all(prices):
        high, low = max(prices, key=float), min(prices, key=float)  # type: ignore[arg-type]
        lines.append(f"The dearest service costs {high / low:.1f} times as much per hour as the cheapest.")  # type: ignore[operator]
    return Section("Side by side", columns, tuple(rows), tuple(lines))


def _levels(service: ServicePlan, measured: Measurement) -> Section:
    rows = []
    for result in measured.levels:
        users = int(result["max_concurrency"])
        point = planned(service, users)
        rows.append(
            (
                str(users),
                _number(result.get("median_ttft_ms")),
                _pair(result.get("p95_ttft_ms"), point.ttft_ms if point else None),
                _pair(result.get("mean_tpot_ms"), point.tpot_ms if point else None),
                _pair(result.get("output_throughput"), point.output_tokens_per_s if point else None),
                _usd(usd_per_million(service, result)),
                _usd(point.usd_per_million_output_tokens if point else None),
                f"{result['completed']} of {result['num_prompts']}",
            )
        )
    columns = (
        *("users", "TTFT ms, median", "TTFT ms, p95: measured / planned", "TPOT ms: measured / planned"),
        *("output tokens/s: measured / planned", "$/1M output tokens", "planned", "answered"),
    )
    lines = [f"Not whole: {problem}." for problem in measured.problems]
    return Section(f"{service.name} under load", columns, tuple(rows), tuple(lines))


def _accuracy(inputs: Inputs) -> Section:
    if not inputs.accuracy:
        return Section("Accuracy", lines=("Not measured.",))
    base = {entry.task: entry.score for entry in inputs.accuracy if _precision(inputs, entry.service) == "BF16"}
    rows = []
    for entry in sorted(inputs.accuracy, key=lambda entry: (entry.task, entry.service)):
        error = "" if entry.error is None else f" ± {100 * entry.error:.1f}"
        recovery = f"{100 * entry.score / base[entry.task]:.1f} %" if base.get(entry.task) else _ABSENT
        made_up = " (simulated: made up)" if entry.simulated else ""
        rows.append(
            (
                entry.service,
                _precision(inputs, entry.service),
                f"{entry.task}, {entry.metric}",
                f"{100 * entry.score:.1f}{error} %{made_up}",
                recovery,
                str(entry.samples),
            )
        )
    columns = ("service", "precision", "task", "score", "recovery against BF16", "questions")
    return Section("Accuracy", columns, tuple(rows), ("A subset this small tells only large losses; ± is one standard error.",))


def _precision(inputs: Inputs, service: str) -> str:
    return next((plan.variant.upper() for plan in inputs.plan.services if plan.name == service), _ABSENT)


def _memory(inputs: Inputs) -> Section:
    rows = tuple(
        (
            service.name,
            f"{service.memory.visible_gib:.2f}",
            f"{service.memory.resident_weights_gib:.2f}",
            f"{service.cpu_offload_gib:.2f}",
            f"{max(0.0, service.memory.kv_gib):.2f}",
            f"{service.kv_tokens:,}",
        )
        for service in inputs.plan.services
    )
    columns = ("service", "GiB visible", "weights on the GPU", "weights in node memory", "KV cache", "tokens in it")
    return Section("Memory of each GPU, as planned", columns, rows)


def _how(inputs: Inputs) -> Section:
    rows = []
    for service in inputs.plan.services:
        measured = inputs.measured.get(service.name)
        profile = measured.profile if measured else None
        rows.append(
            (
                service.name,
                service.checkpoint,
                measured.engine if measured else service.engine,
                (measured.image if measured else service.image) or _ABSENT,
                measured.started if measured else "not measured: `demo bench` does",
                f"{measured.tool}, {profile.input_tokens} + {profile.output_tokens} tokens" if measured and profile else _ABSENT,
            )
        )
    columns = ("service", "checkpoint", "engine", "image", "measured", "by")
    lines = (
        "Users each wait for a whole answer and then ask again. Throughput counts output tokens only, and every level was checked "
        "against Little's law. TTFT and TPOT are a client's in the cluster.",
        f"Prices are on demand in {inputs.plan.region}; the stack as a whole costs {_usd(inputs.plan.usd_per_hour)} an hour.",
        *((f"Written by mistral-on-l4 {inputs.version}.",) if inputs.version else ()),
    )
    return Section("How it was measured", columns, tuple(rows), lines)


def _truth(inputs: Inputs) -> Section:
    lines = []
    if simulated := [name for name, measured in sorted(inputs.measured.items()) if measured.simulated]:
        lines.append(
            f"Simulated: the engine of {', '.join(simulated)} replays the plan's times for one user, whatever the load, and makes "
            "its text up. These numbers show that the measurement works, and nothing about a GPU."
        )
    if real := [name for name, measured in sorted(inputs.measured.items()) if not measured.simulated]:
        lines.append(f"Real engine: {', '.join(real)}.")
    lines += [f"Not comparable: {name} was measured with another profile than the standard one, or not whole."
              for name, measured in sorted(inputs.measured.items()) if not measured.standard]  # fmt: skip
    lines += inputs.plan.notes
    return Section("What is simulated, and what to know", lines=tuple(lines) or ("Nothing is simulated.",))


def _number(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.0f}"


def _pair(measured: float | None, plan: float | None) -> str:
    return f"{_number(measured)} / {_number(plan)}"


def _usd(value: float | None) -> str:
    return _ABSENT if value is None else f"${value:.2f}"
