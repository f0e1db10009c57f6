"""`demo status` and `demo chat` on a stack of which a part is down: what is well is shown, what is not is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
import requests
import typer
from typer.testing import CliRunner

from mistral_on_l4.cli import Failure, chat, compare, stacks, status
from mistral_on_l4.cli.stacks import stack_settings
from mistral_on_l4.cluster.chat import Answer, ChatError
from mistral_on_l4.cluster.client import KubeClient, Unreachable
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.endpoints import Endpoint
from mistral_on_l4.cluster.live import ServiceState
from mistral_on_l4.cluster.local import LocalStack


def listed(api_version: str, kind: str, namespace: str | None = None, label_selector: str | None = None) -> dict[str, Any]:
    """One ready service, and a registry whose pod crashes."""
    meta = {"name": "it", "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {}}
    if kind == "InferenceService":
        return {"items": [{"metadata": meta, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}]}
    if label_selector and label_selector.startswith("app.kubernetes.io/name=private"):
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
        ended = {"terminated": {"message": "disk full"}}
        containers = [{"name": "registry", "state": waiting, "lastState": ended}]
        return {"items": [{"metadata": meta, "spec": {"containers": []}, "status": {"containerStatuses": containers}}]}
    return {"items": []}


def connection_without(*refused: str) -> Any:
    """A connection to that cluster, in which Services whose names begin with `refused` cannot be reached."""

    @contextmanager
    def service(name: str, namespace: str) -> Iterator[str]:
        if name.startswith(refused):
            raise requests.ConnectionError
        yield f"http://{name}"

    client = create_autospec(KubeClient, instance=True)
    client.list.side_effect = listed
    connection = create_autospec(Connection, instance=True, client=client, settings=stack_settings("local"), local=None)
    connection.service.side_effect = service
    return connection


def test_a_registry_that_is_down_hides_neither_services_nor_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connection_to(*_: Any) -> Iterator[Any]:
        yield connection_without("private-ai-registry")

    monkeypatch.setattr(status, "connection_to", connection_to)
    ended = CliRunner().invoke(status.app, [])
    assert isinstance(ended.exception, Failure)
    assert str(ended.exception).endswith("; the model registry does not answer: container registry: CrashLoopBackOff: disk full")
    assert "│ it" in ended.output
    assert '"registeredModels": null' in CliRunner().invoke(status.app, ["--json"]).output


def test_a_service_that_gives_no_answer_takes_no_others_answer_along(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer_of(client: Any, name: str, *_: Any) -> Answer:
        if name == "dead":
            raise ChatError(f"{name} does not answer: refused")
        heard.append(name)
        return Answer("well", 1.0, None)

    @contextmanager
    def open_endpoints(*_: Any) -> Iterator[list[Endpoint]]:
        yield [Endpoint(state, "http://127.0.0.1:9", None, None) for state in states]

    heard: list[str] = []
    monkeypatch.setattr(compare, "answer_of", answer_of)
    monkeypatch.setattr(compare, "open_endpoints", open_endpoints)
    states = [ServiceState(name, True, 1, None, None, 0, None, None, None) for name in ("first", "dead", "last")]
    with pytest.raises(Failure, match=r"^dead does not answer: refused$"):
        compare.ask_in_turn(connection_without("nothing"), "local", states, "?", 1)
    assert heard == ["first", "last"]


def test_an_api_server_that_does_not_answer_is_named_with_the_command_that_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connect(_: Any) -> Iterator[Any]:
        raise Unreachable("https://127.0.0.1:6443", "connection refused")
        yield

    monkeypatch.setattr(stacks, "connect", connect)
    ended = CliRunner().invoke(status.app, [])
    assert isinstance(ended.exception, Failure)
    assert str(ended.exception).endswith("does not answer: connection refused: `make up` starts it again")


def cluster_of(monkeypatch: pytest.MonkeyPatch, owner: str | None, **outage: Any) -> Any:
    """A cluster whose namespaces are a stack's, local only with an outage or without one; the connection that commands get."""
    connection = connection_without()
    labels = {} if owner is None else {"mistral-on-l4/stack": owner}
    connection.client.request.side_effect = lambda *_, **__: {"metadata": {"labels": labels}}
    if outage:
        connection.local = LocalStack(Path(), Path(), "", "", 0, "kubectl", **outage)

    @contextmanager
    def connect(_: Any) -> Iterator[Any]:
        yield connection

    monkeypatch.setattr(stacks, "connect", connect)
    return connection


@pytest.mark.parametrize("app", [status.app, chat.app])
def test_another_stacks_cluster_is_not_shown_as_this_ones(monkeypatch: pytest.MonkeyPatch, app: typer.Typer) -> None:
    cluster_of(monkeypatch, "local")
    ended = CliRunner().invoke(app, ["-s", "dev"])
    assert ended.output == ""
    assert str(ended.exception) == (
        "namespace private-ai of the cluster that kubectl points at (KUBECONFIG) is stack local's, not dev's: log in to the cluster "
        "of stack dev"
    )


@pytest.mark.parametrize("owner", ["dev", None])
def test_a_stacks_own_cluster_and_one_without_it_are_shown(monkeypatch: pytest.MonkeyPatch, owner: str | None) -> None:
    cluster_of(monkeypatch, owner)
    assert '"name": "it"' in CliRunner().invoke(status.app, ["-s", "dev", "--json"]).output


def test_a_stopped_cluster_is_one_line_and_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = cluster_of(monkeypatch, "local", outage="the local cluster is stopped: `make up` starts it again")
    ended = CliRunner().invoke(status.app, [])
    assert (ended.output, str(ended.exception)) == ("", "the local cluster is stopped: `make up` starts it again")
    connection.client.request.assert_not_called()


def test_a_dead_agent_is_named_because_what_pods_are_shown_may_be_old(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_of(monkeypatch, "local", down=("agent",))
    ended = CliRunner().invoke(status.app, [])
    assert "│ it" in ended.output
    assert str(ended.exception).startswith("agent of the local cluster does not run, so what is shown may be old: `make up`")
