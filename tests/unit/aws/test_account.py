"""The stand-in's account refuses what AWS refuses, in AWS's words, and keeps its promises across processes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from embedded.home import LocalHome
from embedded.plugins.aws import faults, provider
from embedded.plugins.aws.described import Described
from embedded.plugins.aws.faults import Faults, Switch
from embedded.plugins.aws.kinds import network
from embedded.plugins.aws.ledger import Entry
from embedded.plugins.aws.provider import InitFailed, Provider, Refused
from embedded.plugins.aws.server import default_tags
from embedded.plugins.values import UNKNOWN
from mistral_on_l4.aws.leftovers import Sweep
from mistral_on_l4.aws.nodegroup_problems import explain
from mistral_on_l4.planner.catalogue import load_catalogue

TRUST = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "{}"}, "Action": ["sts:AssumeRole"]}]}
)
POLICY = "arn:aws:iam::aws:policy/"
NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy")


class NoCluster:
    """A bridge to nowhere, which remembers which groups joined."""

    def __init__(self) -> None:
        self.joined: list[str] = []

    def endpoint(self) -> tuple[str, str]:
        return "https://127.0.0.1:6443", base64.b64encode(b"authority").decode()

    def join(self, group: Entry, inputs: Mapping[str, Any]) -> None:
        self.joined.append(group.name)

    def part(self, group: Entry) -> None:
        self.joined = [name for name in self.joined if name != group.name]


class Account:
    """Creates and deletes by short type names, as a program would, and keeps what is there."""

    def __init__(self, home: LocalHome, faults: Faults | None = None) -> None:
        self.bridge = NoCluster()
        self.provider = Provider(home, self.bridge, faults or Faults())
        self.made: list[tuple[str, str, dict[str, Any]]] = []

    def create(self, token: str, **inputs: Any) -> tuple[str, dict[str, Any]]:
        checked, problems = self.provider.check(token, {}, inputs)
        assert problems == []
        identifier, outputs = self.provider.create(token, f"urn::{token}", checked, False)
        self.made.append((token, identifier, outputs))
        return identifier, outputs

    def delete(self, identifier: str) -> None:
        token, _, outputs = next(found for found in self.made if found[1] == identifier)
        self.provider.delete(token, f"urn::{token}", identifier, outputs)
        self.made = [found for found in self.made if found[1] != identifier]

    def left(self) -> list[str]:
        with self.provider.ledger.open() as account:
            return sorted(entry.kind for entry in account.entries.values())

    # -- what a cluster stands on --------------------------------------------------------------------------------------

    def role(self, service: str, *policies: str) -> tuple[str, str]:
        name, outputs = self.create("aws:iam/role:Role", namePrefix="r-", assumeRolePolicy=TRUST.replace("{}", service))
        for policy in policies:
            self.create("aws:iam/rolePolicyAttachment:RolePolicyAttachment", role=name, policyArn=POLICY + policy)
        return name, outputs["arn"]

    def network(self) -> list[str]:
        vpc, _ = self.create("aws:ec2/vpc:Vpc", cidrBlock="10.0.0.0/16")
        gateway, _ = self.create("aws:ec2/internetGateway:InternetGateway", vpcId=vpc)
        table, _ = self.create(
            "aws:ec2/routeTable:RouteTable", vpcId=vpc, routes=[{"cidrBlock": "0.0.0.0/0", "gatewayId": gateway}]
        )
        subnets = []
        for index, zone in enumerate("ab"):
            block, where = f"10.0.{index}.0/24", f"us-east-1{zone}"
            subnet, _ = self.create("aws:ec2/subnet:Subnet", vpcId=vpc, cidrBlock=block, availabilityZone=where)
            self.create("aws:ec2/routeTableAssociation:RouteTableAssociation", subnetId=subnet, routeTableId=table)
            subnets.append(subnet)
        return subnets

    def cluster(self) -> tuple[str, list[str]]:
        subnets = self.network()
        _, arn = self.role("eks.amazonaws.com", "AmazonEKSClusterPolicy")
        name, outputs = self.create(
            "aws:eks/cluster:Cluster", name="c", version="1.36", roleArn=arn, vpcConfig={"subnetIds": subnets}
        )
        assert outputs["certificateAuthority"]["data"] == base64.b64encode(b"authority").decode()
        return name, subnets

    def nodes(self, subnets: list[str], *policies: str, desired: int = 1, instance_type: str = "g6.2xlarge") -> str:
        _, arn = self.role("ec2.amazonaws.com", *policies)
        template, _ = self.create("aws:ec2/launchTemplate:LaunchTemplate", namePrefix="t-")
        identifier, _ = self.create(
            "aws:eks/nodeGroup:NodeGroup",
            clusterName="c",
            nodeGroupNamePrefix="g-",
            nodeRoleArn=arn,
            subnetIds=subnets,
            instanceTypes=[instance_type],
            launchTemplate={"id": template, "version": "1"},
            scalingConfig={"minSize": 0, "desiredSize": desired, "maxSize": desired},
        )
        return identifier

    def addon(self, name: str) -> str:
        return self.create("aws:eks/addon:Addon", clusterName="c", addonName=name)[0]

    def of(self, kind: str) -> str:
        """Id of the newest resource of a type."""
        return next(identifier for token, identifier, _ in reversed(self.made) if token.endswith(f":{kind}"))


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(LocalHome(tmp_path))


def test_a_whole_stack_comes_and_goes_without_a_trace(account: Account) -> None:
    _, subnets = account.cluster()
    account.addon("vpc-cni")
    account.nodes(subnets, *NODE_POLICIES)
    account.addon("coredns")
    assert len(account.bridge.joined) == 1
    for _, identifier, _ in reversed(list(account.made)):
        account.delete(identifier)
    assert account.left() == []
    assert account.bridge.joined == []


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("Vpc", "DependencyViolation"),
        ("Subnet", "DependencyViolation"),
        ("RouteTable", "DependencyViolation"),
        ("Cluster", "ResourceInUseException: Cluster c has nodegroups attached"),
        ("Role", "DeleteConflict: Cannot delete entity, must detach all policies first"),
    ],
)
def test_a_delete_with_something_still_in_it_is_refused_as_aws_does_and_noted(account: Account, kind: str, says: str) -> None:
    _, subnets = account.cluster()
    account.addon("vpc-cni")
    account.nodes(subnets, *NODE_POLICIES)
    with pytest.raises(Refused, match=says):
        account.delete(account.of(kind))
    with account.provider.ledger.open() as found:
        assert [note["deed"] for note in found.journal][-1] == "refused"


def test_a_nat_gateways_address_and_way_out_cannot_go_before_it(account: Account) -> None:
    subnets = account.network()
    address, _ = account.create("aws:ec2/eip:Eip", domain="vpc")
    nat, _ = account.create("aws:ec2/natGateway:NatGateway", subnetId=subnets[0], allocationId=address)
    for identifier, says in (
        (address, "InvalidIPAddress.InUse"),
        (account.of("InternetGateway"), "some mapped public address"),
        (subnets[0], "DependencyViolation"),
    ):
        with pytest.raises(Refused, match=says):
            account.delete(identifier)
    account.delete(nat)
    account.delete(address)
    account.delete(account.of("InternetGateway"))


def test_names_in_use_and_references_to_nothing_are_refused(account: Account) -> None:
    _, subnets = account.cluster()
    with pytest.raises(Refused, match="ResourceInUseException: Cluster already exists with name: c"):
        account.create(
            "aws:eks/cluster:Cluster",
            name="c",
            version="1.36",
            roleArn=account.role("eks.amazonaws.com", "AmazonEKSClusterPolicy")[1],
            vpcConfig={"subnetIds": subnets},
        )
    with pytest.raises(Refused, match=r"InvalidVpcID\.NotFound"):
        account.create("aws:ec2/subnet:Subnet", vpcId="vpc-0", cidrBlock="10.0.9.0/24", availabilityZone="us-east-1a")
    with pytest.raises(Refused, match=r"InvalidSubnet\.Conflict"):
        account.create("aws:ec2/subnet:Subnet", vpcId=account.of("Vpc"), cidrBlock="10.0.0.0/25", availabilityZone="us-east-1a")
    with pytest.raises(Refused, match="at least two different Availability Zones"):
        account.create(
            "aws:eks/cluster:Cluster",
            name="other",
            version="1.36",
            roleArn=account.role("eks.amazonaws.com", "AmazonEKSClusterPolicy")[1],
            vpcConfig={"subnetIds": subnets[:1]},
        )


def test_a_control_plane_whose_role_lost_its_policy_leaves_its_interfaces_behind(account: Account) -> None:
    account.cluster()
    account.delete(account.of("RolePolicyAttachment"))
    account.delete("c")
    assert "network-interface" in account.left()
    with pytest.raises(Refused, match="DependencyViolation"):
        account.delete(account.of("Subnet"))


def test_nodes_do_not_join_without_network_software_and_leave_a_failed_group(account: Account) -> None:
    _, subnets = account.cluster()
    with pytest.raises(InitFailed, match=r"NodeCreationFailure.*vpc-cni is not there") as failed:
        account.nodes(subnets, *NODE_POLICIES)
    assert "nodegroup" in account.left()
    account.provider.delete("aws:eks/nodeGroup:NodeGroup", "urn", failed.value.identifier, failed.value.inputs)
    assert "nodegroup" not in account.left()


def test_nodes_do_not_join_with_half_of_their_policies(account: Account) -> None:
    _, subnets = account.cluster()
    account.addon("vpc-cni")
    with pytest.raises(InitFailed, match="lacks AmazonEKS_CNI_Policy"):
        account.nodes(subnets, *NODE_POLICIES[:2])


def test_an_add_on_that_needs_nodes_is_degraded_without_any(account: Account) -> None:
    account.cluster()
    with pytest.raises(InitFailed, match="DEGRADED"):
        account.addon("coredns")


def test_interfaces_outlive_nodes_whose_network_software_went_first(account: Account) -> None:
    _, subnets = account.cluster()
    account.addon("vpc-cni")
    group = account.nodes(subnets, *NODE_POLICIES)
    account.delete(account.of("Addon"))
    account.delete(group)
    assert account.left().count("network-interface") == 3


def test_a_create_that_is_chosen_to_fail_fails_once(tmp_path: Path) -> None:
    plan = tmp_path / "faults.json"
    plan.write_text(json.dumps({"create": ["aws:ec2/vpc:Vpc"], "delete": ["aws:ec2/vpc:Vpc"]}))
    account = Account(LocalHome(tmp_path), Faults(plan))
    with pytest.raises(Refused, match="chosen to fail once"):
        account.create("aws:ec2/vpc:Vpc", cidrBlock="10.0.0.0/16")
    assert account.left() == []
    vpc, _ = account.create("aws:ec2/vpc:Vpc", cidrBlock="10.0.0.0/16")
    with pytest.raises(Refused, match="chosen to fail once"):
        account.delete(vpc)
    account.delete(vpc)
    assert account.left() == []


def hard(tmp_path: Path, *switches: Switch) -> Account:
    return Account(LocalHome(tmp_path), Faults(switches=frozenset(switches)))


def ready_for_nodes(account: Account) -> list[str]:
    _, subnets = account.cluster()
    account.addon("vpc-cni")
    return subnets


def swept(account: Account, name: str) -> list[str]:
    """Kinds of what `demo sweep` finds of a cluster's stack; the network here bears no tags."""
    found, unseen = Sweep("dev", name, "us-east-1", load_catalogue(), Described(account.provider.ledger)).run()
    assert unseen == []
    return [item.kind for item in found]


def all_gone(account: Account) -> list[str]:
    """Destroys in the order that the stack keeps, and on after a refusal as far as that goes; what was refused."""
    refused = []
    for token, identifier, _ in reversed(list(account.made)):
        try:
            account.delete(identifier)
        except Refused as error:
            refused.append(str(error))
            if "DependencyViolation" in str(error) and token.endswith(":Subnet"):
                break  # the engine begins nothing more after an error
    return refused


@pytest.mark.parametrize(
    ("switch", "says"),
    [
        (Switch.QUOTAS, r"CREATE_FAILED.*VcpuLimitExceeded.*current vCPU limit of 0"),
        (Switch.DEGRADED, r"DEGRADED.*InsufficientInstanceCapacity.*g6\.2xlarge.*us-east-1a, us-east-1b"),
    ],
)
def test_a_group_without_quota_or_capacity_fails_half_made_and_goes_without_a_trace(
    tmp_path: Path, switch: Switch, says: str
) -> None:
    account = hard(tmp_path, switch)
    subnets = ready_for_nodes(account)
    with pytest.raises(InitFailed, match=says) as failed:
        account.nodes(subnets, *NODE_POLICIES)
    assert explain(str(failed.value)) is not None
    assert account.bridge.joined == []
    assert "nodegroup" in account.left()
    account.provider.delete("aws:eks/nodeGroup:NodeGroup", "urn", failed.value.identifier, failed.value.inputs)
    assert all_gone(account) == []
    assert account.left() == []


def test_a_quota_counts_what_runs_already_and_leaves_what_was_started_to_the_failed_group(tmp_path: Path) -> None:
    account = hard(tmp_path, Switch.QUOTAS)
    subnets = ready_for_nodes(account)
    with pytest.raises(InitFailed, match="current vCPU limit of 5"):
        account.nodes(subnets, *NODE_POLICIES, desired=2, instance_type="m7i.xlarge")
    assert account.left().count("instance") == 1


def test_a_group_whose_first_zone_is_dry_comes_up_in_another(tmp_path: Path) -> None:
    account = hard(tmp_path, Switch.ZONE)
    subnets = ready_for_nodes(account)
    account.nodes(subnets, *NODE_POLICIES)
    with account.provider.ledger.open() as found:
        assert [instance.refs["subnet"] for instance in found.of("instance")] == [[subnets[1]]]
    with pytest.raises(InitFailed, match="InsufficientInstanceCapacity"):
        account.nodes(subnets[:1], *NODE_POLICIES)


def test_an_interface_that_the_cni_leaves_is_named_once_and_a_second_destroy_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "PATIENCE_SECONDS", 0.2)
    account = hard(tmp_path, Switch.INTERFACES)
    subnets = ready_for_nodes(account)
    for _ in range(2):
        account.nodes(subnets[:1], *NODE_POLICIES)
    [refused] = all_gone(account)
    with account.provider.ledger.open() as found:
        [interface] = [entry for entry in found.of("network-interface") if "until" in entry.data]
    assert "DependencyViolation" in refused
    assert interface.id in refused
    assert swept(account, interface.data["cluster"]) == ["network interface"]
    monkeypatch.setattr(account.provider, "_run", "a later pulumi destroy")
    assert all_gone(account) == []
    assert swept(account, interface.data["cluster"]) == []
    assert account.left() == []


def test_an_address_that_is_let_go_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "ADDRESS_SECONDS", 0.5)
    account = hard(tmp_path, Switch.ADDRESS)
    subnets = account.network()
    address, _ = account.create("aws:ec2/eip:Eip", domain="vpc")
    account.create("aws:ec2/natGateway:NatGateway", subnetId=subnets[0], allocationId=address)
    assert all_gone(account) == []
    assert account.left() == []
    with account.provider.ledger.open() as found:
        assert [note["deed"] for note in found.journal].count("refused") == 0


def test_a_switch_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="there is no switch rain: there are quotas"):
        faults.switches(["quotas", "rain"])


def test_a_cluster_that_is_reached_from_elsewhere_keeps_its_address_authority_and_group(account: Account) -> None:
    name, _ = account.cluster()
    token = "aws:eks/cluster:Cluster"
    outputs = next(outputs for made, _, outputs in account.made if made == token)
    known = ("name", "version", "roleArn", "vpcConfig")
    before = {key: outputs[key] for key in known} | {"vpcConfig": {"subnetIds": outputs["vpcConfig"]["subnetIds"]}}
    after = {**before, "vpcConfig": {**before["vpcConfig"], "publicAccessCidrs": ["203.0.113.7/32"], "endpointPublicAccess": True}}
    found = account.provider.diff(token, outputs, before, after)
    assert (found.changed, found.replaces) == (["vpcConfig"], [])
    for preview in (True, False):
        now = account.provider.update(token, "urn", name, outputs, after, preview)
        assert {key: now[key] for key in ("endpoint", "certificateAuthority", "createdAt")} == {
            key: outputs[key] for key in ("endpoint", "certificateAuthority", "createdAt")
        }
        assert now["vpcConfig"]["clusterSecurityGroupId"] == outputs["vpcConfig"]["clusterSecurityGroupId"]
        assert now["vpcConfig"]["publicAccessCidrs"] == ["203.0.113.7/32"]


def test_what_the_stand_in_cannot_check_it_refuses(account: Account) -> None:
    _, problems = account.provider.check("aws:ec2/vpc:Vpc", {}, {"cidrBlock": "10.0.0.0/16", "ipv6CidrBlock": "::/56"})
    assert problems == [
        "the stand-in for pulumi-aws does not know ipv6CidrBlock of aws:ec2/vpc:Vpc: it refuses what it cannot check"
    ]
    with pytest.raises(Refused, match="does not know aws:s3/bucket:Bucket"):
        account.provider.check("aws:s3/bucket:Bucket", {}, {})
    with pytest.raises(Refused, match="does not know the function"):
        account.provider.invoke("aws:ec2/getAmi:getAmi", {})


def test_user_data_that_eks_would_not_merge_is_refused(account: Account) -> None:
    plain = base64.b64encode(b"#!/bin/sh\n").decode()
    _, problems = account.provider.check("aws:ec2/launchTemplate:LaunchTemplate", {}, {"namePrefix": "t-", "userData": plain})
    assert problems == ["userData must be a MIME multipart document with a part of type application/node.eks.aws"]


def test_a_made_up_name_stays_from_one_check_to_the_next_and_a_replacement_gets_a_new_one(account: Account) -> None:
    inputs = {"namePrefix": "t-"}
    first, _ = account.provider.check("aws:ec2/launchTemplate:LaunchTemplate", {}, inputs)
    again, _ = account.provider.check("aws:ec2/launchTemplate:LaunchTemplate", first, inputs)
    fresh, _ = account.provider.check("aws:ec2/launchTemplate:LaunchTemplate", {}, inputs)
    assert first["name"] == again["name"] != fresh["name"]


def test_a_preview_creates_nothing_and_leaves_open_what_only_aws_knows(account: Account) -> None:
    identifier, outputs = account.provider.create("aws:ec2/vpc:Vpc", "urn", {"cidrBlock": "10.0.0.0/16"}, True)
    assert identifier == ""
    assert outputs["arn"] is UNKNOWN
    assert account.left() == []


def test_a_state_of_the_official_plugin_is_left_alone(account: Account) -> None:
    with pytest.raises(Refused, match="official pulumi-aws plugin"):
        account.provider.delete("aws:ec2/vpc:Vpc", "urn", "vpc-1", {"cidrBlock": "10.0.0.0/16", "arn": "arn:aws:ec2:..."})


def test_offerings_are_real_and_zones_without_eks_are_left_out(account: Account) -> None:
    zones = account.provider.invoke(
        "aws:index/getAvailabilityZones:getAvailabilityZones", {"excludeZoneIds": ["use1-az3"], "state": "available"}
    )
    assert len(zones["names"]) >= 4
    assert "use1-az3" not in zones["zoneIds"]
    filters = [{"name": "instance-type", "values": ["g6.2xlarge", "m7i.xlarge"]}]
    offered = account.provider.invoke("aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings", {"filters": filters})
    assert set(offered["instanceTypes"]) == {"g6.2xlarge", "m7i.xlarge"}
    account.provider.configure("eu-west-1")
    offered = account.provider.invoke("aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings", {"filters": filters[:1]})
    assert "g6.2xlarge" not in offered["instanceTypes"]


def test_a_rule_of_the_clusters_group_comes_once_and_goes_before_the_cluster(account: Account) -> None:
    name, _ = account.cluster()
    outputs = next(outputs for _, identifier, outputs in account.made if identifier == name)
    rule = {
        "securityGroupId": outputs["vpcConfig"]["clusterSecurityGroupId"],
        "cidrIpv4": "10.0.0.0/8",
        "ipProtocol": "tcp",
        "fromPort": 443,
        "toPort": 443,
    }
    token = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    account.create(token, **rule)
    with pytest.raises(Refused, match=r"InvalidPermission\.Duplicate"):
        account.create(token, **rule)
    with pytest.raises(Refused, match=r"InvalidGroup\.NotFound"):
        account.create(token, **{**rule, "securityGroupId": "sg-0"})
    for _, identifier, _ in reversed(list(account.made)):
        account.delete(identifier)
    assert account.left() == []


def test_default_tags_reach_the_account_and_a_resources_own_win(account: Account) -> None:
    account.provider.configure("us-east-1", default_tags('{"tags": {"owner": "all", "mistral-on-l4:stack": "dev"}}'))
    _, outputs = account.create("aws:ec2/vpc:Vpc", cidrBlock="10.0.0.0/16", tags={"owner": "one", "Name": "net"})
    assert outputs["tags"] == {"owner": "one", "Name": "net"}
    assert outputs["tagsAll"] == {"owner": "one", "Name": "net", "mistral-on-l4:stack": "dev"}
    account.cluster()
    known = account.provider.invoke("aws:eks/getCluster:getCluster", {"name": "c"})
    assert known["tags"] == {"owner": "all", "mistral-on-l4:stack": "dev"}
    association = next(outputs for token, _, outputs in account.made if token.endswith(":RouteTableAssociation"))
    assert "tagsAll" not in association
    checked, _ = account.provider.check("aws:ec2/vpc:Vpc", {}, {"cidrBlock": "10.0.0.0/16", "tags": {"Name": UNKNOWN}})
    assert checked["tagsAll"] is UNKNOWN


def test_default_tags_that_aws_would_not_take_are_refused(account: Account) -> None:
    account.provider.configure("us-east-1", {"owner": "x" * 300})
    _, problems = account.provider.check("aws:eks/addon:Addon", {}, {"clusterName": "c", "addonName": "coredns"})
    assert any("256" in problem for problem in problems)


def test_changed_default_tags_update_what_carries_them_and_replace_nothing(account: Account) -> None:
    token, inputs = "aws:ec2/vpc:Vpc", {"cidrBlock": "10.0.0.0/16"}
    before, _ = account.provider.check(token, {}, inputs)
    identifier, state = account.provider.create(token, "urn", before, False)
    account.provider.configure("us-east-1", {"expires": "2027-01-31"})
    after, _ = account.provider.check(token, before, inputs)
    found = account.provider.diff(token, state, before, after)
    assert (found.changed, found.replaces) == (["tagsAll"], [])
    assert account.provider.update(token, "urn", identifier, state, after, False)["tagsAll"] == {"expires": "2027-01-31"}


def test_what_else_the_file_of_an_account_says_is_kept_at_each_write(account: Account) -> None:
    path = account.provider.ledger.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"resources": {}, "journal": [], "quotas": {"L-DB2E81BA": 56.0}}))
    account.create("aws:ec2/eip:Eip", domain="vpc")
    assert json.loads(path.read_text())["quotas"] == {"L-DB2E81BA": 56.0}
