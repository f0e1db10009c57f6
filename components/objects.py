"""From whole Kubernetes objects (mistral_on_l4/manifests) to pulumi_kubernetes' classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def body(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for the class of the object's kind, which knows apiVersion and kind itself: metadata, spec and the like."""
    return {key: manifest[key] for key in manifest if key not in ("apiVersion", "kind")}


def custom(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for apiextensions.CustomResource, which has to be told apiVersion and kind."""
    return {"api_version": manifest["apiVersion"], "kind": manifest["kind"], **body(manifest)}
