"""Servers that keep their data on a volume of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mistral_on_l4.manifests.metadata import manifest, metadata


def claim_spec(storage_class: Any, size: str) -> dict[str, Any]:
    """Spec of a PersistentVolumeClaim of one node at a time."""
    return {"accessModes": ["ReadWriteOnce"], "storageClassName": storage_class, "resources": {"requests": {"storage": size}}}


def single_server(
    name: str,
    namespace: str,
    tags: Mapping[str, str],
    selector: Mapping[str, str],
    pod: Mapping[str, Any],
    storage_class: Any,
    size: str,
    annotations: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A StatefulSet of one pod, whose volume `data` goes with it. annotations: of the pod."""
    pod_metadata: dict[str, Any] = {"labels": dict(tags)}
    if annotations:
        pod_metadata["annotations"] = dict(annotations)
    spec = {
        "serviceName": name,
        "replicas": 1,
        "selector": {"matchLabels": dict(selector)},
        "template": {"metadata": pod_metadata, "spec": dict(pod)},
        "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": dict(selector)}, "spec": claim_spec(storage_class, size)}],
        # Claims of a StatefulSet outlive it otherwise, and their volumes go on billing.
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
    }
    return manifest("apps/v1", "StatefulSet", metadata(name, namespace, tags), spec=spec)
