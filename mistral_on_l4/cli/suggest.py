"""`demo plan --slo ...` and `demo plan --suggest`: the cheapest ways to serve a model within limits, and the nearest misses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil

import typer

from mistral_on_l4.cli import Failure
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner.backwards import PLATFORM, Choice, Found, Goal, parse_slo, search
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.plan import PlanError
from mistral_on_l4.planner.request import Workload
from mistral_on_l4.planner.standalone import Question
from mistral_on_l4.planner.suggest import found_document, sources_of, stack_lines, suggestions, words


@dataclass(frozen=True)
class Wanted:
    """Options of the search. users: the largest number that was asked for."""

    slo: str
    budget: float | None
    gpus: str
    accuracy: float | None
    apply: bool
    engine: str | None = None
    context: int | None = None

    def goal(self, workload: Workload, region: str, catalogue: Catalogue) -> Goal:
        limits = parse_slo(self.slo)
        names = {name.lower(): name for name in catalogue.gpus}
        asked = [part.strip() for part in self.gpus.split(",") if part.strip()]
        return Goal(
            users=max(workload.users),
            tpot_ms=limits.get("tpot"),
            ttft_ms=limits.get("ttft"),
            usd_per_hour=self.budget,
            accuracy=self.accuracy,
            prompt_tokens=workload.prompt_tokens,
            output_tokens=workload.output_tokens,
            gpus=tuple(names.get(name.lower(), name) for name in asked),
            engines=(_searched(self.engine, catalogue),) if self.engine else (),
            context=self.context or 0,
            region=region,
        )


def _searched(name: str, catalogue: Catalogue) -> str:
    """An engine that the search can take: one whose image is pinned. Raises PlanError."""
    if PLATFORM not in catalogue.engine(name).images:
        raise PlanError(f"no image of {name} is pinned, so it cannot be chosen")
    return name


def suggest_checkpoint(wanted: Wanted, question: Question, catalogue: Catalogue, *, as_json: bool) -> None:
    goal = wanted.goal(question.workload, question.region, catalogue)
    found = search(goal, sources_of(question, catalogue), catalogue)
    name = (question.model or "checkpoint").rpartition("/")[2].lower().replace(".", "-")
    _show([(name, found)], wanted, catalogue, as_json=as_json)


def suggest_stack(wanted: Wanted, settings: Settings, workload: Workload, catalogue: Catalogue, *, as_json: bool) -> None:
    goal = wanted.goal(workload, settings.region, catalogue)
    _show(list(suggestions(settings, goal, catalogue)), wanted, catalogue, as_json=as_json)


def _show(found: list[tuple[str, Found]], wanted: Wanted, catalogue: Catalogue, *, as_json: bool) -> None:
    taken = [(name, each.choices[0]) for name, each in found if each.choices]
    if as_json:
        print(json.dumps({"services": [{"name": name, **found_document(each)} for name, each in found]}, indent=2))
    elif wanted.apply:
        print("\n".join(stack_lines(taken, catalogue)))
    else:
        for name, each in found:
            _print(name, each)
    if missing := [name for name, each in found if not each.choices]:
        raise Failure(f"nothing in the catalogue meets the goal for {', '.join(missing)}: the near misses say what they break")


def _print(name: str, found: Found) -> None:
    from rich.table import Table
    from rich.text import Text

    from mistral_on_l4.cli.terminal import console

    screen = console()
    goal = found.goal
    limits = [f"{goal.users} users", f"{goal.prompt_tokens} tokens in and {goal.output_tokens} out"]
    limits += [f"TPOT {_rounded_up(goal.tpot_ms)} ms"] if goal.tpot_ms else []
    limits += [f"TTFT {_rounded_up(goal.ttft_ms)} ms"] if goal.ttft_ms else []
    limits += [f"${goal.usd_per_hour:.2f}/h"] if goal.usd_per_hour else []
    limits += [f"accuracy {goal.accuracy:g} %"] if goal.accuracy else []
    limits += ["as exact as today"] if goal.floor else []
    screen.print(Text(f"{name}: {', '.join(limits)}", style="bold"))
    table = Table(box=None, pad_edge=False)
    for column in ("", "$/h", "$/1M", "TPOT ms", "TTFT ms", "tok/s", "ready min", "accuracy %"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=bool(column), overflow="fold")
    for choice in found.choices:
        table.add_row(*_cells(choice))
    screen.print(table, highlight=False)
    for choice in found.near_misses:
        typer.echo(f"near miss: {words(choice)}, ${choice.usd_per_hour:.2f}/h: {'; '.join(choice.breaks)}")


def _cells(choice: Choice) -> tuple[str, ...]:
    point = choice.point
    price = point.usd_per_million_output_tokens
    return (
        words(choice),
        f"{choice.usd_per_hour:.2f}",
        "-" if price is None else f"{price:.2f}",
        f"{point.tpot_ms:.1f}",
        f"{point.ttft_ms:.0f}",
        f"{point.output_tokens_per_s:.0f}",
        f"{choice.minutes_to_ready:.0f}",
        "unknown" if choice.precision.known is None else f"{choice.precision.known:.1f}",
    )


def _rounded_up(limit: float) -> str:
    """A limit of today's is a prediction with many digits: shown so that what meets it is not above it."""
    return f"{ceil(limit * 10) / 10:g}"
