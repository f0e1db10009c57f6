"""What others measured or vLLM did, row by row, beside what the planner says: `make bench-plan` prints them, the tests hold them.

Every row is of a public log, report or benchmark, or follows from the engine's source; `source` names it in the catalogue's sources
or is an address. Kinds: weights (GiB per GPU), kv (tokens, or GiB where the log gives that), tpot and ttft (ms), verdict (fits,
refused, not computed). Where a report's version is between those of the catalogue, the row is planned on the nearer one.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bench.plan import configs
from mistral_on_l4.planner import NotComputed, PlanError, ServicePlan
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.request import Workload
from mistral_on_l4.planner.standalone import Question, plan_checkpoint

Kind = Literal["weights", "kv tokens", "kv GiB", "tpot", "ttft", "verdict"]
MISTRAL = "mistral-small-24b-instruct-2501"
# What each kind may miss by, as a share. TTFT of several users is a p95 that holds few requests.
ALLOWED = {"weights": 0.02, "kv tokens": 0.08, "kv GiB": 0.08, "tpot": 0.15, "ttft": 0.30, "verdict": 0.0}
OLD, NEW = "vllm-0.11", "vllm-0.33"


@dataclass(frozen=True)
class Row:
    """One measurement or verdict. model: a config, or a name of the catalogue; asked: options of Question, whose engine is OLD
    unless it says so; measured: the figure, or for verdicts what the answer must hold: "fits", or a part of the reason. allowed:
    instead of the kind's.
    """

    kind: Kind
    label: str
    model: configs.Config | str
    measured: float | str
    source: str
    asked: dict[str, Any] = field(default_factory=dict)
    beside: configs.Config | None = None
    allowed: float | None = None

    @property
    def tolerance(self) -> float:
        return ALLOWED[self.kind] if self.allowed is None else self.allowed


@dataclass(frozen=True)
class Result:
    row: Row
    planned: float | str
    error: float

    @property
    def holds(self) -> bool:
        return self.error <= self.row.tolerance


def evaluate(row: Row, catalogue: Catalogue) -> Result:
    """Plans the row and compares."""
    try:
        service = planned(row, catalogue)
    except NotComputed as error:
        return _verdict(row, f"not computed: {error.why}")
    except PlanError as error:
        return _verdict(row, str(error))
    if row.kind == "verdict":
        return _verdict(row, "fits" if service.loads else service.reason)
    value = _figure(row.kind, service)
    assert isinstance(row.measured, (int, float))
    return Result(row, value, abs(value / row.measured - 1))


def planned(row: Row, catalogue: Catalogue) -> ServicePlan:
    asked = {"engine": OLD, **row.asked}
    if isinstance(row.model, str):
        return plan_checkpoint(Question(model=row.model, **asked), catalogue).services[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(row.model))
        if row.beside:
            (Path(folder) / "hf_quant_config.json").write_text(json.dumps(row.beside))
        return plan_checkpoint(Question(config=file, **asked), catalogue).services[0]


def _figure(kind: Kind, service: ServicePlan) -> float:
    point = service.points[-1]
    figures: dict[str, float] = {
        "weights": service.memory.weights_gib,
        "kv tokens": service.kv_tokens,
        "kv GiB": service.memory.kv_gib,
        "tpot": point.tpot_ms,
        "ttft": point.ttft_ms,
    }
    return figures[kind]


def _verdict(row: Row, said: str) -> Result:
    return Result(row, said, 0.0 if str(row.measured) in said else 1.0)


def summary(results: list[Result]) -> Iterator[tuple[str, int, float, float]]:
    """(kind, rows, median error, worst error), errors as shares."""
    for kind in ALLOWED:
        errors = [result.error for result in results if result.row.kind == kind]
        if errors:
            yield kind, len(errors), median(errors), max(errors)


def at(users: int, prompt: int, output: int) -> dict[str, Any]:
    return {"workload": Workload((users,), prompt, output)}


def rows() -> list[Row]:
    from bench.plan.rows_memory import MEMORY
    from bench.plan.rows_sizes import SIZES
    from bench.plan.rows_speed import SPEED
    from bench.plan.rows_verdicts import VERDICTS

    return [*MEMORY, *SIZES, *SPEED, *VERDICTS]
