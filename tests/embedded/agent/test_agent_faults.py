"""The agent and its nodes come and go; what runs, and what the API server says of it, stays in line."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from pathlib import Path

import pytest

from embedded import cluster as embedded
from embedded import preflight, processes
from embedded.agent import sandbox
from embedded.home import CAPACITY_ANNOTATION, SIMULATED_LABEL, LocalHome
from mistral_on_l4.cluster.client import KubeClient

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cluster of its own, whose agent a test may kill."""
    if (why_not := preflight.refusal()) is not None:
        pytest.skip(why_not)
    home = LocalHome(tmp_path_factory.mktemp("agent"))
    try:
        embedded.start(home)
        yield home
    finally:
        embedded.stop(home, purge=True)


@pytest.fixture
def lab(home, lab_of):
    client = KubeClient.from_kubeconfig(home.kubeconfig)
    name = f"test-{uuid.uuid4().hex[:8]}"
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield lab_of(client, name)
    client.delete("v1", "Namespace", name)


@pytest.fixture
def lab_node(lab):
    """Makes a simulated node with a GPU; removed afterwards."""
    made = []

    def make(gpus: int) -> str:
        name = f"gpu-{uuid.uuid4().hex[:6]}"
        capacity = f'{{"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "{gpus}"}}'
        labels = {SIMULATED_LABEL: "true", "pool": name}
        metadata = {"name": name, "labels": labels, "annotations": {CAPACITY_ANNOTATION: capacity}}
        lab.client.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}})
        made.append(name)
        return name

    yield make
    for name in made:
        if any(each["metadata"]["name"] == name for each in lab.client.list("v1", "Node")["items"]):
            lab.client.delete("v1", "Node", name, propagation="Background")


def kill_agent(home):
    running = processes.find(home, "agent")
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    return running


COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"


def test_pods_live_through_a_killed_agent_and_are_taken_over_by_the_next(home, lab):
    lab.pod("counter", COUNT, restartPolicy="Always", terminationGracePeriodSeconds=1)
    lab.pod("brief", "sleep 2; echo done; exit 5")
    lab.phase("counter", "Running")
    lab.phase("brief", "Running")
    kill_agent(home)
    pod = lab.get("Pod", "counter")["metadata"]["uid"]
    assert sandbox.alive(home.pods / pod)
    lab.eventually(lambda: b"done" in (home.pods / lab.get("Pod", "brief")["metadata"]["uid"] / "logs/main/0.log").read_bytes())
    embedded.start(home)
    # What ended while nobody looked is told with its own exit code.
    lab.phase("brief", "Failed")
    assert lab.container("brief")["state"]["terminated"]["exitCode"] == 5
    found = lab.container("counter")
    assert (found["restartCount"], "running" in found["state"]) == (0, True)
    numbers = [int(line) for line in lab.log("counter").split()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_what_was_deleted_while_no_agent_ran_is_ended_by_the_next(home, lab):
    lab.pod("orphan", COUNT, restartPolicy="Always")
    lab.phase("orphan", "Running")
    folder = home.pods / lab.get("Pod", "orphan")["metadata"]["uid"]
    kill_agent(home)
    lab.client.delete("v1", "Pod", "orphan", lab.namespace, "Background", grace_seconds=0)
    lab.eventually(lambda: not lab.exists("Pod", "orphan"))
    assert sandbox.alive(folder)
    embedded.start(home)
    lab.eventually(lambda: not folder.exists())
    assert not sandbox.alive(folder)


def test_after_a_dead_machine_pods_start_afresh_with_their_init_containers_and_jobs_count_a_failure(home, lab, sh):
    volumes = {"volumes": [{"name": "kept", "emptyDir": {}}]}
    mounts = {"volumeMounts": [{"name": "kept", "mountPath": "/kept"}]}
    inits = [{"name": "first", **sh("echo run >> /kept/runs"), **mounts}]
    lab.pod("service", f"wc -l < /kept/runs; {COUNT}", container=mounts, initContainers=inits, restartPolicy="Always", **volumes)
    lab.pod("task", "sleep 600")
    lab.phase("service", "Running")
    lab.phase("task", "Running")
    kill_agent(home)
    assert sandbox.end_all(home.pods) >= 2
    embedded.start(home)
    lab.phase("task", "Failed")
    assert lab.container("task")["state"]["terminated"]["exitCode"] == 137
    lab.eventually(lambda: lab.container("service").get("restartCount") == 1 and lab.container("service")["started"])
    assert lab.log("service").split()[0] == "2"


def test_a_regular_stop_leaves_no_process_of_a_pod_and_a_start_brings_them_back(home, lab):
    lab.pod("service", COUNT, restartPolicy="Always")
    lab.phase("service", "Running")
    folder = home.pods / lab.get("Pod", "service")["metadata"]["uid"]
    processes.stop(home, "agent", embedded.AGENT_GRACE)
    assert not any(sandbox.alive(each) for each in home.pods.iterdir())
    embedded.start(home)
    lab.eventually(lambda: lab.container("service").get("restartCount") == 1 and sandbox.alive(folder))


def test_a_dead_first_process_of_a_pod_is_made_anew(home, lab):
    lab.pod("service", COUNT, restartPolicy="Always")
    lab.phase("service", "Running")
    sandbox.end(home.pods / lab.get("Pod", "service")["metadata"]["uid"])
    lab.eventually(lambda: lab.container("service").get("restartCount") == 1 and lab.container("service")["started"])
    assert any(reason == "SandboxChanged" for reason, _ in lab.events("service"))


def test_pods_do_not_notice_an_api_server_that_dies_and_the_agent_goes_on_with_the_next(home, lab):
    lab.pod("counter", COUNT, restartPolicy="Always")
    lab.phase("counter", "Running")
    server, agent = processes.find(home, "kube-apiserver"), processes.find(home, "agent")
    os.kill(server.pid, signal.SIGKILL)
    embedded.start(home)
    assert processes.find(home, "agent").pid == agent.pid
    lab.pod("later", "echo up")
    lab.phase("later", "Succeeded", 90)
    assert lab.container("counter")["restartCount"] == 0
    numbers = [int(line) for line in lab.log("counter").split()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_idle_agent_hardly_uses_the_machine(home, lab):
    def used_seconds() -> float:
        fields = Path(f"/proc/{processes.find(home, 'agent').pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    time.sleep(3)  # what earlier tests left is being tidied up
    before = used_seconds()
    time.sleep(10)
    assert used_seconds() - before < 0.5


def test_a_gpu_node_has_what_it_declares_and_no_pod_gets_more(home, lab, lab_node):
    name = lab_node(1)

    def ready():
        node = lab.client.get("v1", "Node", name)
        conditions = {each["type"]: each["status"] for each in node.get("status", {}).get("conditions", [])}
        # The taint goes a little later, and the first of two pods that meets it waits behind the second.
        return node["status"] if conditions.get("Ready") == "True" and not node["spec"].get("taints") else None

    status = lab.eventually(ready, 60)
    assert status["allocatable"]["nvidia.com/gpu"] == "1"
    assert {each["type"]: each["address"] for each in status["addresses"]} == {"InternalIP": "127.0.0.1", "Hostname": name}
    lab.eventually(
        lambda: name
        in {each["metadata"]["name"] for each in lab.client.list("coordination.k8s.io/v1", "Lease", "kube-node-lease")["items"]}
    )
    gpu = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    for number in (1, 2):
        lab.pod(f"model-{number}", "sleep 600", container=gpu, nodeSelector={"pool": name}, terminationGracePeriodSeconds=0)
    # The scheduler may still be pausing after an API server that died.
    lab.phase("model-1", "Running", 90)
    lab.eventually(
        lambda: any(reason == "FailedScheduling" and "nvidia.com/gpu" in text for reason, text in lab.events("model-2")), 90
    )


def test_pods_of_a_node_that_is_removed_end_and_go(home, lab, lab_node):
    name = lab_node(1)
    lab.pod("model", "sleep 600", nodeSelector={"pool": name}, terminationGracePeriodSeconds=1)
    lab.phase("model", "Running", 90)
    folder = home.pods / lab.get("Pod", "model")["metadata"]["uid"]
    lab.client.delete("v1", "Node", name, propagation="Background")
    lab.eventually(lambda: not lab.exists("Pod", "model"))
    assert not sandbox.alive(folder)


def test_many_pods_start_and_go_together_and_each_first_process_stays_small(home, lab):
    spec = {"replicas": 30, "selector": {"matchLabels": {"app": "many"}}}
    container = {"name": "main", "image": "docker.io/kserve/storage-initializer:v0.20.0", "command": ["sleep", "600"]}
    template = {"metadata": {"labels": {"app": "many"}}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}
    lab.create("apps/v1", "Deployment", "many", spec={**spec, "template": template})
    lab.eventually(lambda: (lab.get("Deployment", "many", "apps/v1") or {}).get("status", {}).get("readyReplicas") == 30, 90)
    pods = lab.client.list("v1", "Pod", lab.namespace)["items"]
    assert len({each["status"]["podIP"] for each in pods}) == 30
    assert max(rss_mib(home.pods / each["metadata"]["uid"]) for each in pods) < 13
    assert resident_mib(processes.find(home, "agent").pid) < 70
    lab.client.delete("apps/v1", "Deployment", "many", lab.namespace, "Background")
    lab.eventually(lambda: not any((home.pods / each["metadata"]["uid"]).exists() for each in pods), 60)


def rss_mib(folder):
    return resident_mib(json.loads((folder / "sandbox.json").read_text())["pid"])


def resident_mib(pid):
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024
