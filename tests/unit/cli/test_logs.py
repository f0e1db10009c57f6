"""`demo logs` finds the pod people mean, and the container that matters now."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from mistral_on_l4.cli import Failure
from mistral_on_l4.cli.logs import choose_container, find_pods, pods_table


def pod(name: str, namespace: str = "private-ai", created: str = "2026-01-01T00:00:00Z", **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "creationTimestamp": created, "labels": labels}
    spec = {"initContainers": [{"name": "storage-initializer"}], "containers": [{"name": "kserve-container"}, {"name": "proxy"}]}
    return {"metadata": meta, "spec": spec, "status": {}}


def with_states(init: dict[str, Any], main: dict[str, Any], **main_status: Any) -> dict[str, Any]:
    made = pod("p")
    made["status"] = {
        "initContainerStatuses": [{"name": "storage-initializer", "state": init}],
        "containerStatuses": [{"name": "kserve-container", "state": main, **main_status}],
    }
    return made


def test_an_exact_name_wins_over_a_longer_one() -> None:
    pods = [pod("seed-a-1"), pod("seed-a")]
    assert find_pods(pods, "seed-a", None)[0]["metadata"]["name"] == "seed-a"


def test_a_services_name_means_its_newest_pod() -> None:
    old = pod("s-predictor-1", created="2026-01-01T00:00:00Z", **{"serving.kserve.io/inferenceservice": "s"})
    new = pod("s-predictor-2", created="2026-01-01T00:00:01Z", **{"serving.kserve.io/inferenceservice": "s"})
    assert find_pods([old, new], "s", None) == [new, old]


def test_a_beginning_is_enough() -> None:
    assert find_pods([pod("minio-0")], "min", None)[0]["metadata"]["name"] == "minio-0"


def test_a_name_in_two_namespaces_asks_which() -> None:
    with pytest.raises(Failure, match=r"'minio' is in several namespaces \(a, b\): name one with -n"):
        find_pods([pod("minio-0", "a"), pod("minio-1", "b")], "minio", None)


def test_an_unknown_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(Failure, match="no pod called 'x' in namespace private-ai; there are: minio-0"):
        find_pods([pod("minio-0")], "x", "private-ai")


def test_while_weights_are_fetched_the_initializer_is_meant() -> None:
    loading = with_states({"running": {}}, {"waiting": {"reason": "PodInitializing"}})
    assert choose_container(loading, None) == ("storage-initializer", False)


def test_after_a_failed_fetch_the_initializer_is_meant() -> None:
    failed = with_states({"terminated": {"exitCode": 1}}, {"waiting": {"reason": "PodInitializing"}})
    assert choose_container(failed, None) == ("storage-initializer", False)


def test_a_running_pod_means_its_main_container() -> None:
    assert choose_container(with_states({"terminated": {"exitCode": 0}}, {"running": {}}), None) == ("kserve-container", False)


def test_a_container_that_waits_for_its_restart_means_its_previous_run() -> None:
    crashing = with_states(
        {"terminated": {"exitCode": 0}}, {"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": {"exitCode": 1}}
    )
    assert choose_container(crashing, None) == ("kserve-container", True)


def test_an_unknown_container_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(Failure, match="has no container 'x'; it has storage-initializer, kserve-container, proxy"):
        choose_container(pod("p"), "x")


def test_a_pod_that_cannot_be_placed_says_so_instead_of_an_empty_log() -> None:
    pending = pod("p")
    pending["status"] = {
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient nvidia.com/gpu"}]
    }
    with pytest.raises(Failure, match=r"has not run yet: the pod cannot be placed: 0/1 nodes: Insufficient nvidia\.com/gpu"):
        choose_container(pending, None)


def test_an_image_without_a_program_says_so_instead_of_an_empty_log() -> None:
    waiting = with_states(
        {"terminated": {"exitCode": 0}}, {"waiting": {"reason": "NoLocalProgram", "message": "no local program stands for x"}}
    )
    with pytest.raises(Failure, match="has not run yet: NoLocalProgram: no local program stands for x"):
        choose_container(waiting, None)


def test_pods_are_listed_with_their_containers_and_what_keeps_them() -> None:
    pending = pod("q")
    pending["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient nvidia.com/gpu"}],
    }
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(pods_table([pending, {**pod("p"), "status": {"phase": "Running"}}]))
    rows = [line.split() for line in console.export_text().splitlines()]
    assert [row[:2] for row in rows[1:]] == [["p", "private-ai"], ["q", "private-ai"]]
    assert rows[1][-1] == "Running"
    assert " ".join(rows[2]).endswith("Pending: cannot be placed: 0/1 nodes: Insufficient nvidia.com/gpu")
