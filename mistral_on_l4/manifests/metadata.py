"""Names and labels that several objects share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mistral_on_l4.config.names import PROJECT

MANAGER_LABELS = {"app.kubernetes.io/part-of": PROJECT, "app.kubernetes.io/managed-by": "pulumi"}

REVISION_ANNOTATION = "mistral-on-l4/revision"
# What a service loads, which its prefix in the bucket does not say.
WEIGHTS_ANNOTATION = "mistral-on-l4/weights"
# Changes with the Secrets that a pod reads when it starts, and only then (components/secrets.py).
KEYS_ANNOTATION = "mistral-on-l4/keys"
PREDICTED_TTFT_ANNOTATION = "mistral-on-l4/predicted-ttft-ms"
PREDICTED_TPOT_ANNOTATION = "mistral-on-l4/predicted-tpot-ms"
# A Job that failed is made again by the next `pulumi up` instead of staying failed for ever.
REPLACE_FAILED_JOB = {"pulumi.com/replaceUnready": "true"}
# Pulumi does not wait until the object is ready.
SKIP_AWAIT = {"pulumi.com/skipAwait": "true"}


def labels(name: str, component: str) -> dict[str, str]:
    """The recommended labels (https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/)."""
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/component": component, **MANAGER_LABELS}


def selector(name: str, component: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/component": component}


def metadata(
    name: str,
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "labels": dict(labels or MANAGER_LABELS)}
    if namespace:
        meta["namespace"] = namespace
    if annotations:
        meta["annotations"] = dict(annotations)
    return meta


def manifest(api_version: str, kind: str, metadata: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A whole object. fields: beside metadata, such as spec, in the API's camelCase."""
    return {"apiVersion": api_version, "kind": kind, "metadata": dict(metadata), **fields}


def fingerprint(*parts: Any) -> str:
    """Ten hex digits that change when any part changes. Parts are JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
