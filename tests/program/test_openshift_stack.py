"""The whole graph on platform `openshift`, in a cluster that is assumed as previews assume one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest

from embedded.openshift import handed_over
from mistral_on_l4.config.names import ASSUMED_CLUSTER
from mistral_on_l4.config.settings import load_stack_file
from tests.support.engine import Engine

SERVICES = ("mistral-24b-full", "mistral-24b-fp8")
OUTPUTS = {
    "kubernetes:core/v1:ConfigMap": {"data": {"registeredModelId": "7", "modelVersionId": "9", "modelArtifactId": "11"}},
    "kubernetes:route.openshift.io/v1:Route": {"spec": {"host": "mistral.apps.demo.example.com"}},
}


_SHIPPED: list[Engine] = []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project_folder: Path) -> Callable[..., None]:
    """cluster(change=None): what the program finds, with the objects changed in place first."""

    def assume(change: Callable[[list[dict[str, Any]]], Any] | None = None) -> None:
        objects = handed_over.objects(load_stack_file("rhoai", project_folder))
        if change is not None:
            change(objects)
        file = tmp_path / "assumed.json"
        file.write_text(json.dumps(objects))
        monkeypatch.setenv(ASSUMED_CLUSTER, str(file))

    return assume


@pytest.fixture
def preview(cluster: Callable[..., None], run_program: Callable[..., Engine]) -> Callable[..., Engine]:
    """preview(change=None, **config): the program on that cluster."""

    def run(change: Callable[[list[dict[str, Any]]], Any] | None = None, engine: Engine | None = None, **config: Any) -> Engine:
        if change is None and engine is None and not config:
            # Most tests look at the same run.
            if not _SHIPPED:
                cluster()
                _SHIPPED.append(run_program(stack="rhoai", preview=True, engine=Engine(outputs=OUTPUTS)))
            return _SHIPPED[0]
        cluster(change)
        return run_program(stack="rhoai", preview=True, engine=engine or Engine(outputs=OUTPUTS), **config)

    return run


@pytest.fixture
def refused(preview: Callable[..., Engine]) -> Callable[..., str]:
    """refused(change, **config): what the program says instead of declaring anything."""

    def run(change: Callable[[list[dict[str, Any]]], Any] | None = None, **config: Any) -> str:
        engine = Engine(outputs=OUTPUTS)
        with pytest.raises(pulumi.RunError) as error:
            preview(change, engine, **config)
        assert [found.token for found in engine.resources if found.token.startswith("kubernetes:")] == []
        return str(error.value)

    return run


def of(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    return next(item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"]))


def upstream(engine: Engine, urn: str) -> set[str]:
    """Names of everything that a resource waits for, directly or through others and through its component."""
    by_urn = {found.urn: found for found in engine.resources}
    seen: set[str] = set()
    queue = [urn]
    while queue:
        waiting = by_urn[queue.pop()]
        for other in (*waiting.depends_on, waiting.parent):
            if other in by_urn and other not in seen:
                seen.add(other)
                queue.append(other)
    return {by_urn[found].name for found in seen}


def test_services_are_what_openshift_ai_takes_for_its_own(preview: Callable[..., Engine]) -> None:
    engine = preview()
    for name, pool in zip(SERVICES, ("l4-4gpu", "l4-1gpu"), strict=True):
        meta, predictor = (engine.named("InferenceService", name).inputs[part] for part in ("metadata", "spec"))
        annotations, labels, model = meta["annotations"], meta["labels"], predictor["predictor"]["model"]
        assert annotations["serving.kserve.io/deploymentMode"] == "RawDeployment"
        assert annotations["security.opendatahub.io/enable-auth"] == "true"
        assert annotations["opendatahub.io/hardware-profile-name"] == f"nvidia-{pool}"
        assert int(annotations["haproxy.router.openshift.io/timeout"].rstrip("s")) > 30
        assert labels["networking.kserve.io/visibility"] == "exposed"
        assert labels["opendatahub.io/dashboard"] == labels["opendatahub.io/genai-asset"] == "true"
        assert labels["modelregistry.opendatahub.io/name"] == "private-ai-registry"
        assert {"registered-model-id", "model-version-id"} <= {key.rpartition("/")[2] for key in labels}
        assert model["storage"]["key"] == annotations["opendatahub.io/connections"] == "minio-connection"
        assert model["storage"]["path"].endswith("/")
        assert not [entry for entry in model.get("env", []) if entry["name"] == "VLLM_API_KEY"]
        engine.named("HardwareProfile", f"nvidia-{pool}")


def test_the_store_is_a_connection_and_storage_config_is_left_to_openshift_ai(preview: Callable[..., Engine]) -> None:
    engine = preview()
    secret = engine.named("Secret", "minio-connection")
    assert secret.inputs["metadata"]["namespace"] == "private-ai"
    assert secret.inputs["metadata"]["labels"]["opendatahub.io/managed"] == "true"
    assert secret.inputs["metadata"]["annotations"]["opendatahub.io/connection-type"] == "s3"
    held = secret.inputs["stringData"]
    assert (held["AWS_S3_ENDPOINT"], held["AWS_S3_BUCKET"]) == ("http://minio.minio-storage.svc:9000", "rhoai-artifacts")
    assert {found.inputs["metadata"]["name"] for found in engine.of("Secret")} & {"storage-config", "vllm-api-key"} == set()


def test_no_pod_fixes_a_user_id(preview: Callable[..., Engine]) -> None:
    engine = preview()
    templates = [found.inputs for found in engine.resources if found.token.startswith("kubernetes:")]
    text = json.dumps([entry.get("spec") for entry in templates], default=str)
    assert "runAsNonRoot" in text
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(text.replace('"', " ").replace(":", " ").split())


def test_a_pool_is_the_workers_machine_set_with_a_gpu(preview: Callable[..., Engine]) -> None:
    found: dict[str, Any] = {}

    def remember(objects: list[dict[str, Any]]) -> None:
        found.update(of(objects, "MachineSet"))

    engine = preview(remember, pools={"groups": {"l4-1gpu": {"count": 2, "capacityType": "SPOT"}}})
    made = engine.named("MachineSet", "demo-x7k2p-l4-1gpu-us-east-1a").inputs
    worker = found["spec"]["template"]["spec"]["providerSpec"]["value"]
    provider = made["spec"]["template"]["spec"]["providerSpec"]["value"]
    kept = ("ami", "iamInstanceProfile", "securityGroups", "subnet", "placement", "userDataSecret", "credentialsSecret")
    assert {key: provider[key] for key in kept} == {key: worker[key] for key in kept}
    assert worker["tags"][0] in provider["tags"]
    assert (provider["instanceType"], made["spec"]["replicas"], provider["spotMarketOptions"]) == ("g6.2xlarge", 2, {})
    assert provider["blockDevices"][0]["ebs"]["volumeSize"] == 200
    machine = made["spec"]["template"]["spec"]
    assert machine["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert machine["metadata"]["labels"]["mistral-on-l4/pool"] == "l4-1gpu"
    assert made["spec"]["selector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    assert made["metadata"]["annotations"]["machine.openshift.io/GPU"] == "1"


def test_a_service_waits_for_its_gpus_its_weights_and_its_registration(preview: Callable[..., Engine]) -> None:
    engine = preview()
    before = upstream(engine, engine.named("InferenceService", "mistral-24b-full").urn)
    assert {
        "pool-l4-4gpu-usable",
        "mistral-24b-seed",
        "mistral-24b-full-job",
        "registry-server",
        "data-science-components",
        "data-science-profile-l4-4gpu",
    } <= before
    # Its GPUs are usable when driver and device plugin are there.
    assert {"gpu-software-policy", "gpu-software-discovery", "nfd-installed", "gpu-operator-installed"} <= before


def test_nodes_after_the_weights_are_not_started_before_them(preview: Callable[..., Engine]) -> None:
    early = preview()
    assert "mistral-24b-seed" not in upstream(early, early.named("MachineSet", "demo-x7k2p-l4-4gpu-us-east-1a").urn)
    late = preview(pools={"start": "after-seed"})
    assert "mistral-24b-seed" in upstream(late, late.named("MachineSet", "demo-x7k2p-l4-4gpu-us-east-1a").urn)


def test_what_is_there_is_patched_and_what_is_not_is_made(preview: Callable[..., Engine]) -> None:
    engine = preview()
    patch = engine.named("DataScienceClusterPatch", "default-dsc").inputs
    assert set(patch["spec"]["components"]) == {"kserve", "modelregistry"}
    assert engine.of("DataScienceCluster") == []
    assert [found.inputs["metadata"]["name"] for found in engine.of("NamespacePatch")] == ["rhoai-model-registries"]
    assert {found.inputs["metadata"]["name"] for found in engine.of("Subscription")} == {"nfd", "gpu-operator-certified"}
    assert engine.named("ClusterPolicy", "gpu-cluster-policy").inputs["spec"]["driver"]["version"] == "570.195.03"


def test_a_services_namespace_of_somebody_elses_is_kept_and_its_queue_named(preview: Callable[..., Engine]) -> None:
    def add(objects: list[dict[str, Any]]) -> None:
        queued = {"team": "a", "kueue.openshift.io/managed": "true"}
        meta = {"name": "private-ai", "labels": queued, "annotations": handed_over.uid_range(40)}
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})

    queued = {"queue": "default", "operators": {"nfd": "install", "gpu": "install"}}
    engine = preview(add, openshift=queued)
    labels = engine.named("InferenceService", SERVICES[0]).inputs["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "default"
    patched = engine.named("NamespacePatch", "private-ai").inputs["metadata"]["labels"]
    assert patched == {
        "mistral-on-l4/stack": "rhoai",
        "mistral-on-l4/adopted": "true",
        "opendatahub.io/dashboard": "true",
        "modelmesh-enabled": "false",
    }


def test_operators_that_are_there_are_not_subscribed_to(preview: Callable[..., Engine]) -> None:
    def complete(objects: list[dict[str, Any]]) -> None:
        settings = load_stack_file("rhoai", Path(__file__).parents[2])
        operators = settings.openshift.operators.model_copy(update={"nfd": "existing", "gpu": "existing"})
        other = settings.model_copy(update={"openshift": settings.openshift.model_copy(update={"operators": operators})})
        objects[:] = handed_over.objects(other)

    engine = preview(complete, openshift={"operators": {"nfd": "existing", "gpu": "existing"}})
    assert [engine.of(kind) for kind in ("Subscription", "ClusterPolicy", "NodeFeatureDiscovery")] == [[], [], []]


def test_the_route_is_read_once_the_service_answers(preview: Callable[..., Engine]) -> None:
    engine = preview()
    policy = engine.named("NetworkPolicy", "mistral-24b-fp8-route").inputs["spec"]
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8443}]
    closed = preview(access={"exposure": "none"})
    assert closed.of("Route") == []
    assert "networking.kserve.io/visibility" not in closed.named("InferenceService", SERVICES[0]).inputs["metadata"]["labels"]


def _older(objects: list[dict[str, Any]]) -> None:
    of(objects, "ClusterServiceVersion")["spec"]["version"] = "2.25.0"


def _newer(objects: list[dict[str, Any]]) -> None:
    of(objects, "ClusterServiceVersion")["spec"]["version"] = "3.4.1"


def _without(kind: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[:] = [item for item in objects if item["kind"] != kind]

    return change


def _namespace(name: str, labels: dict[str, str] | None = None, **annotations: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(objects: list[dict[str, Any]]) -> None:
        meta = {"name": name, "labels": labels or {}, "annotations": annotations}
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})

    return change


def _object(api_version: str, kind: str, name: str, namespace: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(objects: list[dict[str, Any]]) -> None:
        objects.append({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": {}})

    return change


def _removed(objects: list[dict[str, Any]]) -> None:
    of(objects, "DataScienceCluster")["spec"]["components"]["kserve"]["managementState"] = "Removed"


def _azure(objects: list[dict[str, Any]]) -> None:
    of(objects, "Infrastructure")["status"]["platformStatus"] = {"type": "Azure"}


RANGE = {"openshift.io/sa.scc.uid-range": "1000900000/10000"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without("ClusterVersion"), "the cluster is not OpenShift (it has no ClusterVersion): log in to yours with `oc login`"),
        (_azure, "runs on Azure, and GPU pools are MachineSets on AWS"),
        (_without("Subscription"), "OpenShift AI is not installed"),
        (_older, "OpenShift AI 2.25.0 is older than 3.0"),
        (_newer, "OpenShift AI 3.4.1 is installed, and the stack is planned for 3.0"),
        (_without("MachineSet"), "there is no worker MachineSet to derive GPU pools from"),
        (_namespace("private-ai", {"kueue.openshift.io/managed": "true"}, **RANGE), "is managed by Kueue"),
        (_namespace("private-ai"), "namespace private-ai has no range of user ids"),
        (_namespace("minio-storage", {"mistral-on-l4/stack": "other"}, **RANGE), "belongs to stack 'other'"),
        (
            _object("serving.kserve.io/v1beta1", "InferenceService", "mistral-24b-fp8", "private-ai"),
            "InferenceService mistral-24b-fp8 in private-ai is not this stack's",
        ),
        (
            _object("modelregistry.opendatahub.io/v1beta1", "ModelRegistry", "private-ai-registry", "rhoai-model-registries"),
            "ModelRegistry private-ai-registry in rhoai-model-registries is not this stack's",
        ),
        (
            _object("infrastructure.opendatahub.io/v1", "HardwareProfile", "nvidia-l4-1gpu", "redhat-ods-applications"),
            "set mistral-on-l4:openshift.operators.hardwareProfiles to existing",
        ),
        (_removed, "`oc patch datasciencecluster default-dsc"),
        (_without("StorageClass"), "the cluster has no default StorageClass"),
    ],
)
def test_a_cluster_that_the_stack_cannot_live_in_is_refused_in_one_line(
    refused: Callable[..., str], change: Callable[[list[dict[str, Any]]], None], says: str
) -> None:
    text = refused(change)
    assert says in text
    assert "\n" not in text


def test_another_cluster_than_the_stacks_is_refused(preview: Callable[..., Engine]) -> None:
    urn = "urn:pulumi:rhoai::mistral-on-l4::mistral-on-l4:openshift:Platform$pulumi:providers:kubernetes::openshift-kubernetes"
    engine = Engine(outputs=OUTPUTS, recorded={urn: {"clusterIdentifier": "other-9zz9z"}})
    with pytest.raises(pulumi.RunError, match="the stack lives in cluster other-9zz9z, and you are logged in to demo-x7k2p"):
        preview(None, engine)


def test_an_up_takes_no_assumed_cluster(cluster: Callable[..., None], run_program: Callable[..., Engine]) -> None:
    cluster()
    with pytest.raises(pulumi.RunError, match="for previews without a cluster alone"):
        run_program(stack="rhoai", preview=False)
