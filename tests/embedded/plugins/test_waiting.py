"""Waiting for readiness, by kind and by annotation, with the reason in view (pulumi-kubernetes 4.34; facts/pulumi.md B2)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from mistral_on_l4.cluster.client import MERGE_PATCH
from mistral_on_l4.cluster.live import condition

pytestmark = pytest.mark.embedded

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
JOB = "kubernetes:batch/v1:Job"


def spec_of_pods(**more: Any) -> dict[str, Any]:
    everything = [{"operator": "Exists"}]
    spec = {"nodeName": "played", "tolerations": everything, "containers": [{"name": "main", "image": "played"}], **more}
    return {"metadata": {"labels": {"app": "web"}}, "spec": spec}


def deployment(namespace: str, version: str = "1", annotations: dict[str, str] | None = None, **pods: Any) -> dict[str, Any]:
    template = spec_of_pods(**pods)
    template["metadata"]["annotations"] = {"version": version}
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template, "strategy": {"type": "Recreate"}}
    return {"metadata": {"name": "web", "namespace": namespace, "annotations": annotations or {}}, "spec": spec}


def job(namespace: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    template = spec_of_pods(restartPolicy="Never")
    meta = {"name": "once", "namespace": namespace, "annotations": annotations or {}}
    return {"metadata": meta, "spec": {"backoffLimit": 0, "template": template}}


# -- kinds -----------------------------------------------------------------------------------------------------------------


def test_a_deployment_is_created_when_its_pods_are_available(plugin, engine, kubelet, background, namespace):
    creation = background(plugin.resource(DEPLOYMENT).create, deployment(namespace))
    engine.hear("Waiting for Deployment")
    engine.hear("0 of 1 replicas are available; pod web-")
    assert not creation.done()
    kubelet.run("web")
    assert creation.result(30).outputs["status"]["availableReplicas"] == 1


def test_an_update_does_not_return_before_the_new_pod_is_ready(plugin, engine, kubelet, background, namespace):
    creation = background(plugin.resource(DEPLOYMENT).create, deployment(namespace))
    first = kubelet.run("web")
    thing = creation.result(30)
    engine.lines.clear()
    update = background(thing.update, deployment(namespace, version="2"))
    # The old pod's kubelet ends it: a pod that was told to go is gone only then.
    plugin_client = kubelet._client
    _until_terminating(plugin_client, first, namespace)
    assert not update.done()
    plugin_client.delete("v1", "Pod", first, namespace, grace_seconds=0)
    assert kubelet.run("web") != first
    assert update.result(30).outputs["status"]["updatedReplicas"] == 1


def _until_terminating(client: Any, pod: str, namespace: str) -> None:
    deadline = time.monotonic() + 30
    while not client.get("v1", "Pod", pod, namespace)["metadata"].get("deletionTimestamp"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_pod_that_cannot_be_placed_is_named_long_before_the_time_is_over(plugin, engine, background, namespace):
    needs = {"resources": {"limits": {"nvidia.com/gpu": 64}}}
    containers = [{"name": "main", "image": "played", **needs}]
    inputs = deployment(namespace, nodeName=None, containers=containers)
    creation = background(plugin.resource(DEPLOYMENT).create, inputs, timeout=9.0)
    line = engine.hear("cannot be placed", "WARNING")
    assert not creation.done()
    assert "Insufficient nvidia.com/gpu" in line
    with pytest.raises(Exception, match=r"not ready after 9 s.*cannot be placed.*Insufficient nvidia\.com/gpu") as failure:
        creation.result(30)
    assert failure.value.identifier == f"{namespace}/web"
    assert failure.value.outputs["metadata"]["uid"]


def test_a_pod_without_a_program_fails_at_once(plugin, kubelet, background, namespace):
    creation = background(plugin.resource(DEPLOYMENT).create, deployment(namespace))
    kubelet.hold("web", "NoLocalProgram", "no local program stands for image played")
    with pytest.raises(Exception, match=r"cannot become ready.*NoLocalProgram: no local program stands for image played"):
        creation.result(30)


def test_a_crash_loop_is_reported_with_its_last_words(plugin, engine, kubelet, background, namespace):
    creation = background(plugin.resource(DEPLOYMENT).create, deployment(namespace), timeout=8.0)
    ended = {"terminated": {"exitCode": 3, "message": "loading\nout of memory by 2 GiB"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    status = {"name": "main", "ready": False, "restartCount": 2, "image": "x", "imageID": "x", "state": waiting, "lastState": ended}
    kubelet.report("web", phase="Running", containerStatuses=[status])
    engine.hear("CrashLoopBackOff: out of memory by 2 GiB", "WARNING")
    with pytest.raises(Exception, match=r"(?s)not ready after 8 s.*exit code 3: loading\nout of memory by 2 GiB"):
        creation.result(30)


def test_a_deployment_over_its_progress_deadline_fails_before_the_timeout(plugin, kubelet, namespace):
    inputs = deployment(namespace)
    inputs["spec"]["progressDeadlineSeconds"] = 1
    started = time.monotonic()
    with pytest.raises(Exception, match="ProgressDeadlineExceeded"):
        plugin.resource(DEPLOYMENT).create(inputs, timeout=100.0)
    assert time.monotonic() - started < 60


def test_a_stateful_set_is_created_when_every_replica_is_ready(plugin, engine, kubelet, background, namespace):
    spec = {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}}, "template": spec_of_pods()}
    inputs = {"metadata": {"name": "db", "namespace": namespace}, "spec": spec}
    creation = background(plugin.resource("kubernetes:apps/v1:StatefulSet").create, inputs)
    kubelet.run("db-0")
    engine.hear("1 of 2 replicas are ready")
    assert not creation.done()
    kubelet.run("db-1")
    assert creation.result(30).outputs["status"]["readyReplicas"] == 2


def test_a_job_is_created_when_it_is_complete(plugin, engine, kubelet, background, namespace):
    creation = background(plugin.resource(JOB).create, job(namespace))
    engine.hear("0 of 1 pods have completed")
    kubelet.finish("once", 0)
    assert condition(creation.result(30).outputs, "Complete") == "True"


def test_a_failed_job_fails_at_once_with_the_pods_own_message(plugin, kubelet, background, namespace):
    creation = background(plugin.resource(JOB).create, job(namespace))
    kubelet.finish("once", 4, "weights: model-00002 has digest 12ab, not 34cd")
    with pytest.raises(Exception, match=r"(?s)BackoffLimitExceeded.*exit code 4: weights: model-00002 has digest 12ab, not 34cd"):
        creation.result(30)


@pytest.mark.parametrize(("annotation", "replaced"), [({"pulumi.com/replaceUnready": "true"}, True), ({}, False)])
def test_a_failed_job_is_made_anew_only_where_it_says_so(plugin, kubelet, background, namespace, annotation, replaced):
    thing = plugin.resource(JOB)
    creation = background(thing.create, job(namespace, annotation))
    kubelet.finish("once", 1, "no")
    with pytest.raises(Exception, match="failed"):
        creation.result(30)
    assert bool(thing.diff(job(namespace, annotation)).replaces) is replaced


def test_a_job_whose_wait_was_interrupted_is_made_anew_unless_it_completed_meanwhile(plugin, kubelet, cluster, namespace):
    annotation = {"pulumi.com/replaceUnready": "true"}
    thing = plugin.resource(JOB)
    with pytest.raises(Exception, match="is not ready after 1 s"):
        thing.create(job(namespace, annotation), timeout=1.0)
    assert list(thing.diff(job(namespace, annotation)).replaces) == ['metadata.annotations["pulumi.com/replaceUnready"]']
    kubelet.finish("once", 0)
    deadline = time.monotonic() + 30
    while condition(cluster.client.get("batch/v1", "Job", "once", namespace), "Complete") != "True":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not thing.diff(job(namespace, annotation)).replaces


def test_a_claim_waits_for_its_volume_unless_its_class_waits_for_a_pod(plugin, engine, cluster, background, namespace):
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    for mode in ("Immediate", "WaitForFirstConsumer"):
        name = f"{mode.lower()}-{namespace}"
        storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
        cluster.client.create({**storage, "provisioner": "example.org/none", "volumeBindingMode": mode})
    claim = plugin.resource("kubernetes:core/v1:PersistentVolumeClaim")
    inputs = {
        "metadata": {"name": "later", "namespace": namespace},
        "spec": {**spec, "storageClassName": f"waitforfirstconsumer-{namespace}"},
    }
    assert claim.create(inputs).outputs["status"]["phase"] == "Pending"
    inputs = {"metadata": {"name": "now", "namespace": namespace}, "spec": {**spec, "storageClassName": f"immediate-{namespace}"}}
    with pytest.raises(Exception, match=r"PersistentVolumeClaim .*/now is not ready after 1 s: it is Pending"):
        claim.create(inputs, timeout=1.0)


def test_a_service_waits_for_a_ready_pod_behind_it(plugin, engine, cluster, kubelet, background, namespace):
    inputs = {"metadata": {"name": "web", "namespace": namespace}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    creation = background(plugin.resource("kubernetes:core/v1:Service").create, inputs)
    engine.hear("no ready pod is behind it")
    skipped = deployment(namespace, annotations={"pulumi.com/skipAwait": "true"})
    plugin.resource(DEPLOYMENT).create(skipped)
    kubelet.run("web")
    creation.result(30)


def test_a_load_balancer_is_said_to_be_unsupported(plugin, namespace):
    spec = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}
    with pytest.raises(Exception, match=r"LoadBalancer .*not supported by the stand-in"):
        plugin.resource("kubernetes:core/v1:Service").create({"metadata": {"name": "web", "namespace": namespace}, "spec": spec})


def test_a_pod_is_awaited_too(plugin, engine, kubelet, background, namespace):
    inputs = {"metadata": {"name": "single", "namespace": namespace}, "spec": spec_of_pods()["spec"]}
    creation = background(plugin.resource("kubernetes:core/v1:Pod").create, inputs)
    engine.hear("it is Pending")
    kubelet.run("single")
    assert condition(creation.result(30).outputs, "Ready") == "True"


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
    thing.create({"metadata": {"name": f"gadgets.{group}"}, "spec": spec})
    assert condition(thing.outputs, "Established") == "True"
    yield group
    thing.delete()
    # Of a kind that is gone, every object is gone.
    orphan = plugin.resource(f"kubernetes:{group}/v1:Gadget")
    orphan.identifier, orphan.inputs = "default/x", {"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": {"name": "x"}}
    orphan.delete()


def gadget_of(namespace: str, wait_for: str, **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "x", "namespace": namespace, "annotations": {"pulumi.com/waitFor": wait_for, **annotations}},
        "spec": {"a": 1},
    }


def set_status(cluster: Any, group: str, namespace: str, **status: Any) -> None:
    cluster.client.patch(f"{group}/v1", "Gadget", "x", namespace, {"status": status}, MERGE_PATCH, "status")


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
    plugin, engine, cluster, background, namespace, gadget, wait_for, not_yet, at_last
):
    creation = background(plugin.resource(f"kubernetes:{gadget}/v1:Gadget").create, gadget_of(namespace, wait_for))
    engine.hear("Waiting for Gadget")
    engine.lines.clear()
    set_status(cluster, gadget, namespace, **not_yet)
    assert not creation.done()
    set_status(cluster, gadget, namespace, **at_last)
    creation.result(30)


def test_wait_for_goes_before_the_kinds_own_rule(plugin, kubelet, namespace):
    inputs = deployment(namespace, annotations={"pulumi.com/waitFor": "jsonpath={.status.observedGeneration}"})
    assert "availableReplicas" not in plugin.resource(DEPLOYMENT).create(inputs).outputs["status"]


def test_skip_await_goes_before_wait_for(plugin, namespace, gadget):
    inputs = gadget_of(namespace, "condition=Never", **{"pulumi.com/skipAwait": "true"})
    plugin.resource(f"kubernetes:{gadget}/v1:Gadget").create(inputs)


@pytest.mark.parametrize("wait_for", ["status=Ready", "jsonpath=.status", "jsonpath={.a[}", "[]", "condition="])
def test_a_wait_for_that_is_not_understood_is_refused_before_anything_is_made(plugin, namespace, gadget, wait_for):
    with pytest.raises(Exception, match=r"waitFor|JSONPath"):
        plugin.resource(f"kubernetes:{gadget}/v1:Gadget").check(gadget_of(namespace, wait_for))


def test_the_annotation_sets_the_timeout_and_custom_timeouts_go_before_it(plugin, namespace, gadget):
    thing = plugin.resource(f"kubernetes:{gadget}/v1:Gadget")
    inputs = gadget_of(namespace, "condition=Never", **{"pulumi.com/timeoutSeconds": "1"})
    with pytest.raises(Exception, match="not ready after 1 s: it has no condition Never yet"):
        thing.create(inputs)
    with pytest.raises(Exception, match="not ready after 2 s"):
        thing.update(inputs, timeout=2.0)


def test_a_timeout_that_is_no_number_is_refused(plugin, namespace):
    with pytest.raises(Exception, match="must be a number of seconds, not 'soon'"):
        plugin.resource(DEPLOYMENT).check(deployment(namespace, annotations={"pulumi.com/timeoutSeconds": "soon"}))


def test_an_object_that_is_deleted_meanwhile_ends_the_wait(plugin, engine, cluster, background, namespace, gadget):
    creation = background(plugin.resource(f"kubernetes:{gadget}/v1:Gadget").create, gadget_of(namespace, "condition=Never"))
    engine.hear("Waiting for Gadget")
    cluster.client.delete(f"{gadget}/v1", "Gadget", "x", namespace)
    with pytest.raises(Exception, match="was deleted while waiting"):
        creation.result(30)


def test_cancelling_ends_every_wait_and_keeps_the_object_in_the_state(start_plugin, engine, cluster, background, namespace, gadget):
    from google.protobuf.empty_pb2 import Empty

    plugin = start_plugin().configure(kubeconfig=str(cluster.home.kubeconfig))
    creation = background(plugin.resource(f"kubernetes:{gadget}/v1:Gadget").create, gadget_of(namespace, "condition=Never"))
    engine.hear("Waiting for Gadget")
    plugin.call("Cancel", Empty())
    with pytest.raises(Exception, match="cancelled while waiting") as failure:
        creation.result(30)
    assert failure.value.identifier == f"{namespace}/x"
