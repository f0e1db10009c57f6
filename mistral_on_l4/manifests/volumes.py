"""Servers that keep their data on a volume of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mistral_on_l4.config.names import DATA_LABEL, Kept
from mistral_on_l4.manifests.metadata import MANAGER_LABELS, SKIP_AWAIT, manifest, metadata


def data_claim(key: Kept, namespace: str, storage_class: Any, size: str) -> dict[str, Any]:
    """A claim of one node at a time, without a name: Pulumi gives it one, so that a new one can stand beside the old.

    A claim of a WaitForFirstConsumer class binds only when its pod comes, which would wait for the claim: it is not awaited.
    """
    meta = {"namespace": namespace, "labels": {**MANAGER_LABELS, DATA_LABEL: key}, "annotations": dict(SKIP_AWAIT)}
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": storage_class, "resources": {"requests": {"storage": size}}}
    return manifest("v1", "PersistentVolumeClaim", meta, spec=spec)


def single_server(
    name: str,
    namespace: str,
    tags: Mapping[str, str],
    selector: Mapping[str, str],
    pod: Mapping[str, Any],
    claim: Any,
    annotations: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A StatefulSet of one pod, whose volume `data` is a claim by name. annotations: of the pod.

    The claim is no template's: templates cannot change, so that a larger volume would be a new, empty one.
    """
    pod_metadata: dict[str, Any] = {"labels": dict(tags)}
    if annotations:
        pod_metadata["annotations"] = dict(annotations)
    data = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
    spec = {
        "serviceName": name,
        "replicas": 1,
        "selector": {"matchLabels": dict(selector)},
        "template": {"metadata": pod_metadata, "spec": {**pod, "volumes": [*pod.get("volumes", ()), data]}},
    }
    return manifest("apps/v1", "StatefulSet", metadata(name, namespace, tags), spec=spec)
