"""The sweep against moto's server, with leftovers planted as a stack leaves them: by our tag, and where only a name tells."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import boto3
import pytest

from mistral_on_l4.aws.leftovers import Sweep
from mistral_on_l4.planner.catalogue import load_catalogue

pytestmark = pytest.mark.embedded

OURS = [{"Key": "mistral-on-l4:stack", "Value": "dev"}]
THEIRS = [{"Key": "mistral-on-l4:stack", "Value": "other"}]
CLUSTER = "mistral-on-l4-dev"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


class Account:
    """Clients of an account that is empty at first."""

    def __init__(self, server: str) -> None:
        import urllib.request

        urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST"))
        session = boto3.Session("AKIAEXAMPLE", "not-a-real-secret", region_name="us-east-1")
        self.client = cache(lambda service: session.client(service, endpoint_url=server))

    def sweep(self, adopted: bool = False) -> tuple[list[tuple[str, str]], list[str]]:
        found, unseen = Sweep("dev", CLUSTER, "us-east-1", load_catalogue(), self.client, adopted).run()
        return [(item.kind, item.id) for item in found], unseen

    def prices(self) -> dict[str, float | None]:
        found, _ = Sweep("dev", CLUSTER, "us-east-1", load_catalogue(), self.client).run()
        return {item.kind: item.usd_per_day for item in found}


@pytest.fixture
def account(server: str) -> Account:
    return Account(server)


def network(account: Account, tags: list[dict[str, str]]) -> tuple[str, str]:
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}])["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
    return vpc, subnet


def test_an_account_with_nothing_of_ours_is_clean_though_others_live_there(account: Account) -> None:
    ec2 = account.client("ec2")
    network(account, THEIRS)
    ec2.create_volume(AvailabilityZone="us-east-1a", Size=5, TagSpecifications=[{"ResourceType": "volume", "Tags": THEIRS}])
    ec2.allocate_address(Domain="vpc")
    account.client("logs").create_log_group(logGroupName="/aws/eks/mistral-on-l4-dev2/cluster")
    assert account.sweep() == ([], [])


def test_every_kind_of_leftover_is_found_once_and_the_dearest_comes_first(account: Account) -> None:
    ec2 = account.client("ec2")
    vpc, subnet = network(account, OURS)
    expected = {("network", vpc)}

    def tagged(kind: str, tags: list[dict[str, str]] = OURS) -> dict[str, Any]:
        return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]}

    volume = ec2.create_volume(
        AvailabilityZone="us-east-1a", Size=200, VolumeType="gp3", Throughput=500, Iops=3000, **tagged("volume")
    )
    expected.add(("volume", volume["VolumeId"]))
    address = ec2.allocate_address(Domain="vpc", **tagged("elastic-ip"))
    expected.add(("address", address["AllocationId"]))
    nat = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address["AllocationId"], **tagged("natgateway"))
    expected.add(("NAT gateway", nat["NatGateway"]["NatGatewayId"]))
    template = ec2.create_launch_template(
        LaunchTemplateName="eks-made",
        LaunchTemplateData={},
        **tagged("launch-template", [{"Key": "eks:cluster-name", "Value": CLUSTER}]),
    )
    expected.add(("launch template", template["LaunchTemplate"]["LaunchTemplateId"]))
    account.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="eks-of-a-node-group",
        LaunchTemplate={"LaunchTemplateId": template["LaunchTemplate"]["LaunchTemplateId"]},
        MinSize=0,
        MaxSize=1,
        DesiredCapacity=0,
        VPCZoneIdentifier=subnet,
        Tags=[{"Key": "eks:cluster-name", "Value": CLUSTER, "PropagateAtLaunch": True}],
    )
    expected.add(("scaling group", "eks-of-a-node-group"))
    image = ec2.describe_images()["Images"][0]["ImageId"]
    run = ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        InstanceType="g6.12xlarge",
        SubnetId=subnet,
        **tagged("instance", [{"Key": "eks:cluster-name", "Value": CLUSTER}]),
    )
    expected.add(("instance", run["Instances"][0]["InstanceId"]))
    group = ec2.create_security_group(GroupName=f"eks-cluster-sg-{CLUSTER}-123", Description="of EKS", VpcId=vpc)
    expected.add(("security group", group["GroupId"]))
    interface = ec2.create_network_interface(SubnetId=subnet, Description=f"Amazon EKS {CLUSTER}")
    expected.add(("network interface", interface["NetworkInterface"]["NetworkInterfaceId"]))
    balancer = account.client("elbv2").create_load_balancer(
        Name="k8s-something", Subnets=[subnet], Type="network", Tags=[{"Key": f"kubernetes.io/cluster/{CLUSTER}", "Value": "owned"}]
    )
    expected.add(("load balancer", balancer["LoadBalancers"][0]["LoadBalancerName"]))
    account.client("logs").create_log_group(logGroupName=f"/aws/eks/{CLUSTER}/cluster")
    expected.add(("log group", f"/aws/eks/{CLUSTER}/cluster"))
    account.client("iam").create_role(RoleName=f"{CLUSTER}-node-1", AssumeRolePolicyDocument="{}", Tags=OURS)
    expected.add(("role", f"{CLUSTER}-node-1"))
    role = "arn:aws:iam::123456789012:role/x"
    account.client("eks").create_cluster(name=CLUSTER, roleArn=role, resourcesVpcConfig={"subnetIds": [subnet]})
    expected.add(("cluster", CLUSTER))

    found, unseen = account.sweep()
    assert unseen == []
    # moto gives a NAT gateway's, a load balancer's and an instance's own interfaces no mark of ours: none is counted twice.
    assert expected <= set(found)
    assert len(found) == len(set(found))
    assert {kind for kind, _ in found} == {kind for kind, _ in expected}
    assert found[0] == ("instance", run["Instances"][0]["InstanceId"])
    prices = account.prices()
    assert prices["instance"] == pytest.approx(24 * 4.6016)
    assert prices["cluster"] == pytest.approx(2.4)
    assert prices["NAT gateway"] == pytest.approx(1.08)
    # 200 GiB, and 375 MiB/s above the baseline.
    assert prices["volume"] == pytest.approx((200 * 0.08 + 375 * 0.04) * 24 / 730)
    assert prices["network"] == 0


def node_group(account: Account, name: str, subnet: str, stack: str) -> None:
    account.client("eks").create_nodegroup(
        clusterName=CLUSTER,
        nodegroupName=name,
        subnets=[subnet],
        nodeRole="arn:aws:iam::123456789012:role/x",
        tags={"mistral-on-l4:stack": stack},
    )


def test_in_an_adopted_cluster_only_what_bears_our_own_tag_is_ours(account: Account) -> None:
    ec2, eks = account.client("ec2"), account.client("eks")
    _, subnet = network(account, [])
    eks.create_cluster(name=CLUSTER, roleArn="arn:aws:iam::123456789012:role/x", resourcesVpcConfig={"subnetIds": [subnet]})
    node_group(account, "of-the-owner", subnet, "other")
    node_group(account, "of-ours", subnet, "dev")
    named = [{"Key": key, "Value": CLUSTER} for key in ("eks:cluster-name", "ebs.csi.aws.com/cluster-name")]
    ec2.create_volume(AvailabilityZone="us-east-1a", Size=5, TagSpecifications=[{"ResourceType": "volume", "Tags": named}])
    ours = [*named, *OURS]
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=5, TagSpecifications=[{"ResourceType": "volume", "Tags": ours}])
    ec2.create_network_interface(SubnetId=subnet, Description=f"Amazon EKS {CLUSTER}")
    account.client("logs").create_log_group(logGroupName=f"/aws/eks/{CLUSTER}/cluster")
    assert account.sweep(adopted=True) == ([("volume", volume["VolumeId"]), ("node group", "of-ours")], [])


def test_a_cluster_of_ours_is_named_with_the_node_groups_that_keep_it_from_going(account: Account) -> None:
    _, subnet = network(account, [])
    account.client("eks").create_cluster(
        name=CLUSTER, roleArn="arn:aws:iam::123456789012:role/x", resourcesVpcConfig={"subnetIds": [subnet]}
    )
    node_group(account, "unknown-to-the-state", subnet, "dev")
    found, unseen = account.sweep()
    assert unseen == []
    assert {("cluster", CLUSTER), ("node group", "unknown-to-the-state")} <= set(found)


def test_a_stack_whose_name_goes_on_with_ours_and_a_network_lent_to_us_are_not_ours(account: Account) -> None:
    vpc, _ = network(account, [{"Key": f"kubernetes.io/cluster/{CLUSTER}", "Value": "shared"}])
    account.client("ec2").create_security_group(GroupName=f"eks-cluster-sg-{CLUSTER}-2-123", Description="of EKS", VpcId=vpc)
    assert account.sweep() == ([], [])


def test_what_is_gone_or_going_is_no_leftover(account: Account) -> None:
    ec2 = account.client("ec2")
    _, subnet = network(account, THEIRS)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    run = ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        InstanceType="g6.2xlarge",
        SubnetId=subnet,
        TagSpecifications=[{"ResourceType": "instance", "Tags": OURS}],
    )
    ec2.terminate_instances(InstanceIds=[run["Instances"][0]["InstanceId"]])
    assert account.sweep() == ([], [])


def test_a_kind_that_may_not_be_looked_at_is_said_and_hides_no_other(account: Account) -> None:
    from botocore.exceptions import ClientError

    vpc, _ = network(account, OURS)
    real = account.client

    class Denied:
        def get_paginator(self, operation: str) -> Any:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, operation)

    account.client = lambda service: Denied() if service == "iam" else real(service)  # type: ignore[assignment]
    found, unseen = account.sweep()
    assert found == [("network", vpc)]
    assert unseen == ["roles: not allowed to call list_roles: ask for the policy of docs/aws.md (no)"]
