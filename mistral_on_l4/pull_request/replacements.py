"""Which changes need a new object, where no engine says so: without a state, base and head are compared by their inputs.

For a type that the tables do not know, a change is an update. The rules for Kubernetes are held against the real provider in
tests/embedded/provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mistral_on_l4.aws.replacements import REPLACED_BY
from mistral_on_l4.manifests.kept_data import place_of, shrinks

_JOB = ("spec.completions", "spec.parallelism", "spec.selector", "spec.template")
_ROLE_BINDING = ("roleRef",)
# (group, kind) -> paths whose change needs a new object; the group of v1 is "". Source: provider/pkg/provider/diff.go of
# pulumi-kubernetes 4.25, for the kinds of this stack.
_IMMUTABLE: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "PersistentVolumeClaim"): ("spec.accessModes", "spec.selector", "spec.storageClassName", "spec.volumeName"),
    ("", "Secret"): ("type",),
    ("", "Service"): ("spec.clusterIP",),
    ("apps", "DaemonSet"): ("spec.selector",),
    ("apps", "Deployment"): ("spec.selector",),
    ("apps", "StatefulSet"): (
        "spec.podManagementPolicy",
        "spec.revisionHistoryLimit",
        "spec.selector",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    ("batch", "Job"): _JOB,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _ROLE_BINDING,
    ("rbac.authorization.k8s.io", "RoleBinding"): _ROLE_BINDING,
    ("storage.k8s.io", "StorageClass"): ("parameters", "provisioner"),
}
_IDENTITY = ("apiVersion", "kind", "metadata.name", "metadata.namespace")
# Kind -> (provider option that lets its data change in place, fields that hold data).
_DATA: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ConfigMap": ("enableConfigMapMutable", ("binaryData", "data")),
    "Secret": ("enableSecretMutable", ("data", "stringData", "type")),
}


def needs_a_new_object(token: str, before: Mapping[str, Any], after: Mapping[str, Any], provider: Mapping[str, Any]) -> bool:
    """before, after: inputs of a resource; provider: those of its provider, {} if unknown."""
    if token.startswith("kubernetes:"):
        was, now = place_of(token, before), place_of(token, after)
        if was and now and shrinks(was, now):
            return True
        return any(_at(before, path) != _at(after, path) for path in _kubernetes_paths(after, provider))
    return any(before.get(key) != after.get(key) for key in REPLACED_BY.get(token, ()))


def moved_by(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The input of a provider whose change puts all that it makes into another place, "" if there is none."""
    keys = ("region", "clusterIdentifier")
    return next((key for key in keys if before.get(key) and after.get(key) and before[key] != after[key]), "")


def _kubernetes_paths(after: Mapping[str, Any], provider: Mapping[str, Any]) -> tuple[str, ...]:
    group, kind = str(after.get("apiVersion", "")).rpartition("/")[0], str(after.get("kind", ""))
    paths = (*_IDENTITY, *_IMMUTABLE.get((group, kind), ()))
    if group == "" and kind in _DATA:
        option, fields = _DATA[kind]
        # An object that says `immutable: true` cannot change in place, whatever the provider is told.
        if str(provider.get(option)).lower() != "true" or after.get("immutable") is True:
            paths += fields
    return paths


def _at(inputs: Mapping[str, Any], path: str) -> Any:
    """The value at a path; nothing, an empty map and an empty list are the same to the API server."""
    value: Any = inputs
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value or None
