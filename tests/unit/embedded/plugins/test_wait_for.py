from __future__ import annotations

from typing import Any

import pytest

from embedded.plugins.kubernetes.wait_for import BadCondition, parse

OBJECT: dict[str, Any] = {
    "metadata": {"generation": 3, "annotations": {"a.b/c": "d"}},
    "spec": {"ports": [{"name": "http", "port": 80}, {"name": "grpc", "port": 81}]},
    "status": {
        "phase": "Running",
        "ready": True,
        "modelStatus": {"transitionStatus": "UpToDate"},
        "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Old", "status": "True", "observedGeneration": 2},
            {"type": "Seen", "status": "False", "observedGeneration": 3, "reason": "NoGpu", "message": "none is left"},
        ],
    },
}


def missing(text: str, obj: dict[str, Any] = OBJECT) -> list[str]:
    return [what for expectation in parse(text) if (what := expectation.missing(obj))]


@pytest.mark.parametrize(
    "text",
    [
        "condition=Ready",
        "condition=ready=true",
        "condition=Seen=False",
        "jsonpath={.status.phase}",
        "jsonpath={.status.phase}=Running",
        "jsonpath={$.status.phase}=Running",
        "jsonpath={status.phase}=Running",
        "jsonpath={.status.ready}=true",
        "jsonpath={.metadata.annotations['a.b/c']}=d",
        'jsonpath={.metadata.annotations["a.b/c"]}=d',
        "jsonpath={.spec.ports[0].port}=80",
        "jsonpath={.spec.ports[-1].port}=81",
        'jsonpath={.spec.ports[?(@.name=="grpc")].port}=81',
        "jsonpath={.spec.ports[?(@.port==80)].name}=http",
        "jsonpath={.spec.ports[*].port}",
        '["condition=Ready", "jsonpath={.status.modelStatus.transitionStatus}=UpToDate"]',
    ],
)
def test_what_holds(text: str) -> None:
    assert missing(text) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("condition=Never", "it has no condition Never yet"),
        ("condition=Seen", "condition Seen is False, not True (NoGpu: none is left)"),
        ("condition=Old", "condition Old is about generation 2, not yet 3"),
        ("jsonpath={.status.url}", "it has no .status.url yet"),
        ("jsonpath={.status.phase}=Ready", ".status.phase is Running, not Ready"),
        ("jsonpath={.spec.ports[*].port}=80", ".spec.ports[*].port gives 2 values, and one is needed"),
        ("jsonpath={.spec.ports[7].port}", "it has no .spec.ports[7].port yet"),
    ],
)
def test_what_does_not_hold_says_what_is_so(text: str, why: str) -> None:
    assert missing(text) == [why]


def test_every_part_of_an_array_is_named_that_does_not_hold() -> None:
    assert len(missing('["condition=Ready", "condition=A", "condition=B"]')) == 2


def test_the_status_own_observed_generation_counts_for_conditions_without_one() -> None:
    old = {"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}}
    assert missing("condition=Ready", old) == ["condition Ready is about generation 1, not yet 2"]


@pytest.mark.parametrize(
    "text", ["", "Ready", "condition=", "jsonpath=.a", "jsonpath={.a[}", "jsonpath={.a}b", "[]", "[1]", "[nonsense"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(BadCondition):
        parse(text)
