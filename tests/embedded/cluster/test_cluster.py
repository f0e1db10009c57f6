"""The cluster is a real one: KServe makes Deployments, webhooks and admission refuse, and nobody else can read it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.home import CAPACITY_ANNOTATION, SIMULATED_LABEL, STORAGE_CLASS, STORAGE_PROVISIONER
from mistral_on_l4.cluster.client import ApiError, Object

pytestmark = pytest.mark.embedded


def runtime(namespace: str) -> Object:
    container = {"name": "kserve-container", "image": "docker.io/vllm/vllm-openai:v0.11.2", "args": ["--model=/mnt/models"]}
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "vllm", "namespace": namespace},
        "spec": {"supportedModelFormats": [{"name": "vLLM", "autoSelect": False}], "containers": [container]},
    }


def service(namespace: str, **predictor: Any) -> Object:
    model = {
        "modelFormat": {"name": "vLLM"},
        "runtime": "vllm",
        "storage": {"key": "minio", "path": "mistral-24b/"},
        "resources": {"limits": {"nvidia.com/gpu": "4"}, "requests": {"nvidia.com/gpu": "4"}},
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "big", "namespace": namespace, "annotations": {"serving.kserve.io/autoscalerClass": "none"}},
        "spec": {"predictor": {"model": model, **predictor}},
    }


def storage_config(namespace: str) -> Object:
    entry = {"type": "s3", "access_key_id": "reader", "secret_access_key": "x", "endpoint_url": "http://minio:9000"}
    text = json.dumps({**entry, "bucket": "rhoai-artifacts", "region": "us-east-1"})
    meta = {"name": "storage-config", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"minio": text}}


def test_an_inference_service_becomes_a_deployment_with_the_storage_initializer(
    cluster: Any, namespace: str, eventually: Callable[..., Any]
) -> None:
    for item in (storage_config(namespace), runtime(namespace), service(namespace)):
        cluster.client.create(item)

    def pods() -> list[Object]:
        return list(cluster.client.list("v1", "Pod", namespace, "serving.kserve.io/inferenceservice=big")["items"])

    pod = eventually(pods)[0]
    (initializer,) = pod["spec"]["initContainers"]
    assert initializer["image"] == "docker.io/kserve/storage-initializer:v0.20.0"
    assert initializer["args"] == ["s3://rhoai-artifacts/mistral-24b/", "/mnt/models"]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    address = cluster.client.get("v1", "Service", "big-predictor", namespace)["spec"]["clusterIP"]
    assert address.startswith(cluster.info.service_cidr.removesuffix("0.0/16"))


def test_the_controllers_webhook_refuses_a_service_it_could_not_run(cluster: Any, namespace: str) -> None:
    with pytest.raises(ApiError, match=r"admission webhook .*'MinReplicas' cannot be greater than MaxReplicas"):
        cluster.client.create(service(namespace, minReplicas=3, maxReplicas=1))


def test_the_definition_refuses_what_the_go_types_do_not_allow(cluster: Any, namespace: str) -> None:
    wrong = runtime(namespace)
    wrong["spec"]["containers"][0]["ports"] = [{"containerPort": "http"}]
    with pytest.raises(ApiError, match=r"containerPort.* must be of type integer"):
        cluster.client.create(wrong)


def test_a_namespace_that_asks_for_restricted_pods_gets_no_others(cluster: Any, namespace: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.client.patch("v1", "Namespace", namespace, None, {"metadata": {"labels": labels}})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "x", "securityContext": {"privileged": True}}]},
    }
    with pytest.raises(ApiError, match="violates PodSecurity") as refused:
        cluster.client.create(pod)
    assert refused.value.status == 403


def test_the_default_storage_class_is_ours_and_waits_for_a_pod(cluster: Any) -> None:
    (found,) = cluster.client.list("storage.k8s.io/v1", "StorageClass")["items"]
    assert found["metadata"]["name"] == STORAGE_CLASS
    assert found["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    assert (found["provisioner"], found["volumeBindingMode"]) == (STORAGE_PROVISIONER, "WaitForFirstConsumer")


def test_deleting_an_owner_deletes_what_it_owns(cluster: Any, namespace: str, eventually: Callable[..., Any]) -> None:
    def config(name: str, **meta: Any) -> Object:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **meta}}

    owner = cluster.client.create(config("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    cluster.client.create(config("owned", ownerReferences=[reference]))
    cluster.client.delete("v1", "ConfigMap", "owner", namespace, propagation="Background")

    def gone() -> bool:
        return "owned" not in [item["metadata"]["name"] for item in cluster.client.list("v1", "ConfigMap", namespace)["items"]]

    eventually(gone)


def test_no_file_of_the_home_can_be_read_by_other_users(cluster: Any) -> None:
    assert stat.S_IMODE(cluster.home.root.stat().st_mode) == 0o700
    for path in (*cluster.home.pki.iterdir(), cluster.home.kubeconfig, cluster.home.cluster_file, *cluster.home.logs.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_etcd_listens_on_no_port_at_all(cluster: Any) -> None:
    pid = json.loads((cluster.home.run / "etcd.json").read_text())["pid"]
    inodes = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    sockets = {name.removeprefix("socket:[").removesuffix("]") for name in inodes if name.startswith("socket:[")}
    tcp = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]]
    assert sockets
    assert not [fields for fields in tcp if fields[9] in sockets]
    assert stat.S_ISSOCK((cluster.home.run / "etcd.sock").stat().st_mode)


def test_the_api_server_tells_a_stranger_nothing(cluster: Any) -> None:
    kubectl = [cluster.info.tools["kubectl"], "--server", cluster.info.api_server_url, "--certificate-authority"]
    kubectl += [str(cluster.home.pki / "ca.crt"), "--kubeconfig", "/dev/null", "--token", "guess", "get", "secrets", "-A"]
    said = subprocess.run(kubectl, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode != 0
    assert "Unauthorized" in said.stderr or "logged in" in said.stderr


@pytest.fixture
def node(cluster: Any) -> Iterator[str]:
    """A simulated node that only pods which name it get."""
    name = f"node-{uuid.uuid4().hex[:6]}"
    capacity = json.dumps({"cpu": "4", "memory": "8Gi", "pods": "10"})
    meta = {"name": name, "labels": {SIMULATED_LABEL: "true"}, "annotations": {CAPACITY_ANNOTATION: capacity}}
    taint = {"key": "test", "value": name, "effect": "NoSchedule"}
    cluster.client.create({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": [taint]}})
    yield name
    cluster.client.delete("v1", "Node", name)


def test_demo_logs_prints_what_a_pod_wrote_and_follows_it_to_its_end(
    cluster: Any, namespace: str, node: str, eventually: Callable[..., Any]
) -> None:
    script = "import time\nfor i in range(3): print('line', i, flush=True); time.sleep(0.3)"
    container = {"name": "main", "image": "docker.io/kserve/storage-initializer:v0.20.0", "command": ["python", "-c", script]}
    spec = {"restartPolicy": "Never", "containers": [container], "nodeName": node, "tolerations": [{"operator": "Exists"}]}
    meta = {"name": "talker", "namespace": namespace}
    cluster.client.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    eventually(lambda: cluster.client.get("v1", "Pod", "talker", namespace)["status"]["phase"] in ("Running", "Succeeded"), 60)
    command = [sys.executable, "-m", "mistral_on_l4", "logs", "talk", "-n", namespace, "-f"]
    env = {**os.environ, "MISTRAL_ON_L4_HOME": str(cluster.home.root)}
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert (said.returncode, said.stdout.splitlines()) == (0, ["line 0", "line 1", "line 2"]), said.stderr
