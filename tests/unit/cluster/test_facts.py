"""What a running stack says of itself that the catalogue had to assume."""

from __future__ import annotations

from typing import Any
from unittest.mock import create_autospec

import pytest

from mistral_on_l4.cluster import facts as module
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.facts import facts
from mistral_on_l4.config.settings import settings_from

LOGS = {
    ("seed-1", ""): "copying\ndone: s3://b/p/ holds 12 files; 47 GB came from the hub in 240 s (196 MB/s)",
    ("it-1", "storage-initializer"): "2026-11-28T10:00:00.123456789Z begins\n2026-11-28T10:02:06.5Z done",
    ("it-1", "kserve-container"): "INFO Loading weights took 41.20 seconds\nINFO GPU KV cache size: 13,840 tokens\nINFO chat",
}


def pod(name: str, namespace: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "labels": {"serving.kserve.io/inferenceservice": "it"}}}


@pytest.fixture
def connection() -> Connection:
    node = {
        "metadata": {
            "name": "n",
            "creationTimestamp": "2026-11-28T09:00:00Z",
            "labels": {"mistral-on-l4/pool": "l4-1gpu", "node.kubernetes.io/instance-type": "g6.2xlarge"},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-28T09:00:42Z"}]},
    }
    pulled = 'Successfully pulled image "vllm/vllm-openai:v1" in 4m58.2s (4m58.2s including waiting). Image size: 8123456789 bytes.'
    found: dict[tuple[str, str | None], Any] = {
        ("Node", None): [node, {"metadata": {"name": "system", "creationTimestamp": "", "labels": {}}}],
        ("Event", "private-ai"): [{"reason": "Pulled", "message": pulled}, {"reason": "Started", "message": "Started"}],
        ("Pod", "minio-storage"): [pod("seed-1", "minio-storage")],
        ("Pod", "private-ai"): [pod("it-1", "private-ai")],
    }

    def request(method: str, path: str, params: dict[str, str]) -> dict[str, str]:
        name = path.split("/")[-2]
        if (name, params.get("container", "")) not in LOGS:
            raise ApiError(400, "BadRequest", "no log")
        return {"text": LOGS[name, params.get("container", "")]}

    client = create_autospec(KubeClient, instance=True)
    client.list.side_effect = lambda _, kind, namespace=None, **__: {"items": found[kind, namespace]}
    client.request.side_effect = request
    return Connection(client, settings_from({"platform": "eks"}, "test"), None)


def test_what_logs_events_nodes_and_gpus_say_is_told(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_asked", lambda *_: ["NVIDIA L4, 580.95, 4, 8, 23034 MiB"])
    told = {fact.what: fact.value for fact in facts(connection)}
    assert told["node n"] == "g6.2xlarge in ?, ?, ready 42 s after it joined"
    assert "node system" not in told
    assert told["pull of vllm/vllm-openai:v1"] == "8.1 GB in 4m58.2s"
    assert str(told["seeding, seed-1"]).endswith("(196 MB/s)")
    assert told["it: download"] == "126 s"
    assert [fact.value for fact in facts(connection) if fact.what == "it: engine"] == [
        "Loading weights took 41.20 seconds",
        "GPU KV cache size: 13,840 tokens",
    ]
    assert "NVIDIA L4, 580.95, 4, 8, 23034 MiB" in told.values()


def test_what_a_run_does_not_say_is_named_as_not_told(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_asked", lambda *_: None)
    monkeypatch.setitem(LOGS, ("it-1", "storage-initializer"), "")
    told = {fact.what: fact.value for fact in facts(connection)}
    assert (told["it: GPUs"], told["it: download"]) == (None, None)
