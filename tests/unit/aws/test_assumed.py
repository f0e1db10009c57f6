"""What a preview without an account takes for granted: names from the settings, zones that fit, and nothing of an earlier preview."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedded.cli.preview import PLACEHOLDER, _hidden
from embedded.plugins.aws.assumed import assume
from embedded.plugins.aws.ledger import Ledger
from embedded.plugins.aws.lookups import LOOKUPS
from embedded.plugins.marks import ASSUMED_SERVER
from mistral_on_l4.config.settings import settings_from

CLUSTER, SUBNET = "aws:eks/getCluster:getCluster", "aws:ec2/getSubnet:getSubnet"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "account.json", "us-east-1")


def ask(ledger: Ledger, function: str, **arguments: Any) -> dict[str, Any]:
    with ledger.open() as account:
        return LOOKUPS[function](account, arguments)


def assumed(ledger: Ledger, **config: Any) -> list[str]:
    return assume(ledger, config.get("cluster", {}).get("name", "dev"), settings_from({"platform": "eks", **config}, "test"))


def test_an_adopted_cluster_is_there_with_two_zones_that_offer_the_pools_types(ledger: Ledger) -> None:
    words = assumed(ledger, cluster={"name": "shared", "existing": True, "version": "1.35"})
    assert words == ["EKS cluster shared with Kubernetes 1.35"]
    found = ask(ledger, CLUSTER, name="shared")
    assert (found["status"], found["version"], found["endpoint"]) == ("ACTIVE", "1.35", ASSUMED_SERVER)
    subnets = [ask(ledger, SUBNET, id=subnet) for subnet in found["vpcConfig"]["subnetIds"]]
    assert len({subnet["availabilityZone"] for subnet in subnets}) == 2
    assert {subnet["vpcId"] for subnet in subnets} == {found["vpcConfig"]["vpcId"]}


def test_subnets_that_the_settings_name_lie_in_the_network_that_they_name(ledger: Ledger) -> None:
    network = {"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-a", "subnet-b", "subnet-c"]}
    assert assumed(ledger, network=network) == ["network vpc-1 with subnet-a, subnet-b, subnet-c"]
    assert {ask(ledger, SUBNET, id=subnet)["vpcId"] for subnet in network["existingSubnetIds"]} == {"vpc-1"}


def test_nothing_of_an_earlier_preview_is_assumed_by_the_next_one(ledger: Ledger) -> None:
    assumed(ledger, cluster={"name": "shared", "existing": True})
    assert assumed(ledger) == []
    assert ask(ledger, "aws:eks/getClusters:getClusters")["names"] == []


def test_a_region_that_is_none_is_left_to_the_programs_own_question(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "account.json", "mars-east-1")
    assert assumed(ledger, cluster={"name": "shared", "existing": True})


def test_what_pulumi_has_encrypted_gets_a_placeholder_at_any_depth_and_is_named() -> None:
    hidden: list[str] = []
    value = {"plain": "x", "key": {"secure": "v1:a:b"}, "list": [{"secure": "v1:a:b"}, {"secure": "v1:a:b", "not": "a secret"}]}
    shown = _hidden(value, "mistral-on-l4:object", hidden)
    assert shown == {"plain": "x", "key": PLACEHOLDER, "list": [PLACEHOLDER, {"secure": "v1:a:b", "not": "a secret"}]}
    assert hidden == ["mistral-on-l4:object.key", "mistral-on-l4:object.list[0]"]
