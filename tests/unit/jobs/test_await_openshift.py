"""The Jobs that wait on OpenShift: for GPUs that nodes offer, and for operators that OLM installs."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_on_l4.jobs import await_gpus, await_operator

WANTED = await_gpus.Wanted("l4-1gpu", 1, 1, "demo-l4-1gpu", 60.0)


def node(gpus: int, ready: str = "True") -> dict[str, Any]:
    status = {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"nvidia.com/gpu": str(gpus)}}
    return {"metadata": {"name": "ip-1"}, "status": status}


def machine(**status: str) -> dict[str, Any]:
    labels = {"machine.openshift.io/cluster-api-machineset": "demo-l4-1gpu"}
    return {"metadata": {"name": "demo-l4-1gpu-abc", "labels": labels}, "status": status}


@pytest.mark.parametrize(
    ("nodes", "machines", "says"),
    [
        ([node(1)], [], None),
        ([node(0)], [machine(phase="Running")], "still at its driver"),
        (
            [node(1, "False")],
            [machine(phase="Provisioned")],
            "0 of 1 nodes of pool l4-1gpu are ready (demo-l4-1gpu-abc is Provisioned)",
        ),
        ([], [machine(phase="Failed", errorMessage="InsufficientInstanceCapacity\n here")], "InsufficientInstanceCapacity here"),
        ([], [], "has no Machine yet"),
    ],
)
def test_a_pool_is_usable_when_its_ready_nodes_offer_their_gpus(nodes: list[Any], machines: list[Any], says: str | None) -> None:
    found = await_gpus.problem(WANTED, nodes, machines)
    assert found is None if says is None else says in str(found)


def test_machines_that_have_all_failed_are_not_waited_for() -> None:
    def call(_method: str, path: str, _body: Any) -> tuple[int, Any]:
        return 200, {"items": [machine(phase="Failed", errorMessage="no capacity")] if path.endswith("/machines") else []}

    with pytest.raises(await_gpus.NoGpus, match="no capacity"):
        await_gpus.run(WANTED, call, lambda _: None, lambda _: pytest.fail("it waits"))


def olm(csv: dict[str, Any] | None = None, plan: dict[str, Any] | None = None, **status: Any) -> Any:
    """The API of a namespace with a Subscription of this status."""

    def call(_method: str, path: str, _body: Any) -> tuple[int, Any]:
        found = {"subscriptions": {"status": status}, "clusterserviceversions": csv, "installplans": plan}[path.split("/")[-2]]
        return (404, {}) if found is None else (200, found)

    return call


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (olm({"status": {"phase": "Succeeded"}}, installedCSV="nfd.v1"), None),
        (
            olm({"status": {"phase": "Installing", "message": "waiting for deployment"}}, installedCSV="nfd.v1"),
            "is Installing: waiting",
        ),
        (olm(installedCSV="nfd.v1"), "ClusterServiceVersion nfd.v1 is not in"),
        (olm(), "OLM has installed nothing yet"),
        (
            olm(plan={"spec": {"approved": False}}, installPlanRef={"name": "install-1"}),
            "InstallPlan install-1 in openshift-nfd waits",
        ),
        (
            olm(conditions=[{"type": "ResolutionFailed", "status": "True", "message": "no channel"}]),
            "OLM resolves no version: no channel",
        ),
    ],
)
def test_an_operator_is_there_when_the_version_of_its_subscription_has_succeeded(call: Any, says: str | None) -> None:
    found = await_operator.problem(await_operator.Awaited("openshift-nfd", "nfd", 1.0), call)
    assert found is None if says is None else says in str(found)
