"""What changed between two sets of inputs, and which changes need a new object.

The rules are those of pulumi-kubernetes 4.34 (its documentation and the API's own immutable fields): inputs are compared with
inputs, never with the live object, so what a controller writes is no difference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedded.plugins.values import UNKNOWN, Secret

Path = tuple[str | int, ...]

ADD, DELETE, UPDATE = "ADD", "DELETE", "UPDATE"

# (group, kind) -> paths whose change needs a new object. The group of v1 is "".
_IMMUTABLE: Mapping[tuple[str, str], tuple[Path, ...]] = {
    ("batch", "Job"): (
        ("spec", "template"),
        ("spec", "selector"),
        ("spec", "completions"),
        ("spec", "completionMode"),
        ("spec", "parallelism"),
        ("spec", "podFailurePolicy"),
    ),
    ("apps", "Deployment"): (("spec", "selector"),),
    ("apps", "DaemonSet"): (("spec", "selector"),),
    ("apps", "StatefulSet"): (
        ("spec", "selector"),
        ("spec", "serviceName"),
        ("spec", "podManagementPolicy"),
        ("spec", "volumeClaimTemplates"),
    ),
    ("", "PersistentVolumeClaim"): (
        ("spec", "accessModes"),
        ("spec", "selector"),
        ("spec", "storageClassName"),
        ("spec", "volumeName"),
        ("spec", "volumeMode"),
        ("spec", "dataSource"),
        ("spec", "dataSourceRef"),
        ("spec", "resources"),
    ),
    ("", "Pod"): (
        ("spec", "containers"),
        ("spec", "initContainers"),
        ("spec", "volumes"),
        ("spec", "nodeName"),
        ("spec", "nodeSelector"),
        ("spec", "restartPolicy"),
        ("spec", "serviceAccountName"),
        ("spec", "securityContext"),
        ("spec", "hostNetwork"),
    ),
    ("", "Secret"): (("type",),),
    ("", "Service"): (("spec", "clusterIP"),),
    ("rbac.authorization.k8s.io", "RoleBinding"): (("roleRef",),),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (("roleRef",),),
    ("storage.k8s.io", "StorageClass"): (
        ("provisioner",),
        ("parameters",),
        ("reclaimPolicy",),
        ("volumeBindingMode",),
    ),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): (("spec", "group"), ("spec", "names", "kind"), ("spec", "scope")),
}
_IDENTITY: tuple[Path, ...] = (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"))
_DATA: tuple[Path, ...] = (("data",), ("binaryData",), ("stringData",), ("immutable",))


@dataclass(frozen=True)
class Difference:
    """One changed property. kind: ADD, DELETE or UPDATE; replaces: whether it needs a new object."""

    path: Path
    kind: str
    replaces: bool

    @property
    def text(self) -> str:
        return path_text(self.path)


@dataclass(frozen=True)
class Mutability:
    """Which data changes are made in place: the provider's enableConfigMapMutable and enableSecretMutable."""

    config_maps: bool = False
    secrets: bool = False


def compare(old: Mapping[str, Any], new: Mapping[str, Any], mutability: Mutability) -> list[Difference]:
    """Every changed property from old to new inputs, in order of their paths."""
    immutable = _immutable_paths(old, new, mutability)
    return [
        Difference(path, kind, any(path[: len(rule)] == rule for rule in immutable))
        for path, kind in sorted(_changes((), old, new), key=lambda change: [str(part) for part in change[0]])
    ]


def delete_before_replace(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the new object would have the old one's name, so that the old one has to go first."""
    from embedded.plugins.kubernetes.objects import autonamed

    old_meta, new_meta = old.get("metadata") or {}, new.get("metadata") or {}
    same = all(old_meta.get(key) == new_meta.get(key) for key in ("name", "namespace"))
    return same and bool(new_meta.get("name")) and not autonamed(new)


def _immutable_paths(old: Mapping[str, Any], new: Mapping[str, Any], mutability: Mutability) -> list[Path]:
    api_version, kind = str(new.get("apiVersion", "")), str(new.get("kind", ""))
    group = api_version.rpartition("/")[0]
    paths = [*_IDENTITY, *_IMMUTABLE.get((group, kind), ())]
    if group == "" and kind in ("ConfigMap", "Secret"):
        mutable = mutability.config_maps if kind == "ConfigMap" else mutability.secrets
        # An object that says `immutable: true` cannot change in place whatever the provider is told; one that only now
        # becomes immutable can.
        if not mutable or old.get("immutable") is True:
            paths += _DATA
    return paths


def _changes(path: Path, old: Any, new: Any) -> list[tuple[Path, str]]:
    old, new = _plain(old), _plain(new)
    if new is UNKNOWN or old is UNKNOWN:
        return [(path, UPDATE)]
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[tuple[Path, str]] = []
        for key in old.keys() | new.keys():
            if key not in new:
                found += [] if _empty(old[key]) else [((*path, key), DELETE)]
            elif key not in old:
                found += [] if _empty(new[key]) else [((*path, key), ADD)]
            else:
                found += _changes((*path, key), old[key], new[key])
        return found
    if isinstance(old, list) and isinstance(new, list):
        found = []
        for index in range(max(len(old), len(new))):
            if index >= len(new):
                found.append(((*path, index), DELETE))
            elif index >= len(old):
                found.append(((*path, index), ADD))
            else:
                found += _changes((*path, index), old[index], new[index])
        return found
    same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [(path, UPDATE)]


def _plain(value: Any) -> Any:
    while isinstance(value, Secret):
        value = value.value
    return value


def _empty(value: Any) -> bool:
    """An absent map and an empty one are the same to the API server."""
    value = _plain(value)
    return value is None or value in ({}, [])


_NAME = re.compile(r"^[A-Za-z_$][A-Za-z0-9_$]*$")


def path_text(path: Path) -> str:
    """A property path as the engine writes it: spec.containers[0].image, metadata.annotations["a.b/c"]."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _NAME.match(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text
