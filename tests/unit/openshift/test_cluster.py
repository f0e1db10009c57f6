"""What `doctor`, `sweep` and `park` read in an OpenShift cluster, on the objects that a preview assumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from embedded.openshift import handed_over
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.config.settings import Settings, load_stack_file
from mistral_on_l4.openshift import doctor, leftovers, pools
from mistral_on_l4.openshift.reading import AssumedObjects
from mistral_on_l4.openshift.site import Site
from mistral_on_l4.planner.catalogue import load_catalogue

OURS = {"mistral-on-l4/stack": "rhoai"}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_stack_file("rhoai", Path(__file__).parents[3])


def machine_set(name: str, pool: str, labels: dict[str, str]) -> dict[str, Any]:
    meta = {"name": name, "namespace": "openshift-machine-api", "labels": {**labels, "mistral-on-l4/pool": pool}}
    template = {"metadata": {}, "spec": {"taints": [{}], "providerSpec": {"value": {}}}}
    return {"apiVersion": "machine.openshift.io/v1beta1", "kind": "MachineSet", "metadata": meta, "spec": {"template": template}}


def site(settings: Settings, *more: dict[str, Any]) -> Site:
    return Site(AssumedObjects([*handed_over.objects(settings), *more]), settings, "rhoai")


def test_the_doctor_passes_the_assumed_cluster_and_names_what_it_cannot_see(settings: Settings) -> None:
    findings = doctor.examine(site(settings), load_catalogue())
    assert [finding for finding in findings if finding.state == "fail"] == []
    assert any("56 vCPU" in finding.says for finding in findings if finding.check == "quota")
    assert any("openshift-config/pull-secret is not there" in finding.says for finding in findings)


def test_a_cluster_that_does_not_answer_is_a_finding_and_no_traceback(settings: Settings) -> None:
    client = create_autospec(KubeClient, instance=True)
    client.get.side_effect = ApiError(403, "Forbidden", "clusterversions is forbidden")
    (finding,) = doctor.examine(Site(client, settings, "rhoai"), load_catalogue())
    assert (finding.state, finding.fix) == ("fail", "log in as somebody who may read it")


def test_a_swept_cluster_is_empty_of_the_stack_and_of_nothing_else(settings: Settings) -> None:
    assert leftovers.sweep(site(settings)) == ([], [])


def test_machines_and_volumes_that_outlive_the_stack_are_found_as_billing(settings: Settings) -> None:
    name = "demo-x7k2p-l4-1gpu-us-east-1a"
    labels = {"machine.openshift.io/cluster-api-machineset": name}
    machine = {"name": f"{name}-abc", "namespace": "openshift-machine-api", "labels": labels}
    claim = {"namespace": "minio-storage", "name": "store"}
    left, unseen = leftovers.sweep(
        site(
            settings,
            machine_set(name, "l4-1gpu", OURS),
            machine_set("demo-x7k2p-other", "l4-1gpu", {}),
            {"apiVersion": "machine.openshift.io/v1beta1", "kind": "Machine", "metadata": machine, "status": {"phase": "Deleting"}},
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": "pvc-1"},
                "spec": {"claimRef": claim},
                "status": {"phase": "Released"},
            },
        )
    )
    assert [(item.kind, item.bills) for item in left] == [("MachineSet", True), ("Machine", True), ("PersistentVolume", True)]
    assert unseen == []


def test_parking_scales_the_stacks_own_machine_sets_and_no_others(settings: Settings) -> None:
    sets = [
        machine_set("a", "l4-1gpu", OURS),
        machine_set("b", "l4-4gpu", OURS),
        machine_set("c", "l4-4gpu", {"mistral-on-l4/stack": "other"}),
    ]
    client = create_autospec(KubeClient, instance=True)
    done = pools.resize(site(settings, *sets), client, {"l4-1gpu": 0, "l4-4gpu": 0})
    assert done == {"a": 0, "b": 0}
    assert [call.args[2] for call in client.patch.call_args_list] == ["a", "b"]
    with pytest.raises(pools.NoPool, match="no MachineSet of stack rhoai for pool l4-4gpu"):
        pools.resize(site(settings, sets[0]), client, {"l4-1gpu": 1, "l4-4gpu": 1})


def test_the_plan_prices_machines_with_their_disks_and_no_cluster(settings: Settings) -> None:
    from mistral_on_l4.planner import plan_stack

    lines = {line.what: line.usd_per_hour for line in plan_stack(settings, stack="rhoai").fixed}
    assert set(lines) == {"object store volume", "registry volume", "root volumes of GPU machines"}
    # 200 and 500 GiB at $0.08 a month; nothing asks the cluster's own class for more than gp3's usual throughput.
    assert lines["root volumes of GPU machines"] == pytest.approx(700 * 0.08 / 730)
    assert lines["object store volume"] == pytest.approx(200 * 0.08 / 730)
