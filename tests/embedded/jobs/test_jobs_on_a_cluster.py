"""Our Jobs before the real API server and the real Job controller."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.manifests.jobs import Program, PythonJob, job_name, python_job
from mistral_on_l4.manifests.scripts import sources

pytestmark = pytest.mark.embedded


def job(name: str, namespace: str) -> dict[str, Any]:
    program = Program(sources("check_service"), "scripts", namespace, "image", "default")
    manifest = python_job(PythonJob(name, "check-service", program, [], 600, retries=0))
    # No node has this label: what happens to its pods is told by the test.
    manifest["spec"]["template"]["spec"]["nodeSelector"] = {"nowhere": "true"}
    return manifest


def soon(found: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 60
    while not (value := found()):
        assert time.monotonic() < end, f"waited 60 s for {what}"
        time.sleep(0.1)
    return value


def pods(cluster: Any, namespace: str) -> list[dict[str, Any]]:
    items = cluster.client.list("v1", "Pod", namespace)["items"]
    return [pod for pod in items if (pod.get("status") or {}).get("phase") == "Pending"]


def end(cluster: Any, pod: dict[str, Any], code: int, *conditions: dict[str, str]) -> None:
    ended = {"name": "check-service", "image": "image", "imageID": "", "ready": False, "restartCount": 0}
    status = {
        "phase": "Failed",
        "conditions": list(conditions),
        "containerStatuses": [{**ended, "state": {"terminated": {"exitCode": code, "reason": "Error"}}}],
    }
    meta = pod["metadata"]
    cluster.client.patch("v1", "Pod", meta["name"], meta["namespace"], {"status": status}, subresource="status")


def conditions(cluster: Any, namespace: str, name: str) -> set[str]:
    status = cluster.client.get("batch/v1", "Job", name, namespace).get("status") or {}
    return {found["type"] for found in status.get("conditions") or [] if found["status"] == "True"}


def test_the_longest_service_and_any_prefix_give_a_job_that_the_api_server_takes(cluster: Any, namespace: str) -> None:
    for name in (job_name("register", "m" * 53, "0123456789"), job_name("seed", "Mistral_24B.v1/of/us/", "0123456789")):
        cluster.client.create(job(name, namespace), params={"dryRun": "All"})
    # Why it is cut: a Job's name is a label of its pods.
    with pytest.raises(ApiError, match="must be no more than 63"):
        cluster.client.create(job(f"register-{'m' * 53}-0123456789", namespace), params={"dryRun": "All"})


def test_a_pod_that_had_to_make_room_is_replaced_and_costs_no_try(cluster: Any, namespace: str) -> None:
    cluster.client.create(job("check", namespace))
    (first,) = soon(lambda: pods(cluster, namespace), "the Job's pod")
    end(cluster, first, 143, {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"})
    (second,) = soon(lambda: pods(cluster, namespace), "another pod")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert conditions(cluster, namespace, "check") == set()
    end(cluster, second, 1)
    soon(lambda: "Failed" in conditions(cluster, namespace, "check"), "the Job to fail by its own exit code")
    cluster.client.delete("batch/v1", "Job", "check", namespace, propagation="Background")
