"""Create, change, read and delete on a real API server, behaving as pulumi-kubernetes 4.34 documents (sources: facts/pulumi.md B2)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from embedded.plugins.values import UNKNOWN, Secret, reveal
from mistral_on_l4.cluster.client import MERGE_PATCH, ApiError

pytestmark = pytest.mark.embedded

CONFIG_MAP = "kubernetes:core/v1:ConfigMap"


def config_map(namespace: str, name: str | None = "settings", **data: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, **({"name": name} if name else {})}, "data": data}


# -- create ----------------------------------------------------------------------------------------------------------------


def test_creating_what_exists_is_an_error_and_leaves_it_as_it_is(plugin, cluster, namespace):
    """4.29.0: create is a plain POST; before, it silently adopted the object."""
    cluster.client.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": namespace}, "data": {"a": "theirs"}}
    )
    with pytest.raises(Exception, match="already exists"):
        plugin.resource(CONFIG_MAP).create(config_map(namespace, a="ours"))
    assert cluster.client.get("v1", "ConfigMap", "settings", namespace)["data"] == {"a": "theirs"}


def test_the_preview_does_not_say_that_an_object_exists(plugin, cluster, namespace):
    plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    assert plugin.resource(CONFIG_MAP, "other").preview(config_map(namespace, a="2"))["data"] == {"a": "2"}


def test_an_object_without_a_name_gets_the_resources_and_keeps_it(plugin, namespace):
    thing = plugin.resource(CONFIG_MAP, "My-Settings").create(config_map(namespace, None, a="1"))
    name = thing.outputs["metadata"]["name"]
    assert re.fullmatch(r"my-settings-[0-9a-f]{8}", name)
    assert thing.identifier == f"{namespace}/{name}"
    assert thing.check(config_map(namespace, None, a="2"))["metadata"]["name"] == name


def test_two_objects_of_one_resource_name_do_not_collide(plugin, namespace):
    names = {plugin.resource(CONFIG_MAP).create(config_map(namespace, None, a="1")).identifier for _ in range(2)}
    assert len(names) == 2


def test_the_namespace_is_default_where_neither_object_nor_provider_names_one(plugin):
    inputs = plugin.resource(CONFIG_MAP).check({"metadata": {"name": "x"}})
    assert inputs["metadata"]["namespace"] == "default"


def test_the_provider_names_the_namespace_where_the_object_does_not(start_plugin, cluster, namespace):
    plugin = start_plugin().configure(kubeconfig=cluster.home.kubeconfig.read_text(), namespace=namespace)
    assert plugin.resource(CONFIG_MAP).create({"metadata": {"name": "x"}}).identifier == f"{namespace}/x"
    assert "namespace" not in plugin.resource("kubernetes:core/v1:Namespace").check({"metadata": {"name": "n"}})["metadata"]


def test_numbers_reach_the_server_as_integers(plugin, namespace):
    spec = {"replicas": 0.0, "selector": {"matchLabels": {"a": "b"}}, "template": _template()}
    thing = plugin.resource("kubernetes:apps/v1:Deployment").create(
        {"metadata": {"name": "d", "namespace": namespace}, "spec": spec}
    )
    assert thing.outputs["spec"]["replicas"] == 0


def test_a_kind_that_the_cluster_lacks_is_named_with_what_to_check(plugin, namespace):
    thing = plugin.resource("kubernetes:example.org/v1:Gadget")
    with pytest.raises(Exception, match=r"no matches for kind 'Gadget'.*Verify that any required CRDs have been created"):
        thing.create({"metadata": {"name": "x", "namespace": namespace}})


@pytest.mark.parametrize("token", ["kubernetes:helm.sh/v3:Release", "kubernetes:yaml:ConfigFile", "kubernetes:kustomize:Directory"])
def test_what_the_program_does_not_use_is_said_to_be_unsupported(plugin, token):
    with pytest.raises(Exception, match="not supported by the stand-in"):
        plugin.resource(token).check({"chart": "x"})


# -- preview ---------------------------------------------------------------------------------------------------------------


def test_the_preview_asks_the_server_and_fails_where_the_update_would(plugin, namespace):
    with pytest.raises(Exception, match=r"spec\.ports"):
        plugin.resource("kubernetes:core/v1:Service").preview({"metadata": {"name": "s", "namespace": namespace}, "spec": {}})


def test_the_preview_shows_what_the_server_adds_but_not_what_it_makes_up(plugin, namespace):
    foreseen = plugin.resource("kubernetes:core/v1:Service").preview(
        {"metadata": {"name": "s", "namespace": namespace}, "spec": {"ports": [{"port": 80}]}}
    )
    assert foreseen["spec"]["ports"][0]["protocol"] == "TCP"
    assert foreseen["spec"]["clusterIP"] is UNKNOWN
    assert foreseen["metadata"]["uid"] is UNKNOWN


@pytest.mark.parametrize(
    ("token", "where"),
    [(CONFIG_MAP, "a-namespace-of-the-same-update"), ("kubernetes:example.org/v1:Gadget", "default")],
    ids=["namespace not there yet", "kind not there yet"],
)
def test_the_preview_goes_by_the_inputs_where_a_dry_run_is_impossible(plugin, token, where):
    assert plugin.resource(token).preview(config_map(where, a="1"))["data"] == {"a": "1"}


def test_the_preview_goes_by_the_inputs_where_some_are_unknown(plugin, namespace):
    foreseen = plugin.resource(CONFIG_MAP).preview({"metadata": {"name": "x", "namespace": namespace}, "data": {"a": UNKNOWN}})
    assert foreseen["data"] == {"a": UNKNOWN}


def test_the_preview_goes_by_the_inputs_where_the_user_may_not_write(start_plugin, cluster, namespace):
    client = cluster.client
    client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": namespace}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = client.request("POST", client.path("v1", "ServiceAccount", "reader", namespace, "token"), request)["status"]["token"]
    import yaml

    config = yaml.safe_load(cluster.home.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    plugin = start_plugin().configure(kubeconfig=yaml.safe_dump(config))
    assert plugin.resource(CONFIG_MAP).preview(config_map(namespace, a="1"))["data"] == {"a": "1"}
    with pytest.raises(Exception, match="forbidden"):
        plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))


def test_a_cluster_that_is_down_stops_the_update_and_not_the_preview(start_plugin, cluster, namespace):
    config = cluster.home.kubeconfig.read_text().replace(str(cluster.info.api_server_port), "1")
    plugin = start_plugin().configure(kubeconfig=config)
    assert plugin.resource(CONFIG_MAP).preview(config_map(namespace, a="1"))["data"] == {"a": "1"}
    with pytest.raises(Exception, match="does not answer"):
        plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))


def test_a_server_outside_loopback_is_refused_in_one_line(start_plugin, cluster):
    config = cluster.home.kubeconfig.read_text().replace("127.0.0.1", "192.0.2.7")
    with pytest.raises(Exception, match=r"127\.0\.0\.0/8 only.*192\.0\.2\.7") as refusal:
        start_plugin().configure(kubeconfig=config)
    assert "\n" not in str(refusal.value)


# -- diff and replace ------------------------------------------------------------------------------------------------------


def test_data_of_a_config_map_are_replaced_unless_the_provider_says_mutable(start_plugin, plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    answer = thing.diff(config_map(namespace, a="2"))
    assert (list(answer.replaces), answer.deleteBeforeReplace) == (["data.a"], True)
    mutable = start_plugin().configure(kubeconfig=str(cluster.home.kubeconfig), enableConfigMapMutable="true")
    thing.plugin = mutable
    answer = thing.diff(config_map(namespace, a="2"))
    assert (list(answer.diffs), list(answer.replaces)) == (["data.a"], [])
    thing.update(config_map(namespace, b="2"))
    assert cluster.client.get("v1", "ConfigMap", "settings", namespace)["data"] == {"b": "2"}


def test_an_immutable_config_map_is_replaced_whatever_the_provider_says(start_plugin, cluster, namespace):
    plugin = start_plugin().configure(kubeconfig=str(cluster.home.kubeconfig), enableConfigMapMutable="true")
    thing = plugin.resource(CONFIG_MAP).create({**config_map(namespace, a="1"), "immutable": True})
    assert list(thing.diff({**config_map(namespace, a="2"), "immutable": True}).replaces) == ["data.a"]


def test_another_name_is_another_object_made_before_the_old_one_goes(plugin, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    answer = thing.diff(config_map(namespace, "other", a="1"))
    assert (list(answer.replaces), answer.deleteBeforeReplace) == (["metadata.name"], False)


def test_what_others_have_written_is_no_difference(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"data": {"b": "theirs"}}, MERGE_PATCH)
    assert list(thing.diff(config_map(namespace, a="1")).diffs) == []


# -- server-side apply -----------------------------------------------------------------------------------------------------


def _labels(namespace: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "settings", "namespace": namespace, "labels": labels}, "data": {"a": "1"}}


def test_an_update_removes_what_the_program_no_longer_sets_and_keeps_what_others_set(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(_labels(namespace, one="1", two="2"))
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"metadata": {"labels": {"theirs": "3"}}}, MERGE_PATCH)
    thing.update(_labels(namespace, one="1"))
    labels = cluster.client.get("v1", "ConfigMap", "settings", namespace)["metadata"]["labels"]
    assert labels == {"one": "1", "theirs": "3"}


def test_no_new_object_gets_the_label_of_who_manages_it_and_none_that_has_it_loses_it(plugin, namespace):
    # pulumi-kubernetes, Check: "Do not set this label for SSA resources".
    thing = plugin.resource(CONFIG_MAP).create(_labels(namespace, one="1"))
    assert thing.inputs["metadata"]["labels"] == {"one": "1"}
    thing.inputs["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "pulumi"
    assert thing.check(_labels(namespace, one="2"))["metadata"]["labels"] == {
        "one": "2",
        "app.kubernetes.io/managed-by": "pulumi",
    }


def test_a_field_that_somebody_else_owns_is_a_conflict_until_it_is_forced(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(_labels(namespace, one="1"))
    theirs = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": namespace, "labels": {"two": "theirs"}},
    }
    cluster.client.apply(theirs, "somebody-else")
    with pytest.raises(Exception, match=r"conflict.*two.*somebody-else.*patchForce"):
        thing.update(_labels(namespace, one="1", two="ours"))
    forced = _labels(namespace, one="1", two="ours")
    forced["metadata"]["annotations"] = {"pulumi.com/patchForce": "true"}
    thing.update(forced)
    assert cluster.client.get("v1", "ConfigMap", "settings", namespace)["metadata"]["labels"]["two"] == "ours"


def test_a_patch_owns_its_fields_only_and_gives_them_back(plugin, cluster, namespace):
    patched = plugin.resource("kubernetes:core/v1:NamespacePatch").create({"metadata": {"name": namespace, "labels": {"a": "b"}}})
    assert cluster.client.get("v1", "Namespace", namespace)["metadata"]["labels"]["a"] == "b"
    patched.delete()
    live = cluster.client.get("v1", "Namespace", namespace)
    assert "a" not in live["metadata"]["labels"]
    assert not live["metadata"].get("deletionTimestamp")


def test_a_patch_of_nothing_is_an_error(plugin, cluster):
    with pytest.raises(Exception, match="not found"):
        plugin.resource("kubernetes:core/v1:NamespacePatch").create({"metadata": {"name": "nowhere"}})
    with pytest.raises(ApiError):
        cluster.client.get("v1", "Namespace", "nowhere")


def test_a_patch_without_a_name_is_refused(plugin):
    with pytest.raises(Exception, match=r"needs metadata\.name"):
        plugin.resource("kubernetes:core/v1:NamespacePatch").check({"metadata": {"labels": {"a": "b"}}})


def test_a_patch_of_a_required_field_cannot_be_taken_back(plugin, cluster, namespace):
    """Documented: delete of such a Patch fails, and retain_on_delete is the way out."""

    def with_image(image: str) -> dict[str, Any]:
        template = _template(containers=[{"name": "c", "image": image}])
        spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}
        return {"metadata": {"name": "d", "namespace": namespace}, "spec": spec}

    cluster.client.apply({"apiVersion": "apps/v1", "kind": "Deployment", **with_image("theirs")}, "somebody-else")
    ours = with_image("ours")
    ours["metadata"]["annotations"] = {"pulumi.com/patchForce": "true"}
    patch = plugin.resource("kubernetes:apps/v1:DeploymentPatch").create(ours)
    with pytest.raises(Exception, match="set retain_on_delete"):
        patch.delete()


# -- read, refresh, import -------------------------------------------------------------------------------------------------


def test_get_reads_an_object_by_its_id(plugin, cluster, namespace):
    cluster.client.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": namespace}, "data": {"a": "1"}}
    )
    identifier, outputs, inputs = plugin.resource(CONFIG_MAP).read(f"{namespace}/x")
    assert (identifier, outputs["data"]) == (f"{namespace}/x", {"a": "1"})
    assert "uid" in outputs["metadata"]
    assert "uid" not in inputs["metadata"]


def test_get_of_what_is_not_there_answers_nothing(plugin, namespace):
    assert plugin.resource(CONFIG_MAP).read(f"{namespace}/nothing")[0] == ""


def test_refresh_sees_drift_in_what_was_set_and_in_nothing_else(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"data": {"b": "theirs"}}, MERGE_PATCH)
    assert thing.read()[2] == thing.inputs
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"data": {"a": "changed"}}, MERGE_PATCH)
    assert thing.read()[2]["data"] == {"a": "changed"}


def test_refresh_takes_the_servers_spelling_of_a_quantity_for_no_drift(plugin, namespace):
    limits = {"cpu": 0.5, "memory": "1024Mi", "nvidia.com/gpu": 4}
    template = _template(containers=[{"name": "c", "image": "i", "resources": {"limits": limits}}])
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    thing = plugin.resource("kubernetes:apps/v1:Deployment").create(
        {"metadata": {"name": "d", "namespace": namespace}, "spec": spec}
    )
    assert thing.read()[2] == thing.inputs


def test_refresh_of_a_secret_by_string_data_sees_no_drift_and_then_some(plugin, cluster, namespace):
    where = {"name": "s", "namespace": namespace}
    thing = plugin.resource("kubernetes:core/v1:Secret").create({"metadata": where, "stringData": {"k": "value"}})
    assert reveal(thing.read()[2]) == reveal(thing.inputs)
    cluster.client.patch("v1", "Secret", "s", namespace, {"data": {"k": "b3RoZXI="}}, MERGE_PATCH)
    assert reveal(thing.read()[2])["stringData"] == {"k": "other"}


# -- secrets ---------------------------------------------------------------------------------------------------------------


def test_data_of_a_secret_are_secret_in_inputs_and_outputs(plugin, namespace):
    where = {"name": "s", "namespace": namespace}
    thing = plugin.resource("kubernetes:core/v1:Secret").create({"metadata": where, "stringData": {"k": "value"}})
    assert isinstance(thing.inputs["stringData"], Secret)
    assert isinstance(thing.outputs["data"], Secret)
    assert isinstance(thing.outputs["stringData"], Secret)


def test_a_secret_input_of_another_kind_stays_secret_in_the_output(plugin, namespace):
    inputs = {"metadata": {"name": "x", "namespace": namespace}, "data": {"a": Secret("hidden-value"), "b": "open"}}
    outputs = plugin.resource(CONFIG_MAP).create(inputs).outputs
    assert outputs["data"] == {"a": Secret("hidden-value"), "b": "open"}


def test_an_error_of_the_server_does_not_quote_a_secret(plugin, namespace):
    inputs = {"metadata": {"name": "x", "namespace": namespace}, "spec": {"ports": [{"port": 80, "name": Secret("Hidden_Value")}]}}
    with pytest.raises(Exception, match=r"\[secret\]") as refusal:
        plugin.resource("kubernetes:core/v1:Service").create(inputs)
    assert "Hidden_Value" not in str(refusal.value)


# -- delete ----------------------------------------------------------------------------------------------------------------


def test_deleting_what_is_gone_already_succeeds(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    cluster.client.delete("v1", "ConfigMap", "settings", namespace)
    thing.delete()


def test_delete_returns_when_the_object_and_its_dependents_are_gone(plugin, cluster, namespace):
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": _template()}
    thing = plugin.resource("kubernetes:apps/v1:Deployment").create(
        {"metadata": {"name": "d", "namespace": namespace}, "spec": spec}
    )
    assert cluster.client.list("apps/v1", "ReplicaSet", namespace)["items"]
    thing.delete()
    assert cluster.client.list("apps/v1", "Deployment", namespace)["items"] == []
    assert cluster.client.list("apps/v1", "ReplicaSet", namespace)["items"] == []


def test_orphaned_dependents_stay(plugin, cluster, namespace):
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": _template()}
    annotations = {"pulumi.com/deletionPropagationPolicy": "orphan"}
    meta = {"name": "d", "namespace": namespace, "annotations": annotations}
    plugin.resource("kubernetes:apps/v1:Deployment").create({"metadata": meta, "spec": spec}).delete()
    assert cluster.client.list("apps/v1", "ReplicaSet", namespace)["items"]


def test_a_finalizer_that_holds_an_object_is_named_when_the_time_is_over(plugin, cluster, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    hold = {"metadata": {"finalizers": ["example.org/hold"]}}
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, hold, MERGE_PATCH)
    with pytest.raises(Exception, match=r"still exists after 1 s: finalizers example\.org/hold"):
        thing.delete(timeout=1)
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"metadata": {"finalizers": None}}, MERGE_PATCH)


def test_skip_await_does_not_wait_for_the_end_of_a_delete(plugin, cluster, namespace):
    inputs = config_map(namespace, a="1")
    inputs["metadata"] |= {"annotations": {"pulumi.com/skipAwait": "true"}, "finalizers": ["example.org/hold"]}
    plugin.resource(CONFIG_MAP).create(inputs).delete()
    assert cluster.client.get("v1", "ConfigMap", "settings", namespace)["metadata"]["deletionTimestamp"]
    cluster.client.patch("v1", "ConfigMap", "settings", namespace, {"metadata": {"finalizers": None}}, MERGE_PATCH)


# -- the other plugin ------------------------------------------------------------------------------------------------------


def test_a_stack_of_the_official_plugin_is_not_gone_on_with(plugin, namespace):
    thing = plugin.resource(CONFIG_MAP).create(config_map(namespace, a="1"))
    del thing.outputs["__standIn"]
    for act in (lambda: thing.diff(config_map(namespace, a="2")), thing.read, thing.delete):
        with pytest.raises(Exception, match="official pulumi-kubernetes plugin"):
            act()


def _template(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}
