"""Small objects of the API, as tests need them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import pytest

Object = dict[str, Any]


@pytest.fixture
def pod() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-0",
            "namespace": "shop",
            "uid": "11111111-2222-3333-4444-555555555555",
            "labels": {"app": "web", "tier": 'a"b'},
            "annotations": {"note": "first\nsecond"},
        },
        "spec": {
            "nodeName": "gpu-0",
            "serviceAccountName": "clerk",
            "containers": [{"name": "main", "image": "img", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}}],
        },
        "status": {"podIP": "10.128.0.7", "hostIP": "127.0.0.1"},
    }


@pytest.fixture
def objects() -> dict[tuple[str, str], Object]:
    def secret(**data: str) -> Object:
        return {"kind": "Secret", "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}}

    return {
        ("Secret", "keys"): secret(user="ann", password="p4ss"),
        ("ConfigMap", "settings"): {"kind": "ConfigMap", "data": {"mode": "fast", "not valid": "x", "level": "3"}},
    }


@pytest.fixture
def lookup(objects: Mapping[tuple[str, str], Object]) -> Callable[[str, str], Object | None]:
    return lambda kind, name: objects.get((kind, name))


@pytest.fixture
def service() -> Callable[..., Object]:
    def make(name: str, namespace: str, address: str, *ports: Object, **spec: Any) -> Object:
        return {
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": address, "ports": list(ports) or [{"port": 80}], **spec},
        }

    return make
