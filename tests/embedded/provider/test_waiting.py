"""Waiting for readiness, by kind and by annotation, on the official provider: what this program counts on in it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from mistral_on_l4.cluster.client import MERGE_PATCH, ApiError, UnknownKind
from mistral_on_l4.cluster.live import condition

pytestmark = pytest.mark.embedded

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
JOB = "kubernetes:batch/v1:Job"


def spec_of_pods(**more: Any) -> dict[str, Any]:
    everything = [{"operator": "Exists"}]
    spec = {"nodeName": "played", "tolerations": everything, "containers": [{"name": "main", "image": "played"}], **more}
    return {"metadata": {"labels": {"app": "web"}}, "spec": {key: value for key, value in spec.items() if value is not None}}


def deployment(namespace: str, version: str = "1", annotations: dict[str, str] | None = None, **pods: Any) -> dict[str, Any]:
    template = spec_of_pods(**pods)
    template["metadata"]["annotations"] = {"version": version}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template, "strategy": {"type": "Recreate"}}
    meta = {"name": "web", "namespace": namespace, "annotations": annotations or {}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def job(namespace: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    template = spec_of_pods(restartPolicy="Never")
    meta = {"name": "once", "namespace": namespace, "annotations": annotations or {}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"backoffLimit": 0, "template": template}}


# -- kinds -----------------------------------------------------------------------------------------------------------------


def test_a_deployment_is_created_when_its_pods_are_available(plugin, kubelet, background, namespace):
    creation = background(plugin.resource(DEPLOYMENT).create, deployment(namespace))
    kubelet.pod("web")
    assert not creation.done()
    kubelet.run("web")
    assert creation.result(60).outputs["status"]["availableReplicas"] == 1


def test_what_does_not_become_ready_in_time_is_an_error_and_its_object_is_kept(plugin, namespace):
    containers = [{"name": "main", "image": "played", "resources": {"limits": {"nvidia.com/gpu": 64}}}]
    inputs = deployment(namespace, nodeName=None, containers=containers)
    with pytest.raises(Exception, match="timed out waiting to be Ready") as failure:
        plugin.resource(DEPLOYMENT).create(inputs, timeout=9.0)
    assert failure.value.identifier == f"{namespace}/web"
    assert failure.value.outputs["metadata"]["uid"]


def test_a_stateful_set_is_created_when_every_replica_is_ready(plugin, kubelet, background, namespace):
    spec = {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}}, "template": spec_of_pods()}
    meta = {"name": "db", "namespace": namespace}
    inputs = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": spec}
    creation = background(plugin.resource("kubernetes:apps/v1:StatefulSet").create, inputs)
    kubelet.run("db-0")
    kubelet.pod("db-1")
    assert not creation.done()
    kubelet.run("db-1")
    assert creation.result(60).outputs["status"]["readyReplicas"] == 2


def test_a_job_is_created_when_it_is_complete(plugin, kubelet, background, namespace):
    creation = background(plugin.resource(JOB).create, job(namespace))
    kubelet.pod("once")
    assert not creation.done()
    kubelet.finish("once", 0)
    assert condition(creation.result(60).outputs, "Complete") == "True"


def test_a_failed_job_fails_at_once(plugin, kubelet, background, namespace):
    creation = background(plugin.resource(JOB).create, job(namespace))
    kubelet.finish("once", 4, "weights: model-00002 has digest 12ab, not 34cd")
    with pytest.raises(Exception, match="BackoffLimitExceeded"):
        creation.result(60)


@pytest.mark.parametrize(("annotation", "replaced"), [({"pulumi.com/replaceUnready": "true"}, True), ({}, False)])
def test_a_failed_job_is_replaced_only_where_it_says_so(plugin, kubelet, background, namespace, annotation, replaced):
    thing = plugin.resource(JOB)
    creation = background(thing.create, job(namespace, annotation))
    kubelet.finish("once", 1, "no")
    with pytest.raises(Exception, match="BackoffLimitExceeded"):
        creation.result(60)
    assert bool(thing.diff(job(namespace, annotation)).replaces) is replaced


def test_a_job_whose_wait_was_interrupted_is_replaced_unless_it_completed_meanwhile(plugin, kubelet, cluster, namespace):
    annotation = {"pulumi.com/replaceUnready": "true"}
    thing = plugin.resource(JOB)
    with pytest.raises(Exception, match=r"timed out|Timeout"):
        thing.create(job(namespace, annotation), timeout=1.0)
    assert any("replaceUnready" in path for path in thing.diff(job(namespace, annotation)).replaces)
    kubelet.finish("once", 0)
    deadline = time.monotonic() + 30
    while condition(cluster.client.get("batch/v1", "Job", "once", namespace), "Complete") != "True":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not thing.diff(job(namespace, annotation)).replaces


def test_a_service_waits_for_a_ready_pod_behind_it(plugin, kubelet, cluster, background, namespace):
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    inputs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace}, "spec": spec}
    creation = background(plugin.resource("kubernetes:core/v1:Service").create, inputs)
    plugin.resource(DEPLOYMENT).create(deployment(namespace, annotations={"pulumi.com/skipAwait": "true"}))
    kubelet.pod("web")
    assert not creation.done()
    kubelet.run("web")
    creation.result(60)


# -- annotations -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gadget(plugin, cluster) -> Iterator[str]:
    """A kind of our own with a status, made by the provider, which waits until the API server serves it."""
    group = f"g{uuid.uuid4().hex[:6]}.example.org"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    names = {"kind": "Gadget", "plural": "gadgets", "singular": "gadget"}
    spec = {"group": group, "names": names, "scope": "Namespaced", "versions": [version]}
    thing = plugin.resource("kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition")
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    thing.create({**definition, "metadata": {"name": f"gadgets.{group}"}, "spec": spec})
    deadline = time.monotonic() + 30
    live = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"gadgets.{group}")
    while condition(cluster.client.get(*live), "Established") != "True":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield group
    thing.delete()


def gadget_of(group: str, namespace: str, wait_for: str, **annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{group}/v1",
        "kind": "Gadget",
        "metadata": {"name": "x", "namespace": namespace, "annotations": {"pulumi.com/waitFor": wait_for, **annotations}},
        "spec": {"a": 1},
    }


def set_status(cluster: Any, group: str, namespace: str, **status: Any) -> None:
    cluster.client.patch(f"{group}/v1", "Gadget", "x", namespace, {"status": status}, MERGE_PATCH, "status")


def there(cluster: Any, group: str, namespace: str) -> None:
    """Waits until the object is made, which is when the wait for it begins."""
    deadline = time.monotonic() + 30
    while True:
        # Discovery learns of a new kind a moment after its definition is established.
        with suppress(ApiError, UnknownKind):
            if cluster.client.list(f"{group}/v1", "Gadget", namespace)["items"]:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


READY = {"type": "Ready", "status": "True"}


@pytest.mark.parametrize(
    ("wait_for", "not_yet", "at_last"),
    [
        ("jsonpath={.status.phase}=Running", {"phase": "Starting"}, {"phase": "Running"}),
        ("jsonpath={.status.url}", {"phase": "Starting"}, {"url": "http://x"}),
        (
            'jsonpath={.status.conditions[?(@.type=="Ready")].status}=True',
            {"conditions": [{**READY, "status": "False"}]},
            {"conditions": [READY]},
        ),
        ("condition=Ready", {"conditions": [{**READY, "status": "False"}]}, {"conditions": [READY]}),
        ("condition=Ready=False", {"conditions": [READY]}, {"conditions": [{**READY, "status": "False"}]}),
        (
            "condition=Ready",
            {"conditions": [{**READY, "observedGeneration": 0}]},
            {"conditions": [{**READY, "observedGeneration": 1}]},
        ),
        ("condition=Ready", {"conditions": [READY], "observedGeneration": 0}, {"observedGeneration": 1}),
        ('["condition=Ready", "jsonpath={.status.phase}=Running"]', {"conditions": [READY]}, {"phase": "Running"}),
    ],
)
def test_wait_for_holds_the_create_until_everything_it_says_is_so(
    plugin, cluster, background, namespace, gadget, wait_for, not_yet, at_last
):
    creation = background(plugin.resource(f"kubernetes:{gadget}/v1:Gadget").create, gadget_of(gadget, namespace, wait_for))
    there(cluster, gadget, namespace)
    set_status(cluster, gadget, namespace, **not_yet)
    assert not creation.done()
    set_status(cluster, gadget, namespace, **at_last)
    creation.result(30)


def test_wait_for_goes_before_the_kinds_own_rule(plugin, kubelet, namespace):
    inputs = deployment(namespace, annotations={"pulumi.com/waitFor": "jsonpath={.status.observedGeneration}"})
    assert "availableReplicas" not in plugin.resource(DEPLOYMENT).create(inputs).outputs["status"]


def test_skip_await_goes_before_wait_for(plugin, namespace, gadget):
    inputs = gadget_of(gadget, namespace, "condition=Never", **{"pulumi.com/skipAwait": "true"})
    plugin.resource(f"kubernetes:{gadget}/v1:Gadget").create(inputs)


def test_the_annotation_sets_the_timeout_and_custom_timeouts_go_before_it(plugin, namespace, gadget):
    thing = plugin.resource(f"kubernetes:{gadget}/v1:Gadget")
    inputs = gadget_of(gadget, namespace, "condition=Never", **{"pulumi.com/timeoutSeconds": "1"})
    with pytest.raises(Exception, match="timed out waiting"):
        thing.create(inputs)
    with pytest.raises(Exception, match="timed out waiting"):
        thing.update(inputs, timeout=2.0)


def test_cancelling_ends_every_wait_and_keeps_the_object_in_the_state(start_plugin, cluster, background, namespace, gadget):
    from google.protobuf.empty_pb2 import Empty

    plugin = start_plugin().configure(kubeconfig=str(cluster.home.kubeconfig))
    creation = background(plugin.resource(f"kubernetes:{gadget}/v1:Gadget").create, gadget_of(gadget, namespace, "condition=Never"))
    there(cluster, gadget, namespace)
    plugin.call("Cancel", Empty())
    with pytest.raises(Exception, match="context canceled") as failure:
        creation.result(30)
    assert failure.value.identifier == f"{namespace}/x"
