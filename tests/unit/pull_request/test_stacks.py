"""Which stacks a pull request concerns."""

from __future__ import annotations

import pytest

from mistral_on_l4.pull_request.stacks import concerned


@pytest.mark.parametrize(
    ("paths", "stacks"),
    [
        (["Pulumi.dev.yaml"], ["dev"]),
        (["Pulumi.dev.yaml", "docs/planner.md"], ["dev"]),
        (["components/weights.py"], ["dev", "local"]),
        (["policies/aws.py"], ["dev", "local"]),
        (["mistral_on_l4/planner/catalogue/data/instances.yaml"], ["dev", "local"]),
        (["mistral_on_l4/pull_request/comment.py", "tests/unit/a.py", "README.md", "docs/aws.md"], []),
        (["mistral_on_l4/planner/NOTES.md"], []),
        (["Pulumi.gone.yaml"], []),
        ([], []),
    ],
)
def test_a_stack_is_previewed_when_something_that_it_is_made_of_changes(paths: list[str], stacks: list[str]) -> None:
    assert concerned([f"{path}\n" for path in paths], ["local", "dev"]) == stacks
