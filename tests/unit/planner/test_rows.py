from __future__ import annotations

import pytest

from bench.plan.rows import MISTRAL, Row, evaluate, rows
from mistral_on_l4.planner.catalogue import Catalogue

ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind}: {row.label}")
def test_the_plan_says_what_was_measured_or_what_vllm_does(catalogue: Catalogue, row: Row) -> None:
    result = evaluate(row, catalogue)
    assert result.holds, f"{row.measured!r} was measured ({row.source}), planned {result.planned!r}"


def test_every_row_names_where_it_comes_from(catalogue: Catalogue) -> None:
    for row in ROWS:
        assert row.source in catalogue.sources or row.source.startswith("https://"), row.label


def test_there_are_rows_of_every_kind_and_of_other_models_than_the_shipped_one() -> None:
    kinds = {row.kind for row in ROWS}
    assert kinds == {"weights", "kv tokens", "kv GiB", "tpot", "ttft", "verdict"}
    assert len(ROWS) >= 60
    assert sum(row.model != MISTRAL for row in ROWS) > len(ROWS) / 2
