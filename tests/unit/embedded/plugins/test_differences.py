from __future__ import annotations

from typing import Any

import pytest

from embedded.plugins.kubernetes.differences import Mutability, compare, delete_before_replace
from embedded.plugins.values import UNKNOWN, Secret

BOTH = Mutability(config_maps=True, secrets=True)


def thing(api_version: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "n"}, **fields}


def found(old: dict[str, Any], new: dict[str, Any], mutability: Mutability = BOTH) -> dict[str, str]:
    return {d.text: d.kind + (" replaces" if d.replaces else "") for d in compare(old, new, mutability)}


def test_every_changed_property_is_named_by_its_path() -> None:
    old = thing("v1", "Service", spec={"ports": [{"port": 80}], "type": "ClusterIP", "sessionAffinity": "None"})
    new = thing("v1", "Service", spec={"ports": [{"port": 81}, {"port": 82}], "type": "ClusterIP", "a.b/c": "d"})
    assert found(old, new) == {
        'spec["a.b/c"]': "ADD",
        "spec.ports[0].port": "UPDATE",
        "spec.ports[1]": "ADD",
        "spec.sessionAffinity": "DELETE",
    }


def test_equal_inputs_are_no_difference_even_where_one_side_is_secret_or_empty() -> None:
    old = thing("v1", "ConfigMap", data={"a": "1"}, extra={})
    assert found(old, thing("v1", "ConfigMap", data=Secret({"a": Secret("1")}))) == {}


def test_true_is_not_one() -> None:
    assert found(thing("v1", "X", a=True), thing("v1", "X", a=1)) == {"a": "UPDATE"}


def test_an_unknown_is_a_difference() -> None:
    assert found(thing("v1", "ConfigMap", data={"a": "1"}), thing("v1", "ConfigMap", data={"a": UNKNOWN})) == {"data.a": "UPDATE"}


@pytest.mark.parametrize(
    ("api_version", "kind", "before", "after", "path"),
    [
        ("batch/v1", "Job", {"spec": {"template": {"a": 1}}}, {"spec": {"template": {"a": 2}}}, "spec.template.a"),
        ("batch/v1", "Job", {"spec": {"completions": 1}}, {"spec": {"completions": 2}}, "spec.completions"),
        ("apps/v1", "Deployment", {"spec": {"selector": {"a": 1}}}, {"spec": {"selector": {"a": 2}}}, "spec.selector.a"),
        ("apps/v1", "StatefulSet", {"spec": {"serviceName": "a"}}, {"spec": {"serviceName": "b"}}, "spec.serviceName"),
        (
            "apps/v1",
            "StatefulSet",
            {"spec": {"volumeClaimTemplates": [1]}},
            {"spec": {"volumeClaimTemplates": [2]}},
            "spec.volumeClaimTemplates[0]",
        ),
        (
            "v1",
            "PersistentVolumeClaim",
            {"spec": {"storageClassName": "a"}},
            {"spec": {"storageClassName": "b"}},
            "spec.storageClassName",
        ),
        ("v1", "Secret", {"type": "Opaque"}, {"type": "kubernetes.io/tls"}, "type"),
        ("v1", "Service", {"spec": {"clusterIP": "None"}}, {"spec": {"clusterIP": "10.0.0.1"}}, "spec.clusterIP"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", {"roleRef": {"name": "a"}}, {"roleRef": {"name": "b"}}, "roleRef.name"),
        ("storage.k8s.io/v1", "StorageClass", {"provisioner": "a"}, {"provisioner": "b"}, "provisioner"),
    ],
)
def test_an_immutable_field_needs_a_new_object(api_version: str, kind: str, before: Any, after: Any, path: str) -> None:
    assert found(thing(api_version, kind, **before), thing(api_version, kind, **after)) == {path: "UPDATE replaces"}


@pytest.mark.parametrize(
    ("api_version", "kind", "before", "after"),
    [
        ("apps/v1", "Deployment", {"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}),
        ("apps/v1", "StatefulSet", {"spec": {"template": 1}}, {"spec": {"template": 2}}),
        ("batch/v1", "Job", {"spec": {"suspend": True}}, {"spec": {"suspend": False}}),
        ("serving.kserve.io/v1beta1", "InferenceService", {"spec": {"template": 1}}, {"spec": {"template": 2}}),
    ],
)
def test_other_fields_change_in_place(api_version: str, kind: str, before: Any, after: Any) -> None:
    assert not any(
        "replaces" in what for what in found(thing(api_version, kind, **before), thing(api_version, kind, **after)).values()
    )


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_data_need_a_new_object_unless_the_provider_says_mutable(kind: str) -> None:
    old, new = thing("v1", kind, data={"a": "1"}), thing("v1", kind, data={"a": "2"})
    assert found(old, new, Mutability()) == {"data.a": "UPDATE replaces"}
    assert found(old, new, BOTH) == {"data.a": "UPDATE"}
    assert found({**old, "immutable": True}, {**new, "immutable": True}, BOTH) == {"data.a": "UPDATE replaces"}


def test_becoming_immutable_happens_in_place() -> None:
    old, new = thing("v1", "ConfigMap", data={"a": "1"}), thing("v1", "ConfigMap", data={"a": "1"}, immutable=True)
    assert found(old, new) == {"immutable": "ADD"}


@pytest.mark.parametrize("part", [{"name": "y"}, {"namespace": "m"}])
def test_another_identity_is_another_object_with_no_need_to_delete_first(part: dict[str, str]) -> None:
    old = thing("v1", "ConfigMap")
    new = {**old, "metadata": {**old["metadata"], **part}}
    assert found(old, new) == {f"metadata.{next(iter(part))}": "UPDATE replaces"}
    assert not delete_before_replace(old, new)
    assert delete_before_replace(old, old)


def test_a_made_up_name_never_asks_to_delete_first() -> None:
    old = thing("v1", "ConfigMap")
    old["metadata"]["annotations"] = {"pulumi.com/autonamed": "true"}
    assert not delete_before_replace(old, old)
