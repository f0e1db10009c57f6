"""`demo compare` and `demo chat` on services that answer, break off and refuse."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from mistral_on_l4.cli import Failure, chat, compare
from mistral_on_l4.cluster.chat import Answer, ChatError
from mistral_on_l4.cluster.endpoints import Endpoint
from mistral_on_l4.cluster.live import ServiceState


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two services: `whole` answers, `broken` breaks off."""
    monkeypatch.setenv("COLUMNS", "160")

    @contextmanager
    def open_services(_stack: str, names: Any) -> Iterator[list[Endpoint]]:
        states = [ServiceState(name, True, 1, None, None, 0, 100.0, 50.0, None) for name in names or ("whole", "broken")]
        yield [Endpoint(state, "http://127.0.0.1:9", "key", None) for state in states]

    @asynccontextmanager
    async def client_of(*_: Any) -> AsyncIterator[None]:
        yield None

    async def converse(_client: Any, name: str, messages: Any, *_: Any) -> AsyncIterator[Answer]:
        yield Answer("One ", 101.0, None, 1, None, 0.1)
        if name == "broken":
            raise ChatError("broken went away", Answer("One ", 101.0, None, 1, None, 0.1))
        yield Answer(f"One two {len(messages)}", 101.0, 51.0, 2, 7, 0.2, "stop")

    async def answer_of(client: Any, name: str, messages: Any, most: int, grown: Any) -> Answer:
        found = Answer("", None, None)
        async for found in converse(client, name, messages):
            grown(found)
        return found

    for module in (compare, chat):
        monkeypatch.setattr(module, "open_services", open_services)
        monkeypatch.setattr(module, "client_of", client_of)
    monkeypatch.setattr(compare, "answer_of", answer_of)
    monkeypatch.setattr(chat, "converse", converse)


def test_what_came_of_an_answer_that_broke_off_is_shown_and_marked_beside_the_whole_one() -> None:
    ended = CliRunner().invoke(compare.app, ["Why?"])
    assert str(ended.exception) == "broken went away"
    rows = {line.split("│")[1].strip(): line for line in ended.output.splitlines() if line.startswith("│")}
    assert "broke off" in rows["broken"]
    assert "stop" in rows["whole"]


def test_json_has_measured_beside_planned_for_a_script() -> None:
    whole, broken = json.loads(CliRunner().invoke(compare.app, ["Why?", "--json"]).output)
    assert (whole["ttftMs"], whole["predictedTtftMs"], whole["tokens"], whole["problem"]) == (101.0, 100.0, 2, None)
    assert (broken["text"], broken["problem"]) == ("One ", "broken went away")


def test_an_empty_prompt_is_a_wrong_command_and_asks_nobody() -> None:
    ended = CliRunner().invoke(compare.app, ["  "])
    assert isinstance(ended.exception, Failure)
    assert (ended.exception.code, ended.output) == (2, "")


@pytest.mark.parametrize("width", ["20", "200"])
def test_a_terminal_of_any_width_without_colours_shows_every_service(monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("NO_COLOR", "1")
    said = CliRunner().invoke(compare.app, ["Why?"]).output
    assert "whole" in said
    assert "\x1b[3" not in said


def test_lines_of_a_pipe_are_a_conversation_whose_answers_know_what_was_said() -> None:
    ended = CliRunner().invoke(chat.app, ["whole"], input="first\n\nsecond\n")
    assert ended.exit_code == 0
    assert "One two 1" in ended.output
    assert "One two 3" in ended.output


def test_a_question_in_place_of_a_service_names_the_command_for_it() -> None:
    ended = CliRunner().invoke(chat.app, ["Explain FP8."])
    assert str(ended.exception) == "'Explain FP8.' is no service: `demo compare \"Explain FP8.\"` asks all of them"


def test_an_answer_that_broke_off_ends_a_script_with_its_reason() -> None:
    ended = CliRunner().invoke(chat.app, ["broken", "-m", "Why?"])
    assert "One " in ended.output
    assert str(ended.exception) == "broken went away"
