"""An AWS stack previewed, brought up and taken down without an account: the commands that people run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(1800)]

PROJECT = Path(__file__).resolve().parents[3]


def demo(home: Path, *arguments: str, seconds: float = 1500.0) -> subprocess.CompletedProcess[str]:
    """The command without any AWS credentials, whatever this machine has."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PULUMI_"))}
    environment |= {"MISTRAL_ON_L4_HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}
    command = [sys.executable, "-m", "mistral_on_l4", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=seconds, check=False)


def test_dev_is_previewed_without_credentials_and_lists_every_resource(tmp_path: Path) -> None:
    before = (PROJECT / "Pulumi.dev.yaml").read_text()
    demo(tmp_path, "preview", "-s", "dev")
    started = time.monotonic()
    done = demo(tmp_path, "preview", "-s", "dev", "--json")
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr[-2000:]
    steps = json.loads(done.stdout[done.stdout.index("{") :])["steps"]
    assert {step["op"] for step in steps} <= {"create", "read"}
    kinds = [step["urn"].split("::")[2].rpartition("$")[2] for step in steps]
    assert kinds.count("aws:eks/nodeGroup:NodeGroup") == 4
    assert kinds.count("kubernetes:serving.kserve.io/v1beta1:InferenceService") == 2
    assert kinds.count("kubernetes:helm.sh/v3:Release") == 5
    assert (PROJECT / "Pulumi.dev.yaml").read_text() == before
    print(f"preview of dev: {len(steps)} resources, {seconds:.1f} s")


def test_a_stack_that_is_no_aws_stack_is_not_rehearsed(tmp_path: Path) -> None:
    done = demo(tmp_path, "rehearse", "-s", "local", seconds=60)
    assert done.returncode == 1
    assert "only AWS stacks are rehearsed" in done.stderr


def test_dev_comes_up_answers_and_goes_in_calm_and_in_storm_without_a_trace(tmp_path: Path) -> None:
    done = demo(tmp_path, "rehearse", "-s", "dev")
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    last = json.loads(done.stdout.strip().splitlines()[-1])
    assert last["resources"] > 120
    assert last["edges_checked"] > 100
    assert (last["edges_violated"], last["left_over"], last["violations"], last["switches"]) == (0, 0, 0, [])
    assert not (tmp_path / "rehearsal").exists()
