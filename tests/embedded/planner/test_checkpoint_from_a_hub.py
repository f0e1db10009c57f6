from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.hub.checkpoints import CHECKPOINTS
from embedded.hub.checkpoints import config as config_of
from embedded.hub.repository import prepare
from embedded.hub.server import HubContent, HubServer
from mistral_on_l4.planner.catalogue import load_catalogue
from mistral_on_l4.planner.checkpoint import weights_of
from mistral_on_l4.planner.config_json import architecture_from
from mistral_on_l4.planner.hub import HubRefused, HubUnreachable, read_checkpoint
from mistral_on_l4.planner.quantization import quantization_from
from mistral_on_l4.planner.standalone import Question, plan_checkpoint

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def hub(tmp_path_factory: Any) -> Iterator[HubServer]:
    """A hub with the demo's three checkpoints, small, that huggingface_hub talks to over HTTP."""
    repositories = prepare(tmp_path_factory.mktemp("hub"), CHECKPOINTS)
    with HubServer(("127.0.0.1", 0), HubContent(repositories), quiet=True) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda each: each.precision)
def test_headers_that_a_hub_serves_say_what_the_shapes_say(hub: HubServer, checkpoint: Any) -> None:
    found = read_checkpoint(checkpoint.repository, endpoint=hub.url)
    config = config_of(checkpoint)
    shapes = weights_of(architecture_from(config, "x"), quantization_from(config, "x"))
    assert found.weights.total_bytes == pytest.approx(shapes.total_bytes, rel=1e-4)
    assert found.weights.embedding_bytes == shapes.embedding_bytes
    assert found.tensors > 20
    # consolidated.safetensors holds the same weights again, and is not counted.
    assert found.largest_file_gb < shapes.total_bytes / 1e9


def test_a_checkpoint_is_planned_from_the_hub_not_from_the_catalogue(hub: HubServer) -> None:
    question = Question(model=CHECKPOINTS[1].repository, gpu="L4", endpoint=hub.url)
    plan = plan_checkpoint(question, load_catalogue())
    assert plan.notes == ()
    assert plan.services[0].fits  # the hub's is small; the catalogue's would not fit


def test_a_repository_that_is_not_there_is_one_clear_line(hub: HubServer) -> None:
    with pytest.raises(HubRefused, match="no repository nobody/nothing"):
        read_checkpoint("nobody/nothing", endpoint=hub.url)


def test_a_hub_that_does_not_listen_is_unreachable(hub: HubServer) -> None:
    with pytest.raises(HubUnreachable):
        read_checkpoint(CHECKPOINTS[0].repository, endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize("damage", ["index", "header", "config", "bytes"])
def test_corrupt_metadata_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    from mistral_on_l4.planner import PlanError

    repositories = prepare(tmp_path / "hub", CHECKPOINTS[:1])
    repository = next(iter(repositories.values()))
    name = {"index": "model.safetensors.index.json", "config": "config.json", "bytes": "config.json"}.get(damage)
    if name is None:
        index = json.loads((repository.folder / "model.safetensors.index.json").read_text())
        name = sorted(set(index["weight_map"].values()))[0]
    file = repository.folder / name
    mode = file.stat().st_mode
    file.chmod(0o600)
    content = bytearray(file.read_bytes())
    # The size stays: the hub has announced it. A header's first eight bytes are its length.
    content[:16] = {"header": b"\xff" * 7 + b"\x7f" + b"{" * 8, "bytes": b"\xff" * 16}.get(damage, b"{" * 16)
    file.write_bytes(bytes(content))
    file.chmod(mode)
    with HubServer(("127.0.0.1", 0), HubContent(repositories), quiet=True) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with pytest.raises(PlanError) as caught:
                read_checkpoint(repository.id, endpoint=server.url)
        finally:
            server.shutdown()
            thread.join(10)
    assert repository.id in str(caught.value)
    assert "\n" not in str(caught.value)
