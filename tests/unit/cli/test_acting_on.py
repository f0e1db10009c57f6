"""A command that changes something says first of which stack, and where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
import typer
from typer.testing import CliRunner

from mistral_on_l4.cli import park, unpark, weights
from mistral_on_l4.cluster.client import KubeClient
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.local import LocalStack
from mistral_on_l4.jobs.weights_store import Store


@pytest.mark.parametrize("app", [park.app, unpark.app])
def test_parking_names_stack_account_region_and_cluster_before_it_resizes(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sts:
        def get_caller_identity(self) -> dict[str, str]:
            return {"Account": "123456789012"}

    def resize_pools(*_: Any) -> dict[str, int]:
        typer.echo("resized", err=True)
        return {}

    monkeypatch.setattr(park, "Clients", lambda *_: lambda _: Sts())
    monkeypatch.setattr(park, "resize_pools", resize_pools)
    said = CliRunner().invoke(app, ["-s", "dev"]).stderr.splitlines()
    assert said == ["stack dev in account 123456789012, us-east-1, cluster mistral-on-l4-dev", "resized"]


@pytest.mark.parametrize(("options", "said"), [(["--yes"], "stack local in /the/home\n"), ([], "")])
def test_pruning_names_stack_and_home_where_it_deletes(options: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connection_to(settings: Any, _: str) -> Iterator[Connection]:
        local = LocalStack(Path("/the/home"), Path(), "", "", 0, "kubectl")
        client = create_autospec(KubeClient, instance=True)
        client.get.return_value = {
            "spec": {"clusterIP": "127.64.0.1", "ports": [{"port": 9000}]},
            "data": {"AWS_ACCESS_KEY_ID": "YQ==", "AWS_SECRET_ACCESS_KEY": "Yg==", "ca.crt": "Yw=="},
        }
        yield Connection(client, settings, local)

    monkeypatch.setattr(weights, "connection_to", connection_to)
    monkeypatch.setattr(weights, "Store", lambda *_, **__: create_autospec(Store, instance=True))
    monkeypatch.setattr(weights, "_prunable", lambda *_, **__: ({}, [], []))
    assert CliRunner().invoke(weights.app, ["prune", *options]).stderr == said
