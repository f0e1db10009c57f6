"""Every object of the shipped stacks, asked of the API server strictly: the provider drops an unknown field silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bench.mutation.preview import record, shipped
from mistral_on_l4.cluster.client import ApiError
from tests.support.engine import SIGNATURE

pytestmark = pytest.mark.embedded

# Values that only an `up` knows are strings there; none of them stands where the API wants a number.
ABSENT = ("cert-manager.io/v1", "apiextensions.k8s.io/v1")


def objects_of(stack: str, namespace: str) -> list[dict[str, Any]]:
    """What the stack declares, in one namespace; of reads, and of kinds that the embedded cluster has not, nothing."""
    found = []
    for resource in record(stack, shipped(stack)).resources:
        if not resource.token.startswith("kubernetes:") or "kind" not in resource.props or resource.token.endswith(":Release"):
            continue
        manifest = in_clear(resource.props)
        if manifest["apiVersion"] in ABSENT or manifest["kind"] == "ClusterStorageContainer":
            continue
        if "namespace" in manifest["metadata"]:
            manifest["metadata"]["namespace"] = namespace
        # An object of the same name may be there, and who is made from what is not the question.
        name = manifest["metadata"].get("name", resource.name)
        manifest["metadata"]["name"] = f"{name}-asked"[:63].strip("-.")
        found.append(manifest)
    return found


def in_clear(value: Any) -> Any:
    """A copy without the marks of secrets: the provider sends what they hold."""
    if isinstance(value, Mapping):
        return in_clear(value["value"]) if SIGNATURE in value else {key: in_clear(item) for key, item in value.items()}
    return [in_clear(item) for item in value] if isinstance(value, list) else value


def complaints(cluster: Any, asked: list[dict[str, Any]]) -> list[str]:
    """What the API server says against objects, which it does not keep: asked by the provider's way of creating, but strictly."""
    said = []
    for manifest in asked:
        meta = manifest["metadata"]
        path = cluster.client.path(manifest["apiVersion"], manifest["kind"], meta["name"], meta.get("namespace"))
        params = {"fieldManager": "asked", "dryRun": "All", "fieldValidation": "Strict"}
        try:
            cluster.client.request("PATCH", path, manifest, params=params, content_type="application/apply-patch+yaml")
        except ApiError as error:
            said.append(f"{manifest['kind']} {meta['name']}: {error.message}")
    return said


@pytest.mark.parametrize(("stack", "least"), [("local", 40), ("dev", 55)])
def test_the_api_server_finds_no_unknown_or_wrong_field_in_any_object(cluster: Any, namespace: str, stack: str, least: int) -> None:
    asked = objects_of(stack, namespace)
    assert len(asked) >= least
    assert complaints(cluster, asked) == []


def test_a_misspelt_field_is_found(cluster: Any, namespace: str) -> None:
    asked = next(found for found in objects_of("local", namespace) if found["kind"] == "Job")
    asked["spec"]["backofLimit"] = 1
    assert any("backofLimit" in line for line in complaints(cluster, [asked]))
