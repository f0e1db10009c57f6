"""Every object of the shipped stacks, asked of the API server with strict validation: the provider drops an unknown field silently."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from bench.mutation.preview import record, shipped

pytestmark = pytest.mark.embedded

# Values that only an `up` knows are strings there; none of them stands where the API wants a number.
ABSENT = ("cert-manager.io/v1", "apiextensions.k8s.io/v1")


def objects_of(stack: str, namespace: str) -> list[dict[str, Any]]:
    """What the stack declares, in one namespace; of reads, and of kinds that the embedded cluster has not, nothing."""
    found = []
    for resource in record(stack, shipped(stack)).resources:
        if not resource.token.startswith("kubernetes:") or "kind" not in resource.props or resource.token.endswith(":Release"):
            continue
        manifest = {**resource.props, "metadata": dict(resource.props["metadata"])}
        if manifest["apiVersion"] in ABSENT or manifest["kind"] == "ClusterStorageContainer":
            continue
        if "namespace" in manifest["metadata"]:
            manifest["metadata"]["namespace"] = namespace
        # An object of the same name may be there, and who is made from what is not the question.
        manifest["metadata"]["name"] = f"{manifest['metadata']['name']}-asked"[:63].strip("-.")
        found.append(manifest)
    return found


@pytest.mark.parametrize(("stack", "least"), [("local", 45), ("dev", 55)])
def test_the_api_server_finds_no_unknown_or_wrong_field_in_any_object(cluster: Any, namespace: str, stack: str, least: int) -> None:
    asked = objects_of(stack, namespace)
    assert len(asked) >= least
    command = [cluster.info.tools["kubectl"], "--kubeconfig", str(cluster.home.kubeconfig), "create", "--dry-run=server"]
    done = subprocess.run(
        [*command, "--validate=strict", "-f", "-"],
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": asked}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr.strip().splitlines() == []
    assert done.returncode == 0


def test_a_misspelt_field_is_found(cluster: Any, namespace: str) -> None:
    asked = next(found for found in objects_of("local", namespace) if found["kind"] == "Job")
    asked["spec"]["backofLimit"] = 1
    command = [cluster.info.tools["kubectl"], "--kubeconfig", str(cluster.home.kubeconfig), "create", "--dry-run=server"]
    done = subprocess.run(
        [*command, "--validate=strict", "-f", "-"], input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=False
    )
    assert 'unknown field "spec.backofLimit"' in done.stderr
