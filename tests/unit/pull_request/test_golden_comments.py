"""Comments that a person must be able to read in ten seconds, compared with golden files as a whole.

After a change of the wording: UPDATE_GOLDEN=1 pytest tests/unit/pull_request, and read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mistral_on_l4.pull_request.comment import Comment, render
from mistral_on_l4.pull_request.events import between, read_events
from mistral_on_l4.pull_request.plans import read_plan

GOLDEN = Path(__file__).with_name("golden")
STACK = "local"


@pytest.mark.parametrize(
    ("scenario", "blocked"),
    [
        ("two-gpu-nodes", False),
        ("w4a16", False),
        ("misfit", True),
        ("forbidden", True),
        ("failed", True),
    ],
)
def test_the_comment_of_a_recorded_preview_reads_as_its_golden_file(
    recorded: Callable[[str, str], Path], scenario: str, blocked: bool
) -> None:
    comment = comment_of(recorded, STACK, scenario)
    golden = GOLDEN / f"{STACK}-{scenario}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(comment.text)
    assert comment.text == golden.read_text()
    assert bool(comment.blocked) is blocked


def test_a_first_preview_without_anything_before_folds_its_creations_away(recorded: Callable[[str, str], Path]) -> None:
    comment = render(
        STACK, read_events(recorded(f"{STACK}-base", "jsonl")), read_plan(None), read_plan(recorded(f"{STACK}-base", "plan.json"))
    )
    golden = GOLDEN / f"{STACK}-first.md"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(comment.text)
    assert comment.text == golden.read_text()
    assert comment.blocked == ()


def comment_of(recorded: Callable[[str, str], Path], stack: str, scenario: str) -> Comment:
    base = read_events(recorded(f"{stack}-base", "jsonl"))
    head = read_events(recorded(f"{stack}-{scenario}", "jsonl"))
    plans = read_plan(recorded(f"{stack}-base", "plan.json")), read_plan(recorded(f"{stack}-{scenario}", "plan.json"))
    return render(stack, between(base, head), *plans)
