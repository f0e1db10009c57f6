"""Nodes, claims, addresses, users and names: what is made of declarations."""

from __future__ import annotations

import json

import pytest

from embedded.agent import launch, nodes, provisioner
from embedded.agent.context import Addresses
from embedded.home import CAPACITY_ANNOTATION, STORAGE_CLASS

MACHINE = {"cpu": "2", "memory": "8Gi", "pods": "110", "ephemeral-storage": "50Gi"}


def node(text):
    return {"metadata": {"name": "n", "annotations": {} if text is None else {CAPACITY_ANNOTATION: text}}}


def test_a_node_has_what_its_annotation_declares_and_else_what_this_machine_has():
    declared = json.dumps({"cpu": 8, "memory": "32Gi", "nvidia.com/gpu": "1"})
    assert nodes.capacity(node(declared), MACHINE) == {
        "cpu": "8",
        "memory": "32Gi",
        "nvidia.com/gpu": "1",
        "pods": "110",
        "ephemeral-storage": "50Gi",
    }
    assert nodes.capacity(node(None), MACHINE) == MACHINE


@pytest.mark.parametrize("text", ["{", "[]", '{"memory": "32 gigabytes"}'])
def test_a_capacity_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match=r"annotation|quantity"):
        nodes.capacity(node(text), MACHINE)


def claim(**metadata):
    spec = {"storageClassName": STORAGE_CLASS, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    return {"metadata": {"name": "c", "namespace": "shop", "uid": "u1", **metadata}, "spec": spec}


def test_a_claim_waits_for_its_volume_only_between_scheduling_and_binding():
    chosen = {"annotations": {"volume.kubernetes.io/selected-node": "n"}}
    assert not provisioner.wants_volume(claim())
    assert provisioner.wants_volume(claim(**chosen))
    assert not provisioner.wants_volume(claim(**chosen, deletionTimestamp="now"))
    bound = claim(**chosen)
    bound["spec"]["volumeName"] = "pv"
    assert not provisioner.wants_volume(bound)
    foreign = claim(**chosen)
    foreign["spec"]["storageClassName"] = "other"
    assert not provisioner.wants_volume(foreign)


def test_a_bound_claim_that_asks_for_more_is_given_it_and_no_other():
    grown = claim()
    grown["spec"]["volumeName"] = "pv"
    grown["status"] = {"phase": "Bound", "capacity": {"storage": "4Gi"}}
    assert provisioner.wants_room(grown)
    for change in ({"phase": "Pending"}, {"capacity": {"storage": "5Gi"}}, {"capacity": {"storage": "5120Mi"}}):
        assert not provisioner.wants_room({**grown, "status": {**grown["status"], **change}})
    assert not provisioner.wants_room({**grown, "spec": {**grown["spec"], "storageClassName": "other"}})


def test_a_volume_is_promised_to_its_claim_and_deleted_with_it(tmp_path):
    spec = provisioner.volume_for(claim(), tmp_path / "pvc-u1")["spec"]
    assert spec["claimRef"]["uid"] == "u1"
    assert spec["hostPath"]["path"] == str(tmp_path / "pvc-u1")
    assert (spec["capacity"]["storage"], spec["persistentVolumeReclaimPolicy"]) == ("5Gi", "Delete")


def test_every_pod_has_an_address_of_its_own_and_keeps_it_over_a_restart_of_the_agent():
    addresses = Addresses()
    kept = addresses.take("b", wanted="10.128.0.1")
    given = [addresses.take(f"pod-{number}") for number in range(600)]
    assert kept == "10.128.0.1"
    assert len({kept, *given}) == 601
    assert addresses.take("c", wanted="10.128.0.1") != "10.128.0.1"
    addresses.release("b")
    assert addresses.take("c", wanted="10.128.0.1") == "10.128.0.1"


def test_the_hosts_file_names_services_in_every_usual_form_and_short_within_the_namespace(pod, service):
    pod["spec"] |= {"hostname": "db-0", "subdomain": "db", "hostAliases": [{"ip": "127.0.0.9", "hostnames": ["old"]}]}
    services = [service("s3", "shop", "127.64.0.4"), service("hub", "tools", "127.64.0.5"), service("peers", "shop", "None")]
    lines = dict(line.split("\t") for line in launch.hosts_text(pod, services).splitlines() if "\t" in line)
    assert lines["127.64.0.4"].split() == ["s3", "s3.shop", "s3.shop.svc", "s3.shop.svc.cluster.local"]
    assert lines["127.64.0.5"].split() == ["hub.tools", "hub.tools.svc", "hub.tools.svc.cluster.local"]
    assert lines["10.128.0.7"].split() == ["db-0.db.shop.svc.cluster.local", "db-0"]
    assert lines["127.0.0.9"] == "old"
    assert "peers" not in launch.hosts_text(pod, services)
