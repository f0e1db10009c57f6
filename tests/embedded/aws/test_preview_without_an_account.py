"""`demo preview` of stacks that build on what is in an account already, and whose secrets only others can decrypt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded.home import CHECKOUT, HOME_VARIABLE

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def preview(home: Path, tmp_path: Path) -> Any:
    """preview(config) -> everything that `demo preview -s dev` of the shipped stack with this configuration says."""

    def run(config: dict[str, Any]) -> str:
        for name in ("Pulumi.yaml", "__main__.py"):
            shutil.copy(CHECKOUT / name, tmp_path)
        shutil.copytree(CHECKOUT / "components", tmp_path / "components")
        document = yaml.safe_load((CHECKOUT / "Pulumi.dev.yaml").read_text())
        document["config"] |= config
        document["encryptionsalt"] = "v1:c29tZWJvZHkncw==:v1:bm90aGluZw=="
        text = yaml.safe_dump(document)
        (tmp_path / "Pulumi.dev.yaml").write_text(text)
        command = [sys.executable, "-m", "mistral_on_l4", "preview", "-s", "dev", "--non-interactive"]
        command += ["--policy-pack", str(CHECKOUT / "policies")]
        environment = {**os.environ, HOME_VARIABLE: str(home), "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "Pulumi.dev.yaml").read_text() == text, "a tracked file was changed"
        return done.stdout + done.stderr

    return run


def test_a_stack_in_an_adopted_cluster_with_an_external_store_is_previewed(preview: Any) -> None:
    secret = {"secure": "v1:bm9uY2U=:Y2lwaGVydGV4dA=="}
    said = preview(
        {
            "mistral-on-l4:cluster": {"name": "shared", "existing": True},
            "mistral-on-l4:objectStore": {
                "kind": "external",
                "endpoint": "https://s3.us-east-1.amazonaws.com",
                "bucket": "weights",
            },
            "mistral-on-l4:storeAccessKeyId": secret,
            "mistral-on-l4:storeSecretAccessKey": secret,
        }
    )
    assert "assumed to exist: EKS cluster shared" in said
    assert "not decrypted, a placeholder in each place: mistral-on-l4:storeAccessKeyId, mistral-on-l4:storeSecretAccessKey" in said
    assert "InferenceService mistral-24b-full-service" in said
    assert "aws:eks:Cluster" not in said
    assert "aws:eks:NodeGroup pool-l4-1gpu-nodes" in said


def test_a_stack_in_an_existing_network_is_previewed(preview: Any) -> None:
    said = preview({"mistral-on-l4:network": {"existingVpcId": "vpc-0a1b", "existingSubnetIds": ["subnet-0a", "subnet-0b"]}})
    assert "assumed to exist: network vpc-0a1b with subnet-0a, subnet-0b" in said
    assert "aws:eks:Cluster" in said
    assert "aws:ec2:Vpc" not in said
