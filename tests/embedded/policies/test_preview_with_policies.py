"""The pack in Pulumi's own engine: previews of the AWS stack on the stand-in providers, with an empty account."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.embedded

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    from rich.console import Console

    from embedded.cli.preview import detached_environment
    from embedded.home import LocalHome

    home = LocalHome(tmp_path_factory.mktemp("preview"))
    return {**detached_environment(home, "dev", Console(quiet=True)), "PULUMI_DEBUG_COMMANDS": "true"}


@pytest.fixture
def preview(environment: dict[str, str], tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """preview(change=...) -> exit code, event stream."""

    def run(change: Callable[[dict[str, Any]], None] = lambda _: None) -> tuple[int, Path]:
        config = yaml.safe_load((PROJECT / "Pulumi.dev.yaml").read_text())["config"]
        change(config)
        file, events = tmp_path / "Pulumi.dev.yaml", tmp_path / "events.jsonl"
        file.write_text(yaml.safe_dump({"config": config}))
        command = ["pulumi", "preview", "-s", "dev", "--config-file", str(file), "--non-interactive", "--event-log", str(events)]
        command += ["--policy-pack", "policies"]
        done = subprocess.run(command, cwd=PROJECT, env=environment, check=False, capture_output=True, timeout=300)
        return done.returncode, events

    return run


def findings(events: Path) -> list[dict[str, Any]]:
    found = (json.loads(line).get("policyEvent") for line in events.read_text().splitlines())
    return [event for event in found if event]


def test_the_shipped_stack_passes(preview: Callable[..., Any]) -> None:
    code, events = preview()
    assert code == 0, findings(events)
    assert {event["enforcementLevel"] for event in findings(events)} <= {"advisory"}


def test_two_previews_of_one_commit_are_alike_to_the_comment_though_no_state_keeps_what_is_drawn(
    preview: Callable[..., Any],
) -> None:
    from mistral_on_l4.pull_request.events import between, read_events

    once, again = (read_events(preview()[1]) for _ in range(2))
    assert len(once.declared) > 100
    assert [(change.op, change.name) for change in between(once, again).changes] == []


def test_a_mandatory_finding_stops_the_preview_and_says_what_to_do(preview: Callable[..., Any]) -> None:
    def latest(config: dict[str, Any]) -> None:
        config["mistral-on-l4:images"] = {"overrides": {"engine": "docker.io/vllm/vllm-openai:latest"}}

    code, events = preview(change=latest)
    assert code != 0
    mandatory = [event for event in findings(events) if event["enforcementLevel"] == "mandatory"]
    assert {event["policyName"] for event in mandatory} == {"images-are-pinned", "image-tags-name-a-release"}
    assert all("Fix: " in event["message"] for event in mandatory)


def test_a_stack_policy_sees_objects_of_a_cluster_that_does_not_exist_yet(preview: Callable[..., Any]) -> None:
    """In the first preview of a new cluster the engine shows stack policies no property of its objects."""

    def small(config: dict[str, Any]) -> None:
        config["mistral-on-l4:objectStore"] = {"volumeSize": "50Gi"}

    code, events = preview(change=small)
    assert code != 0
    assert "store-holds-its-checkpoints" in {event["policyName"] for event in findings(events)}
