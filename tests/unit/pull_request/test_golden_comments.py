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


@pytest.mark.parametrize(
    ("stack", "scenario", "blocked"),
    [
        ("dev", "two-gpu-nodes", False),
        ("dev", "w4a16", False),
        ("dev", "misfit", True),
        ("dev", "larger-volume", False),
        ("dev", "smaller-volume", True),
        ("local", "two-gpu-nodes", False),
        ("local", "forbidden", True),
        ("local", "failed", True),
    ],
)
def test_the_comment_of_a_recorded_preview_reads_as_its_golden_file(
    recorded: Callable[[str, str], Path], stack: str, scenario: str, blocked: bool
) -> None:
    comment = comment_of(recorded, stack, scenario)
    assert comment.text == golden(f"{stack}-{scenario}", comment.text)
    assert bool(comment.blocked) is blocked


def test_a_first_preview_without_anything_before_folds_its_creations_away(recorded: Callable[[str, str], Path]) -> None:
    preview, plan = read_events(recorded("dev-base", "jsonl")), read_plan(recorded("dev-base", "plan.json"))
    comment = render("dev", preview, read_plan(None), plan)
    assert comment.text == golden("dev-first", comment.text)
    assert comment.blocked == ()


def test_two_previews_of_one_commit_show_no_change(recorded: Callable[[str, str], Path]) -> None:
    """Names that a provider draws at random are no change, where no state keeps them."""
    base, again = read_events(recorded("dev-base", "jsonl")), read_events(recorded("dev-two-gpu-nodes", "jsonl"))
    assert [change.name for change in between(base, again).changes] == ["pool-l4-1gpu-nodes"]


def golden(name: str, text: str) -> str:
    file = GOLDEN / f"{name}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    return file.read_text()


def comment_of(recorded: Callable[[str, str], Path], stack: str, scenario: str) -> Comment:
    base = read_events(recorded(f"{stack}-base", "jsonl"))
    head = read_events(recorded(f"{stack}-{scenario}", "jsonl"))
    plans = read_plan(recorded(f"{stack}-base", "plan.json")), read_plan(recorded(f"{stack}-{scenario}", "plan.json"))
    return render(stack, between(base, head), *plans)
