"""What the state holds, read while the engine writes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from components import recorded
from components.recorded import Recorded

EMPTY = Exception("readStackResourceOutputs returned an error: failed to load checkpoint: EOF")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the engine answers, one after the other."""
    waiting: list[Any] = []

    def invoke(*_: Any) -> Any:
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(value=answer)

    monkeypatch.setattr(pulumi.runtime, "invoke", invoke)
    monkeypatch.setattr(pulumi, "get_stack", lambda: "dev")
    monkeypatch.setattr(recorded, "_PAUSES", (0.0, 0.0))
    return waiting


def test_a_state_that_is_being_written_is_read_again(answers: list[Any]) -> None:
    answers += [EMPTY, EMPTY, {"outputs": {"urn::x": {"outputs": {"a": 1}}}}]
    assert Recorded.of_this_stack().outputs == {"urn::x": {"a": 1}}


@pytest.mark.parametrize("errors", [[EMPTY, EMPTY, EMPTY], [Exception("access denied")]])
def test_a_state_that_stays_unreadable_and_any_other_error_end_the_run(answers: list[Any], errors: list[Exception]) -> None:
    answers += errors
    with pytest.raises(Exception, match=str(errors[0])):
        Recorded.of_this_stack()
    assert answers == []
