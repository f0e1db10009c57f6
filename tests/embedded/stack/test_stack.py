"""The life of the local stack: up, used, previewed, refreshed, changed, broken, destroyed. The tests run in this order."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from mistral_on_l4.config.defaults import DEFAULT_SERVICES
from tests.support.configuration import only_pools, only_services

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(1500)]

NAMESPACE = "private-ai"
SERVICES = ("mistral-24b-full", "mistral-24b-fp8")


def address(stack: Any, service: str, namespace: str) -> str:
    cluster = json.loads((stack.home / "cluster.json").read_text())
    spec = stack.get("service", service, "-n", namespace)["spec"]
    port = spec["ports"][0]["port"]
    return f"http://{spec['clusterIP']}:{port + cluster['port_shift'] if port < 1024 else port}"


def chat(stack: Any, service: str, key: str | None) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"model": service, "messages": [{"role": "user", "content": "Explain tensor parallelism."}], "max_tokens": 16}
    url = f"{address(stack, f'{service}-predictor', NAMESPACE)}/v1/chat/completions"
    return requests.post(url, json=body, headers=headers, timeout=60)


def changes(stack: Any) -> dict[str, int]:
    """What the last update changed, by kind of step; looking at a registration's ConfigMap is none."""
    history = json.loads(stack.pulumi("stack", "history", "--json", "--page-size", "1", "--page", "1").stdout)
    return {step: count for step, count in history[0]["resourceChanges"].items() if step not in ("same", "read")}


def test_up_ends_with_a_chat_answer_and_an_address_of_each_service(stack: Any) -> None:
    for service in SERVICES:
        assert service in stack.said
    assert stack.said.count("http://127.") >= 2
    assert "simulated engine" in stack.said


def test_both_services_are_ready(stack: Any) -> None:
    lines = stack.kubectl("get", "inferenceservice", "-n", NAMESPACE, "--no-headers").splitlines()
    assert {line.split()[0] for line in lines} == set(SERVICES)
    assert all(line.split()[2] == "True" for line in lines)


def test_pods_hold_four_and_one_gpus_on_the_nodes_of_their_pools(stack: Any) -> None:
    pods = stack.get("pods", "-n", NAMESPACE, "-l", "serving.kserve.io/inferenceservice")["items"]
    gpus = {
        pod["metadata"]["labels"]["serving.kserve.io/inferenceservice"]: (
            pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"],
            pod["spec"]["nodeName"],
        )
        for pod in pods
    }
    assert gpus == {"mistral-24b-full": ("4", "l4-4gpu-0"), "mistral-24b-fp8": ("1", "l4-1gpu-0")}


def test_nodes_carry_the_labels_and_the_taint_of_g6_instances(stack: Any) -> None:
    node = stack.get("node", "l4-4gpu-0")
    assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "g6.12xlarge"
    assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-L4"
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "4"
    assert any(taint["key"] == "nvidia.com/gpu" for taint in node["spec"]["taints"])


def test_the_registry_lists_both_models_over_its_v1alpha3_api(stack: Any) -> None:
    url = address(stack, "private-ai-registry-internal", "rhoai-model-registries")
    items = requests.get(f"{url}/api/model_registry/v1alpha3/registered_models", timeout=10).json()["items"]
    assert sorted(item["name"] for item in items) == ["Mistral-Small-24B-Instruct-BF16", "Mistral-Small-24B-Instruct-FP8"]
    assert all(item["state"] == "LIVE" for item in items)


def test_the_official_client_finds_version_and_artifact(stack: Any) -> None:
    from model_registry import ModelRegistry

    registry = ModelRegistry(
        address(stack, "private-ai-registry-internal", "rhoai-model-registries"), author="test", is_secure=False
    )
    name = "Mistral-Small-24B-Instruct-FP8"
    versions = list(registry.get_model_versions(name))
    assert len(versions) == 1
    artifact = registry.get_model_artifact(name, versions[0].name)
    assert artifact is not None
    assert artifact.uri == "s3://rhoai-artifacts/mistral-24b-fp8/"
    assert len(str(versions[0].custom_properties["weights_digest"])) >= 64


def test_registry_ids_stand_on_the_services(stack: Any) -> None:
    for service in SERVICES:
        annotations = stack.get("inferenceservice", service, "-n", NAMESPACE)["metadata"]["annotations"]
        assert annotations["modelregistry.opendatahub.io/registered-model-id"].isdigit()


def test_services_answer_with_the_key_and_refuse_without(stack: Any) -> None:
    key = stack.outputs()["apiKey"]
    for service in SERVICES:
        answer = chat(stack, service, key)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]
        assert chat(stack, service, None).status_code == 401
        assert chat(stack, service, "wrong").status_code == 401


def test_the_bucket_holds_hugging_face_shards_and_never_the_consolidated_copy(stack: Any) -> None:
    import boto3

    secret = stack.get("secret", "weights-reader", "-n", "minio-storage")["data"]
    s3 = boto3.client(
        "s3",
        endpoint_url=address(stack, "minio", "minio-storage"),
        region_name="us-east-1",
        aws_access_key_id=_decoded(secret["AWS_ACCESS_KEY_ID"]),
        aws_secret_access_key=_decoded(secret["AWS_SECRET_ACCESS_KEY"]),
    )
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket="rhoai-artifacts")["Contents"]]
    for prefix in ("mistral-24b/", "mistral-24b-fp8/"):
        assert f"{prefix}config.json" in keys
        assert any(key.startswith(f"{prefix}model-") and key.endswith(".safetensors") for key in keys)
    assert not any("consolidated" in key or key.endswith("params.json") for key in keys)
    with pytest.raises(Exception, match="AccessDenied"):
        s3.put_object(Bucket="rhoai-artifacts", Key="mistral-24b/x", Body=b"a reader writes nothing")


def test_kubectl_logs_shows_what_the_seed_job_did(stack: Any) -> None:
    pods = stack.get("pods", "-n", "minio-storage", "-l", "app.kubernetes.io/name=seed-weights")["items"]
    assert len(pods) == 2
    for pod in pods:
        assert "MB/s" in stack.kubectl("logs", "-n", "minio-storage", pod["metadata"]["name"])


def test_status_shows_services_jobs_and_models(stack: Any) -> None:
    status = json.loads(stack.demo("status", "--json").stdout)
    assert all(service["ready"] for service in status["services"])
    assert all(job["state"] == "complete" for job in status["jobs"])
    assert len(status["registeredModels"]) == 2


def test_compare_shows_times_beside_the_plans(stack: Any) -> None:
    said = stack.demo("compare", "What is an L4?", "--max-tokens", "8").stdout
    assert "TTFT" in said
    assert all(service in said for service in SERVICES)


def test_a_preview_after_up_shows_no_change(stack: Any) -> None:
    stack.pulumi("preview", "--expect-no-changes")


def test_a_refresh_after_up_shows_no_drift(stack: Any) -> None:
    state = json.loads(stack.pulumi("stack", "export").stdout)["deployment"]["resources"]
    # What the program only reads gets its whole object at the first refresh.
    read = {found["urn"].rpartition("::")[2] for found in state if found.get("external")}
    said = stack.pulumi("refresh", "--yes", "--skip-preview").stdout
    assert [line for line in said.splitlines() if "[diff:" in line and not read & set(line.split())] == []
    stack.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")


def test_a_second_up_changes_nothing(stack: Any) -> None:
    stack.demo("up")
    assert changes(stack) == {}


def test_no_secret_stands_in_clear_in_the_state_or_in_the_outputs(stack: Any) -> None:
    key = stack.outputs()["apiKey"]
    assert key not in stack.pulumi("stack", "export").stdout
    assert key not in stack.pulumi("stack", "output").stdout
    assert key not in stack.said
    for log in (stack.home / "logs").rglob("*"):
        if log.is_file():
            assert key.encode() not in log.read_bytes(), log


def test_files_with_secrets_are_their_owners_alone(stack: Any) -> None:
    assert stack.home.stat().st_mode & 0o077 == 0
    for path in (stack.home / "kubeconfig", *(stack.home / "pki").glob("*.key")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.fixture
def changed(stack: Any, tmp_path: Path) -> Any:
    """The same stack from a copy of the program, whose configuration a test may change; the state and cluster are the same."""
    folder = tmp_path / "program"
    folder.mkdir()
    for name in ("__main__.py", "Pulumi.yaml", "Pulumi.local.yaml"):
        shutil.copy(stack.folder / name, folder / name)
    shutil.copytree(stack.folder / "components", folder / "components")
    return type(stack)(stack.home, folder, stack.environment, "")


def configure(stack: Any, **values: Any) -> None:
    path = stack.folder / "Pulumi.local.yaml"
    document = yaml.safe_load(path.read_text())
    document["config"] |= {f"mistral-on-l4:{key}": value for key, value in values.items()}
    path.write_text(yaml.safe_dump(document))


def services_with(**changes_of_fp8: Any) -> dict[str, Any]:
    return {"mistral-24b-fp8": changes_of_fp8}


def pod_of(stack: Any, service: str) -> dict[str, Any]:
    pods = stack.get("pods", "-n", NAMESPACE, "-l", f"serving.kserve.io/inferenceservice={service}")["items"]
    found: dict[str, Any] = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    return found


def test_an_update_that_leaves_the_deployment_unchanged_returns(changed: Any) -> None:
    before = pod_of(changed, "mistral-24b-fp8")["metadata"]["uid"]
    configure(changed, registry={"owner": "another-team"})
    changed.pulumi("up", "--yes", "--skip-preview")
    assert pod_of(changed, "mistral-24b-fp8")["metadata"]["uid"] == before


def test_an_update_of_arguments_returns_only_when_the_new_pod_is_ready(changed: Any) -> None:
    before = pod_of(changed, "mistral-24b-fp8")["metadata"]["uid"]
    configure(changed, services=services_with(maxModelLen=4096))
    changed.pulumi("up", "--yes", "--skip-preview")
    pod = pod_of(changed, "mistral-24b-fp8")
    assert pod["metadata"]["uid"] != before
    assert any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
    assert any("4096" in argument for argument in pod["spec"]["containers"][0]["args"])
    # And back: what follows starts from the shipped configuration.
    configure(changed, services=services_with())
    changed.pulumi("up", "--yes", "--skip-preview")
    assert not any("4096" in argument for argument in pod_of(changed, "mistral-24b-fp8")["spec"]["containers"][0]["args"])


def claims(stack: Any) -> dict[str, tuple[str, str]]:
    """(uid, size) of each claim with data, by what it keeps."""
    found = stack.get("pvc", "-A", "-l", "mistral-on-l4/data")["items"]
    return {
        claim["metadata"]["labels"]["mistral-on-l4/data"]: (claim["metadata"]["uid"], claim["status"]["capacity"]["storage"])
        for claim in found
    }


def test_volumes_grow_in_place_and_a_new_service_takes_the_gpu_of_the_old_one(changed: Any) -> None:
    before = claims(changed)
    swapped = {"mistral-24b-fp8": {"enabled": False}, "mistral-24b-w4a16": {"enabled": True}}
    configure(changed, objectStore={"volumeSize": "20Gi"}, registry={"volumeSize": "6Gi"}, services=swapped)
    assert "mistral-24b-fp8, which goes first" in changed.pulumi("preview").stdout
    changed.pulumi("up", "--yes", "--skip-preview")
    assert claims(changed) == {"store": (before["store"][0], "20Gi"), "registry": (before["registry"][0], "6Gi")}
    # And back, which the volumes cannot without a loss.
    configure(changed, objectStore={"volumeSize": "10Gi"}, registry={"volumeSize": "5Gi"}, services={})
    refused = changed.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode != 0
    assert "shrinks from 20Gi to 10Gi" in refused.stdout
    assert "shrinks from 6Gi to 5Gi" in refused.stdout
    configure(changed, allowDataLoss=["store", "registry"])
    changed.pulumi("up", "--yes", "--skip-preview")
    after = claims(changed)
    assert {key: size for key, (_, size) in after.items()} == {"store": "10Gi", "registry": "5Gi"}
    assert after["store"][0] != before["store"][0]
    key = changed.outputs()["apiKey"]
    assert [chat(changed, service, key).status_code for service in SERVICES] == [200, 200]


@pytest.fixture
def taken_gpu(stack: Any) -> Iterator[None]:
    """Somebody else's pod that waits for a GPU of the pool and takes the next one that appears."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "somebody-else", "namespace": "default"},
        "spec": {
            "nodeSelector": {"mistral-on-l4/pool": "l4-1gpu"},
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "training",
                    "image": "docker.io/kserve/storage-initializer:v0.20.0",
                    "command": ["python", "-c", "import time; time.sleep(3600)"],
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                }
            ],
        },
    }
    subprocess.run(["kubectl", "apply", "-f", "-"], input=json.dumps(pod), text=True, check=True, env=dict(stack.environment))
    yield
    stack.kubectl("delete", "pod", "somebody-else", "--ignore-not-found")


@pytest.mark.usefixtures("taken_gpu")
def test_a_pod_that_cannot_be_placed_is_named_with_its_reason_by_status_while_up_waits(changed: Any) -> None:
    # The planner refuses a pool that is too small; that somebody else takes its GPU is beyond it.
    second = {"mistral-24b-second": DEFAULT_SERVICES["mistral-24b-fp8"]}
    configure(changed, services=second, pools={"groups": {"l4-1gpu": {"count": 2}}})
    process = _started_up(changed)
    assert process.stdout is not None
    # A pipe that nobody reads fills up, and pulumi with it waits.
    threading.Thread(target=process.stdout.read, daemon=True).start()
    try:
        # The provider's own wait tells no pod's reason.
        _until_status_says(changed, r"mistral-24b-second: cannot be placed: .*Insufficient nvidia\.com/gpu", seconds=240)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=300)
    # Back to the shipped configuration: what was half made goes.
    shutil.copy(Path(__file__).resolve().parents[3] / "Pulumi.local.yaml", changed.folder / "Pulumi.local.yaml")
    changed.pulumi("up", "--yes", "--skip-preview")
    assert {line.split()[0] for line in changed.kubectl("get", "isvc", "-n", NAMESPACE, "--no-headers").splitlines()} == set(
        SERVICES
    )


@pytest.fixture
def broken_hub_stack(changed: Any) -> Iterator[Any]:
    """A second stack in the same cluster, in namespaces of its own, whose hub is a closed port."""
    document = {
        "config": {
            "mistral-on-l4:platform": "local",
            "mistral-on-l4:namespaces": {"services": "other-ai", "objectStore": "other-store", "registry": "other-registries"},
            "mistral-on-l4:objectStore": {"volumeSize": "10Gi"},
            "mistral-on-l4:hub": {"endpoint": "http://127.0.0.1:9"},
            "mistral-on-l4:pools": {
                "groups": only_pools(
                    {"name": "other-1gpu", "instanceType": "g6.2xlarge"},
                    {"name": "other-4gpu", "instanceType": "g6.12xlarge"},
                )
            },
            "mistral-on-l4:services": only_services(
                {"name": "other-full", "variant": "bf16", "prefix": "other/", "pool": "other-4gpu", "tensorParallelSize": 4}
            ),
        }
    }
    (changed.folder / "Pulumi.other.yaml").write_text(yaml.safe_dump(document))
    changed.pulumi("stack", "init", stack="other")
    yield changed
    changed.pulumi("destroy", "--yes", "--skip-preview", "--remove", stack="other")


def test_a_seed_job_whose_hub_is_down_says_whom_it_waits_for_and_no_service_is_made(broken_hub_stack: Any) -> None:
    process = _started_up(broken_hub_stack, "other")
    assert process.stdout is not None
    threading.Thread(target=process.stdout.read, daemon=True).start()
    seeding = ("kubectl", "logs", "-n", "other-store", "-l", "app.kubernetes.io/name=seed-weights", "--tail", "20")
    deadline = time.monotonic() + 300
    try:
        while "waiting for the hub at http://127.0.0.1:9" not in (said := broken_hub_stack.run(*seeding, check=False).stdout):
            assert process.poll() is None
            assert time.monotonic() < deadline, said
            time.sleep(2)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=300)
    assert not broken_hub_stack.get("inferenceservice", "-n", "other-ai")["items"]


def test_a_stack_that_would_take_anothers_namespaces_is_refused(changed: Any) -> None:
    shutil.copy(changed.folder / "Pulumi.local.yaml", changed.folder / "Pulumi.twin.yaml")
    changed.pulumi("stack", "init", stack="twin")
    done = changed.pulumi("preview", stack="twin", check=False)
    changed.pulumi("stack", "rm", "--yes", "--force", stack="twin")
    assert done.returncode != 0
    assert "belongs to stack 'local'" in done.stdout


def test_a_killed_agent_is_noticed_and_the_next_up_brings_everything_back(stack: Any) -> None:
    record = json.loads((stack.home / "run" / "agent.json").read_text())
    subprocess.run(["kill", "-9", str(record["pid"])], check=True)
    time.sleep(1)
    said = stack.demo("up").stdout
    assert all(service in said for service in SERVICES)
    assert changes(stack) == {}


def test_what_a_killed_up_left_half_made_does_not_hold_the_next_one_up(changed: Any, stack: Any) -> None:
    configure(changed, services=services_with(maxModelLen=4096))
    changed.pulumi("up", "--yes", "--skip-preview")
    # Back to the shipped configuration, killed on the way.
    process = _started_up(stack)
    try:
        _read_until(process, 'Waiting for Job "private-ai/check-mistral-24b-fp8', seconds=300)
    finally:
        process.kill()
        process.communicate(timeout=300)
    # The next one neither finds pulumi's lock nor trips over the Job that nobody recorded.
    said = stack.demo("up").stdout
    assert all(service in said for service in SERVICES)
    stack.pulumi("preview", "--expect-no-changes")


def test_a_secret_that_somebody_deleted_is_made_again_by_the_next_up(stack: Any) -> None:
    stack.kubectl("delete", "secret", "vllm-api-key", "-n", NAMESPACE)
    stack.demo("up")
    key = stack.outputs()["apiKey"]
    assert all(chat(stack, service, key).status_code == 200 for service in SERVICES)


def state(stack: Any) -> dict[str, Any]:
    """Pulumi's checkpoint as it lies there: a command that reads it would wait for the lock of a killed one."""
    found: dict[str, Any] = json.loads((stack.home / "pulumi-state/.pulumi/stacks/mistral-on-l4/local.json").read_text())
    return found["checkpoint"]["latest"]  # type: ignore[no-any-return]


def kill_pulumi_while_it_creates(stack: Any, kind: str) -> None:
    """`demo up`, and `kill -9` of its pulumi once the state says that an object of this kind is being created."""
    command = [sys.executable, "-m", "mistral_on_l4", "up"]
    up = subprocess.Popen(command, cwd=stack.folder, env=dict(stack.environment), stdout=subprocess.DEVNULL)
    try:
        while not any(each["resource"]["type"].endswith(f":{kind}") for each in state(stack).get("pending_operations") or []):
            assert up.poll() is None
            time.sleep(0.02)
        children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
        [pulumi] = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "pulumi\n"]
        subprocess.run(["kill", "-9", pulumi], check=True)
        assert up.wait(60) != 0
    finally:
        up.kill()
        up.wait()


def test_a_killed_up_costs_no_object_and_no_data_in_any_later_up(stack: Any) -> None:
    claims = {item["metadata"]["uid"] for item in stack.get("pvc", "-A")["items"]}
    stack.kubectl("delete", "deployment", "private-ai-registry", "-n", "rhoai-model-registries")
    kill_pulumi_while_it_creates(stack, "Deployment")
    (stack.home / "pulumi-state/.pulumi/stacks/mistral-on-l4/local.json.attrs").write_text("")
    stack.demo("up")
    assert not state(stack).get("pending_operations")
    made = stack.get("deployment", "private-ai-registry", "-n", "rhoai-model-registries")["metadata"]["uid"]
    stack.demo("up")
    assert stack.get("deployment", "private-ai-registry", "-n", "rhoai-model-registries")["metadata"]["uid"] == made
    assert {item["metadata"]["uid"] for item in stack.get("pvc", "-A")["items"]} == claims
    assert changes(stack) == {}


def test_the_working_tree_is_as_clean_as_it_was(stack: Any) -> None:
    tracked = stack.run("git", "diff", "--stat", "--", "Pulumi.yaml", "Pulumi.local.yaml", "Pulumi.dev.yaml").stdout
    assert "encryptionsalt" not in (stack.folder / "Pulumi.local.yaml").read_text()
    assert "Pulumi.local.yaml" not in tracked


def test_down_leaves_no_process_port_mount_or_object(stack: Any) -> None:
    said = stack.demo("down").stdout
    assert "no process, port, mount or volume of it is left" in said
    from embedded.home import LocalHome
    from embedded.leftovers import leftovers

    home = LocalHome(stack.home)
    assert leftovers(home, home.cluster()) == []
    state = json.loads((stack.home / "pulumi-state/.pulumi/stacks/mistral-on-l4/local.json").read_text())
    assert not state["checkpoint"]["latest"].get("resources")


def _decoded(text: str) -> str:
    import base64

    return base64.b64decode(text).decode()


def _started_up(stack: Any, name: str = "local") -> subprocess.Popen[str]:
    """A `pulumi up` whose output can be read while it runs."""
    return subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--stack", name, "--non-interactive", "--color", "never"],
        cwd=stack.folder,
        env=dict(stack.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _until_status_says(stack: Any, pattern: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while re.search(pattern, said := stack.demo("status", check=False).stdout) is None:
        assert time.monotonic() < deadline, said
        time.sleep(2)


def _read_until(process: subprocess.Popen[str], word: str, seconds: float) -> str:
    """What the process said until a line held `word`. It fails with all of it when the time is over."""
    said = ""
    assert process.stdout is not None
    # The end of a process is the end of its output: no line that is read already waits here for the next to be written.
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            said += line
            if word in line:
                return said
    finally:
        watchdog.cancel()
    raise AssertionError(f"{word!r} was not said within {seconds:.0f} s:\n{said[-4000:]}")
