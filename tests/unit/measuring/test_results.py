"""Measurements as they are kept, and numbers that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_on_l4.measuring.results import QUICK, STANDARD, Measurement, impossible, problems_of


def result(users: int, **more: Any) -> dict[str, Any]:
    """What `users` get who each have an answer of 256 tokens in 14 s."""
    return {
        "max_concurrency": users,
        "num_prompts": 2 * users,
        "completed": 2 * users,
        "request_throughput": users / 14.0,
        "output_throughput": users * 256 / 14.0,
        "mean_e2el_ms": 14_000.0,
        "mean_tpot_ms": 54.0,
        **more,
    }


def measurement(**more: Any) -> Measurement:
    given: dict[str, Any] = {
        "stack": "dev",
        "service": "mistral-24b-full",
        "started": "2026-11-28T10:00:00Z",
        "tool": "vllm bench serve",
        "engine": "vllm-0.11.0",
        "image": "vllm/vllm-openai:v0.11.0",
        "simulated": False,
        "profile": STANDARD,
        "levels": tuple(result(users) for users in STANDARD.levels),
    }
    return Measurement(**{**given, **more})


def test_a_measurement_is_read_as_it_was_written() -> None:
    one = measurement(problems=("interrupted",))
    assert Measurement.from_json(one.to_json(), "k") == one


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 9}', '{"schema": 1, "profile": {}}'])
def test_what_is_no_measurement_is_named_by_its_source(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a\.json is no measurement: "):
        Measurement.from_json(text, "a.json")


def test_a_throughput_that_counts_prompt_tokens_contradicts_the_latencies() -> None:
    assert impossible(result(5)) is None
    said = impossible(result(5, output_throughput=5 * 512 / 14.0))
    assert said == "183 output tokens/s, with 5 users who each get one in 54 ms"


def test_more_answers_in_the_system_than_users_cannot_be() -> None:
    assert impossible(result(5, request_throughput=10 / 14.0)) == "10.0 answers in the system, with 5 users"


def test_levels_that_are_missing_and_requests_that_failed_are_said() -> None:
    levels = [result(1), result(5, completed=9, errors=["429: busy"])]
    assert problems_of(levels, STANDARD) == ["5 users: 1 of 10 requests failed: 429: busy", "not measured: 10, 15 users"]


def test_only_the_whole_standard_profile_is_comparable() -> None:
    assert measurement().standard
    assert not measurement(profile=QUICK).standard
    assert not measurement(problems=("interrupted",)).standard
