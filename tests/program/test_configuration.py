"""How the program takes the stack's configuration: maps over the defaults, lists of earlier releases, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import create_autospec

import pulumi
import pytest

pytestmark = pytest.mark.usefixtures("local_home")

FULL = {"name": "mistral-24b-full", "variant": "bf16", "prefix": "mistral-24b/", "pool": "l4-4gpu", "tensorParallelSize": 4}


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", create_autospec(pulumi.log.warn, side_effect=lambda text, *_, **__: said.append(text)))
    return said


def served(engine: Any) -> list[str]:
    return sorted(found.inputs["metadata"]["name"] for found in engine.of("InferenceService"))


def test_the_third_service_and_its_node_are_two_values(run_program: Callable[..., Any], warnings: list[str]) -> None:
    third = {"mistral-24b-w4a16": {"enabled": True}}
    with pytest.raises(pulumi.RunError, match=r"no GPU is left in pool l4-1gpu.*'mistral-on-l4:pools\.groups\.l4-1gpu\.count' 2"):
        run_program(services=third)
    engine = run_program(services=third, pools={"groups": {"l4-1gpu": {"count": 2}}})
    assert served(engine) == ["mistral-24b-fp8", "mistral-24b-full", "mistral-24b-w4a16"]
    assert len(engine.of("Node")) == 3
    assert not any("last time" in text for text in warnings)


def test_a_list_is_served_as_it_was_and_warned_of(run_program: Callable[..., Any], warnings: list[str]) -> None:
    assert served(run_program(services=[FULL])) == ["mistral-24b-full"]
    assert [text for text in warnings if "a list is read for the last time" in text] == [
        text for text in warnings if text.startswith("Pulumi.local.yaml: services: ")
    ]
    assert any("last time" in text for text in warnings)


@pytest.mark.parametrize("nothing", [[], {"mistral-24b-full": None, "mistral-24b-fp8": {"enabled": False}}])
def test_a_stack_that_serves_nothing_is_refused_in_one_line(run_program: Callable[..., Any], nothing: Any) -> None:
    with pytest.raises(pulumi.RunError, match=r"^Pulumi\.local\.yaml: services: none is enabled, and a stack serves at least one$"):
        run_program(services=nothing)


def test_an_exposure_is_refused_on_the_embedded_cluster_too(run_program: Callable[..., Any], recorder: Any) -> None:
    with pytest.raises(pulumi.RunError, match=r"access\.exposure 'route' is not built for platform 'local': .*`demo chat`"):
        run_program(access={"exposure": "route"}, engine=recorder)
    assert [found.token for found in recorder.resources if found.token != "pulumi:pulumi:Stack"] == []
