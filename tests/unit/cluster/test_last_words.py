"""What an `up` that waits in vain says of the pods behind an object."""

from __future__ import annotations

import base64
from typing import Any
from unittest.mock import create_autospec

import pytest

from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.last_words import last_words, selector_of

KEY = "0123456789abcdef"


def pod(name: str, created: str = "2026-01-01T00:00:00Z", **status: Any) -> dict[str, Any]:
    read = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "vllm-api-key", "key": "api-key"}}}
    spec = {"containers": [{"name": "main", "env": [read]}]}
    return {"metadata": {"name": name, "namespace": "ai", "creationTimestamp": created}, "spec": spec, "status": status}


def client_of(*pods: dict[str, Any], log: str | None = None) -> Any:
    """A cluster with these pods, whose containers wrote `log`; None: no log is kept."""

    def request(method: str, path: str, params: dict[str, str]) -> dict[str, str]:
        if log is None:
            raise ApiError(400, "BadRequest", "not found")
        return {"text": log}

    client = create_autospec(KubeClient, instance=True)
    client.list.return_value = {"items": list(pods)}
    client.request.side_effect = request
    client.get.return_value = {"data": {"api-key": base64.b64encode(KEY.encode()).decode()}}
    return client


def crashed(message: str = "") -> dict[str, Any]:
    ended = {"terminated": {"exitCode": 2, "message": message}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    return {"phase": "Running", "containerStatuses": [{"name": "main", "state": waiting, "lastState": ended, "ready": False}]}


def test_the_end_of_the_log_of_the_run_that_failed_is_repeated_without_any_secret() -> None:
    log = "".join(f"line {number}\n" for number in range(40)) + f"key {KEY}\nerror: unrecognized arguments: --bogus-flag\n"
    client = client_of(pod("old"), pod("new", "2026-01-02T00:00:00Z", **crashed()), log=log)
    said = last_words(client, "ai", "app=it")
    assert said[0].startswith("pod new: container main: CrashLoopBackOff")
    assert said[1] == "the last lines of container main:"
    assert said[-1] == "  error: unrecognized arguments: --bogus-flag"
    assert said[-2] == "  key [secret]"
    assert len(said) == 14
    assert client.request.call_args.kwargs["params"]["previous"] == "true"


def test_where_the_log_is_gone_the_containers_message_is_repeated() -> None:
    assert last_words(client_of(pod("p", **crashed("no such file"))), "ai", "app=it")[-1] == "  no such file"


def test_a_pod_that_cannot_be_placed_says_why_and_has_no_log() -> None:
    why = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient nvidia.com/gpu"}
    client = client_of(pod("p", phase="Pending", conditions=[why]), log="never asked for")
    assert last_words(client, "ai", "app=it") == ["pod p: cannot be placed: 0/1 nodes: Insufficient nvidia.com/gpu"]


def test_pods_that_are_well_say_nothing_and_absent_ones_are_said_to_be_so() -> None:
    well = {"name": "main", "state": {"running": {}}, "ready": True}
    assert last_words(client_of(pod("p", phase="Running", containerStatuses=[well])), "ai", "app=it") == []
    assert last_words(client_of(), "ai", "app=it") == ["none of its pods is there"]


@pytest.mark.parametrize(
    ("kind", "selector"),
    [
        ("Job", "job-name=it"),
        ("InferenceService", "serving.kserve.io/inferenceservice=it"),
        ("Deployment", "a=1,b=2"),
        ("StatefulSet", "a=1,b=2"),
        ("Secret", None),
    ],
)
def test_the_pods_behind_an_object_are_found_by_its_kind(kind: str, selector: str | None) -> None:
    assert selector_of(kind, {"metadata": {"name": "it"}, "spec": {"selector": {"matchLabels": {"b": "2", "a": "1"}}}}) == selector
