"""Create, change, read and delete by the official provider: what this program counts on in it."""

from __future__ import annotations

from typing import Any

import pytest

from embedded.plugins.values import Secret
from mistral_on_l4.cluster.client import MERGE_PATCH
from mistral_on_l4.pull_request.replacements import needs_a_new_object

pytestmark = pytest.mark.embedded

CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"


def config_map(namespace: str, name: str = "settings", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}, "data": data}


def template(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


def deployment(namespace: str, **spec: Any) -> dict[str, Any]:
    body = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template(), **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": namespace}, "spec": body}


# -- create ----------------------------------------------------------------------------------------------------------------


def test_a_field_that_the_kind_does_not_have_is_dropped_without_a_word(plugin, cluster, namespace):
    """Why tests/embedded/provider/test_manifests.py asks the API server itself, strictly, about every object of this program."""
    foreseen = plugin.resource(DEPLOYMENT).preview(deployment(namespace, replicaCount=3))
    assert "replicaCount" not in foreseen["spec"]


def test_a_preview_fails_where_the_update_would(plugin, namespace):
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": namespace}, "spec": {}}
    with pytest.raises(Exception, match=r"spec\.ports"):
        plugin.resource("kubernetes:core/v1:Service").preview(service)


def test_a_preview_goes_by_the_inputs_where_namespace_or_kind_are_not_there_yet(plugin):
    assert plugin.resource(CONFIG_MAP).preview(config_map("of-the-same-update", a="1"))["data"] == {"a": "1"}
    gadget = {
        "apiVersion": "example.org/v1",
        "kind": "Gadget",
        "metadata": {"name": "x", "namespace": "default"},
        "data": {"a": "1"},
    }
    assert plugin.resource("kubernetes:example.org/v1:Gadget").preview(gadget)["data"] == {"a": "1"}


def test_a_cluster_that_is_down_stops_the_update_and_not_the_preview(start_plugin, cluster, namespace):
    config = cluster.home.kubeconfig.read_text().replace(str(cluster.info.api_server_port), "1")
    plugin = start_plugin().configure(kubeconfig=config)
    assert plugin.resource(CONFIG_MAP).preview(config_map(namespace, a="1"))["data"] == {"a": "1"}
    with pytest.raises(Exception, match="cluster is unreachable"):
        plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))


# -- diff and replace ------------------------------------------------------------------------------------------------------


META = {"name": "x"}
CHANGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a Job's template": ("batch/v1/Job", {"spec": {"template": template()}}, {"spec": {"template": template(hostname="h")}}),
    "a Job's deadline": (
        "batch/v1/Job",
        {"spec": {"template": template(), "activeDeadlineSeconds": 5}},
        {"spec": {"template": template(), "activeDeadlineSeconds": 6}},
    ),
    "a claim's size": (
        "v1/PersistentVolumeClaim",
        {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
        {"spec": {"resources": {"requests": {"storage": "2Gi"}}}},
    ),
    "a claim's class": ("v1/PersistentVolumeClaim", {"spec": {"storageClassName": "a"}}, {"spec": {"storageClassName": "b"}}),
    "a StatefulSet's claims": (
        "apps/v1/StatefulSet",
        {"spec": {"volumeClaimTemplates": [{"metadata": {"name": "a"}}]}},
        {"spec": {"volumeClaimTemplates": [{"metadata": {"name": "b"}}]}},
    ),
    "a StatefulSet's pods": (
        "apps/v1/StatefulSet",
        {"spec": {"template": template()}},
        {"spec": {"template": template(hostname="h")}},
    ),
    "a Deployment's replicas": ("apps/v1/Deployment", {"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}),
    "a Deployment's selector": (
        "apps/v1/Deployment",
        {"spec": {"selector": {"matchLabels": {"a": "1"}}}},
        {"spec": {"selector": {"matchLabels": {"a": "2"}}}},
    ),
    "a Secret's type": ("v1/Secret", {"type": "Opaque"}, {"type": "kubernetes.io/basic-auth"}),
    "a Service's address": ("v1/Service", {"spec": {"clusterIP": "None"}}, {"spec": {"clusterIP": "10.0.0.1"}}),
    "a Service's port": ("v1/Service", {"spec": {"ports": [{"port": 80}]}}, {"spec": {"ports": [{"port": 81}]}}),
    "a binding's role": (
        "rbac.authorization.k8s.io/v1/RoleBinding",
        {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "a"}},
        {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "b"}},
    ),
    "a class's parameters": (
        "storage.k8s.io/v1/StorageClass",
        {"provisioner": "p", "parameters": {"type": "gp2"}},
        {"provisioner": "p", "parameters": {"type": "gp3"}},
    ),
    "data of a ConfigMap": ("v1/ConfigMap", {"data": {"a": "1"}}, {"data": {"a": "2"}}),
    "data of an immutable ConfigMap": (
        "v1/ConfigMap",
        {"data": {"a": "1"}, "immutable": True},
        {"data": {"a": "2"}, "immutable": True},
    ),
    "data of a Secret": ("v1/Secret", {"data": {"a": "MQ=="}}, {"data": {"a": "Mg=="}}),
    "a label": ("v1/ConfigMap", {"metadata": {**META, "labels": {"a": "1"}}}, {"metadata": {**META, "labels": {"a": "2"}}}),
    "a namespace": ("v1/ConfigMap", {"metadata": {**META, "namespace": "a"}}, {"metadata": {**META, "namespace": "b"}}),
}


@pytest.mark.parametrize("mutable", [True, False], ids=["mutable", "immutable"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_comments_rules_of_replacement_are_the_providers(plugin, immutable_plugin, change, mutable):
    kind, before, after = CHANGES[change]
    version, _, name = kind.rpartition("/")
    token = f"kubernetes:{version if '/' in version else f'core/{version}'}:{name}"
    old, new = ({"apiVersion": version, "kind": name, "metadata": dict(META), **fields} for fields in (before, after))
    thing = (plugin if mutable else immutable_plugin).resource(token)
    thing.inputs, thing.identifier = old, "x"
    # What the provider keeps of an object: its live fields, and the inputs that made it.
    thing.outputs = {**old, "__inputs": old, "__initialApiVersion": version, "__fieldManager": "m"}
    options = {"enableConfigMapMutable": str(mutable).lower(), "enableSecretMutable": str(mutable).lower()}
    assert bool(thing.diff(new).replaces) is needs_a_new_object(token, old, new, options)


def test_what_has_to_be_replaced_under_its_name_is_deleted_first(plugin, namespace):
    thing = plugin.resource(CONFIG_MAP).create({**config_map(namespace, a="1"), "immutable": True})
    assert thing.diff({**config_map(namespace, a="2"), "immutable": True}).deleteBeforeReplace
    assert not thing.diff(config_map(namespace, "other", a="1")).deleteBeforeReplace


def test_what_others_have_written_is_no_difference(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"data": {"b": "theirs"}}, MERGE_PATCH)
    assert not thing.diff(config_map(namespace, a="1")).detailedDiff


# -- fields and their owners -----------------------------------------------------------------------------------------------


def _labels(namespace: str, **labels: str) -> dict[str, Any]:
    thing = config_map(namespace, a="1")
    thing["metadata"]["labels"] = labels
    return thing


def test_an_update_removes_what_the_program_no_longer_sets_and_keeps_what_others_set(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(_labels(namespace, one="1", two="2"))
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"metadata": {"labels": {"theirs": "3"}}}, MERGE_PATCH)
    thing.update(_labels(namespace, one="1"))
    labels = cluster.client.get("v1", "ConfigMap", "settings", namespace)["metadata"]["labels"]
    assert labels == {"one": "1", "theirs": "3"}


def test_a_field_that_somebody_else_owns_is_a_conflict_until_it_is_forced(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(_labels(namespace, one="1"))
    theirs = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": namespace, "labels": {"two": "theirs"}},
    }
    cluster.client.apply(theirs, "somebody-else")
    with pytest.raises(Exception, match=r"(?s)conflict.*somebody-else"):
        thing.update(_labels(namespace, one="1", two="ours"))
    forced = _labels(namespace, one="1", two="ours")
    forced["metadata"]["annotations"] = {"pulumi.com/patchForce": "true"}
    thing.update(forced)
    assert cluster.client.get("v1", "ConfigMap", "settings", namespace)["metadata"]["labels"]["two"] == "ours"


# -- read, refresh, secrets ------------------------------------------------------------------------------------------------


def test_get_reads_an_object_by_its_id(plugin, cluster, namespace):
    cluster.client.create(config_map(namespace, a="1"))
    identifier, outputs, _ = plugin.resource(CONFIG_MAP).read(f"{namespace}/settings")
    assert (identifier, outputs["data"]) == (f"{namespace}/settings", {"a": "1"})


def test_refresh_sees_drift_in_what_was_set_and_in_nothing_else(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"metadata": {"labels": {"b": "theirs"}}}, MERGE_PATCH)
    assert thing.read()[2] == thing.inputs
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"data": {"a": "changed"}}, MERGE_PATCH)
    assert thing.read()[2]["data"] == {"a": "changed"}


def test_string_data_of_a_secret_become_secret_data_in_inputs_and_outputs(plugin, namespace):
    where = {"name": "s", "namespace": namespace}
    inputs = {"apiVersion": "v1", "kind": "Secret", "metadata": where, "stringData": {"k": "value"}}
    thing = plugin.resource("kubernetes:core/v1:Secret").create(inputs)
    shown = repr((thing.inputs, thing.outputs))
    assert isinstance(thing.inputs["data"], Secret)
    assert isinstance(thing.outputs["data"], Secret)
    assert "value" not in shown
    assert "dmFsdWU" not in shown


# -- delete ----------------------------------------------------------------------------------------------------------------


def test_deleting_what_is_gone_already_succeeds(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    cluster.client.delete("v1", "ConfigMap", "settings", namespace)
    thing.delete()


def test_delete_returns_when_the_object_and_its_dependents_are_gone(plugin, cluster, namespace):
    thing = plugin.resource(DEPLOYMENT).create(deployment(namespace))
    assert cluster.client.list("apps/v1", "ReplicaSet", namespace)["items"]
    thing.delete()
    assert cluster.client.list("apps/v1", "Deployment", namespace)["items"] == []
    assert cluster.client.list("apps/v1", "ReplicaSet", namespace)["items"] == []


def test_a_finalizer_that_holds_an_object_is_waited_for_until_the_time_is_over(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    hold = {"metadata": {"finalizers": ["example.org/hold"]}}
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, hold, MERGE_PATCH)
    with pytest.raises(Exception, match=r"timed out|finalizers"):
        thing.delete(timeout=2)
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"metadata": {"finalizers": None}}, MERGE_PATCH)
