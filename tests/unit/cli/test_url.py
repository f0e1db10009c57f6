"""Where a stack's services are reached: `demo url`, `demo env` and `demo hub`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from mistral_on_l4.cli import Failure, env, hub, url
from mistral_on_l4.cluster.client import KubeClient
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.local import LocalStack
from mistral_on_l4.config.settings import settings_from


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LocalStack:
    """The local stack, whose Services have address 127.64.0.1 and whose ports below 1024 are shifted; its kubectl prints a key."""
    kubectl = tmp_path / "kube ctl"
    kubectl.write_text("#!/bin/sh\nprintf c2VjcmV0\n")
    kubectl.chmod(0o755)
    stack = LocalStack(tmp_path, tmp_path / "kubeconfig", "http://127.64.0.9:80", "", 8000, str(kubectl))
    client = create_autospec(KubeClient, instance=True)
    client.get.side_effect = lambda _, kind, name, namespace: {
        "spec": {"clusterIP": "127.64.0.1", "ports": [{"port": 80 if "predictor" in name else 9000}]}
    }

    @contextmanager
    def connection_to(settings: Any, _: str) -> Iterator[Connection]:
        yield Connection(client, settings, stack)

    monkeypatch.setattr(url, "connection_to", connection_to)
    monkeypatch.setattr(hub, "local_stack", lambda: stack)
    return stack


@pytest.mark.usefixtures("local")
def test_the_address_of_a_service_stands_alone_on_standard_output() -> None:
    said = CliRunner().invoke(url.app, ["mistral-24b-fp8"])
    assert said.stdout == "http://127.64.0.1:8080\n"
    assert "get secret vllm-api-key -n private-ai" in said.stderr


@pytest.mark.usefixtures("local")
def test_without_a_service_all_are_listed_with_registry_and_object_store() -> None:
    said = CliRunner().invoke(url.app, []).stdout
    assert [line.split()[0] for line in said.splitlines()[1:]] == [
        "mistral-24b-full",
        "mistral-24b-fp8",
        "registry",
        "object-store",
    ]


@pytest.mark.usefixtures("local")
def test_an_unknown_service_is_answered_with_the_names_there_are() -> None:
    failed = CliRunner().invoke(url.app, ["mistral"]).exception
    assert isinstance(failed, Failure)
    assert str(failed) == "no service 'mistral'; there are mistral-24b-full, mistral-24b-fp8, registry, object-store"


def test_of_a_cluster_elsewhere_the_address_comes_with_the_command_that_it_needs() -> None:
    said = CliRunner().invoke(url.app, ["mistral-24b-fp8", "-s", "dev"])
    assert said.stdout == "http://127.0.0.1:8081\n"
    assert "while this runs: kubectl port-forward -n private-ai service/mistral-24b-fp8-predictor 8081:80" in said.stderr


@pytest.mark.usefixtures("local")
def test_the_exports_reach_the_service_and_the_key_is_read_by_the_shell_alone() -> None:
    exports = CliRunner().invoke(env.app, ["mistral-24b-fp8"]).stdout
    assert "secret\n" not in exports
    script = exports + 'echo "$OPENAI_BASE_URL $OPENAI_API_KEY $OPENAI_MODEL"'
    shell = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True, timeout=10)
    assert shell.stdout == "http://127.64.0.1:8080/v1 secret mistral-24b-fp8\n"


@pytest.mark.usefixtures("local")
def test_the_first_service_is_meant_where_none_is_named() -> None:
    assert "OPENAI_MODEL=mistral-24b-full" in CliRunner().invoke(env.app, []).stdout


def test_services_that_ask_for_no_key_get_one_that_the_client_does_not_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_from({"platform": "eks", "access": {"auth": "none"}}, "test")
    monkeypatch.setattr(env, "stack_settings", lambda _: settings)
    assert "export OPENAI_API_KEY=none" in CliRunner().invoke(env.app, ["-s", "dev"]).stdout


@pytest.mark.usefixtures("local")
def test_the_local_hub_is_named_as_a_stand_in_and_the_public_one_as_such() -> None:
    local, public = CliRunner().invoke(hub.app, []), CliRunner().invoke(hub.app, ["-s", "dev"])
    assert local.stdout.splitlines()[0] == "http://127.64.0.9:80"
    assert "stand-in" in local.stderr
    assert public.stdout.splitlines()[0] == "https://huggingface.co"
    assert "mistralai/Mistral-Small-24B-Instruct-2501" in public.stdout
