"""What a destroyed stack may have left in an AWS account: by tag, and by name where EKS and its drivers pass no tags on.

Reads only. Every kind is looked for by itself, so that one refusal does not hide the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mistral_on_l4.aws.session import AwsTrouble, in_words
from mistral_on_l4.config.names import STACK_TAG
from mistral_on_l4.planner.catalogue import Catalogue

_HOURS_PER_MONTH = 730
# us-east-1, AWS's price pages, 2026-11: an Application or Network Load Balancer by the hour, and a GB of logs by the month.
_LOAD_BALANCER_USD_PER_HOUR = 0.0225
_LOGS_USD_PER_GB_MONTH = 0.03


@dataclass(frozen=True)
class Leftover:
    """usd_per_day: None where the catalogue has no price; 0 for what costs nothing and yet stands in the way."""

    kind: str
    id: str
    about: str
    usd_per_day: float | None


@dataclass(frozen=True)
class Sweep:
    """What is looked for. adopted: the cluster is its owner's, so what bears its name or its tags is not the stack's."""

    stack: str
    cluster: str
    region: str
    catalogue: Catalogue
    client: Callable[[str], Any]
    adopted: bool = False

    def run(self) -> tuple[list[Leftover], list[str]]:
        """(leftovers, what could not be looked at), dearest first."""
        looks: list[Callable[[], Iterator[Leftover]]] = [
            self._clusters,
            self._node_groups,
            self._scaling_groups,
            self._instances,
            self._volumes,
            self._nat_gateways,
            self._addresses,
            self._load_balancers,
            self._classic_load_balancers,
            self._log_groups,
            self._interfaces,
            self._launch_templates,
            self._security_groups,
            self._networks,
            self._roles,
        ]
        found: list[Leftover] = []
        unseen: list[str] = []
        with ThreadPoolExecutor(len(looks)) as pool:
            for look, answer in zip(looks, pool.map(_settled, looks), strict=True):
                if isinstance(answer, str):
                    unseen.append(f"{look.__name__.strip('_').replace('_', ' ')}: {answer}")
                else:
                    found += answer
        return sorted(found, key=lambda item: -(item.usd_per_day or 0)), unseen

    # -- what bills ----------------------------------------------------------------------------------------------------

    def _clusters(self) -> Iterator[Leftover]:
        if self._cluster_exists() and not self.adopted:
            yield Leftover("cluster", self.cluster, "EKS control plane", self._day("eks_usd_per_hour"))

    def _node_groups(self) -> Iterator[Leftover]:
        """They cost nothing themselves, and start instances again; without them gone, a cluster cannot be deleted."""
        if not self._cluster_exists():
            return
        for page in self._pages("eks", "list_nodegroups", clusterName=self.cluster):
            for name in page["nodegroups"]:
                group = self.client("eks").describe_nodegroup(clusterName=self.cluster, nodegroupName=name)["nodegroup"]
                if not self.adopted or (group.get("tags") or {}).get(STACK_TAG) == self.stack:
                    yield Leftover("node group", name, f"{group['status']}, in cluster {self.cluster}", 0.0)

    def _scaling_groups(self) -> Iterator[Leftover]:
        """EKS makes one for each node group; one that it could not delete starts instances again that somebody ends."""
        for page in self._pages("autoscaling", "describe_auto_scaling_groups"):
            for group in page["AutoScalingGroups"]:
                if "Status" not in group and self._ours(_tags(group)):
                    yield Leftover("scaling group", group["AutoScalingGroupName"], f"{group['DesiredCapacity']} wanted", 0.0)

    def _instances(self) -> Iterator[Leftover]:
        for page in self._pages("ec2", "describe_instances"):
            for instance in (item for group in page["Reservations"] for item in group["Instances"]):
                if instance["State"]["Name"] not in ("terminated", "shutting-down") and self._ours(_tags(instance)):
                    known = self.catalogue.instances.get(instance["InstanceType"])
                    hourly = known.usd_per_hour.get(self.region) if known else None
                    yield Leftover(
                        "instance",
                        instance["InstanceId"],
                        f"{instance['InstanceType']}, {instance['State']['Name']}",
                        None if hourly is None else 24 * hourly,
                    )

    def _volumes(self) -> Iterator[Leftover]:
        for page in self._pages("ec2", "describe_volumes"):
            for volume in page["Volumes"]:
                tags = _tags(volume)
                if self._ours(tags):
                    claim = tags.get("kubernetes.io/created-for/pvc/name", "")
                    about = f"{volume['Size']} GiB {volume['VolumeType']}, {volume['State']}" + (
                        f", of claim {claim}" if claim else ""
                    )
                    yield Leftover("volume", volume["VolumeId"], about, self._volume_day(volume))

    def _nat_gateways(self) -> Iterator[Leftover]:
        for page in self._pages("ec2", "describe_nat_gateways"):
            for nat in page["NatGateways"]:
                if nat["State"] not in ("deleted", "deleting") and self._ours(_tags(nat)):
                    yield Leftover("NAT gateway", nat["NatGatewayId"], nat["State"], self._day("nat_usd_per_hour"))

    def _addresses(self) -> Iterator[Leftover]:
        for address in self.client("ec2").describe_addresses()["Addresses"]:
            if self._ours(_tags(address)):
                yield Leftover("address", address["AllocationId"], address["PublicIp"], self._day("public_ipv4_usd_per_hour"))

    def _load_balancers(self) -> Iterator[Leftover]:
        client = self.client("elbv2")
        for page in self._pages("elbv2", "describe_load_balancers"):
            for balancer in page["LoadBalancers"]:
                (described,) = client.describe_tags(ResourceArns=[balancer["LoadBalancerArn"]])["TagDescriptions"]
                if self._ours(_tags(described)):
                    yield Leftover(
                        "load balancer", balancer["LoadBalancerName"], balancer["Type"], 24 * _LOAD_BALANCER_USD_PER_HOUR
                    )

    def _classic_load_balancers(self) -> Iterator[Leftover]:
        client = self.client("elb")
        for page in self._pages("elb", "describe_load_balancers"):
            for balancer in page["LoadBalancerDescriptions"]:
                name = balancer["LoadBalancerName"]
                (described,) = client.describe_tags(LoadBalancerNames=[name])["TagDescriptions"]
                if self._ours(_tags(described)):
                    yield Leftover("load balancer", name, "classic", 24 * _LOAD_BALANCER_USD_PER_HOUR)

    def _log_groups(self) -> Iterator[Leftover]:
        if self.adopted:
            return
        for page in self._pages("logs", "describe_log_groups", logGroupNamePrefix=f"/aws/eks/{self.cluster}/"):
            for group in page["logGroups"]:
                gigabytes = group.get("storedBytes", 0) / 1e9
                yield Leftover(
                    "log group",
                    group["logGroupName"],
                    f"{gigabytes:.2f} GB",
                    gigabytes * _LOGS_USD_PER_GB_MONTH * 24 / _HOURS_PER_MONTH,
                )

    # -- what costs nothing, and keeps a network from going --------------------------------------------------------------

    def _interfaces(self) -> Iterator[Leftover]:
        for page in self._pages("ec2", "describe_network_interfaces"):
            for interface in page["NetworkInterfaces"]:
                tags = _tags({"Tags": interface.get("TagSet", [])})
                said = interface.get("Description", "")
                if self._ours(tags) or self._named(said, f"Amazon EKS {re.escape(self.cluster)}"):
                    yield Leftover("network interface", interface["NetworkInterfaceId"], f"{interface['Status']}, {said}", 0.0)

    def _launch_templates(self) -> Iterator[Leftover]:
        for page in self._pages("ec2", "describe_launch_templates"):
            for template in page["LaunchTemplates"]:
                if self._ours(_tags(template)):
                    yield Leftover("launch template", template["LaunchTemplateId"], template["LaunchTemplateName"], 0.0)

    def _security_groups(self) -> Iterator[Leftover]:
        for page in self._pages("ec2", "describe_security_groups"):
            for group in page["SecurityGroups"]:
                # EKS appends a number; the cluster of stack dev-2 has its own.
                if self._ours(_tags(group)) or self._named(group["GroupName"], rf"eks-cluster-sg-{re.escape(self.cluster)}-\d+"):
                    yield Leftover("security group", group["GroupId"], group["GroupName"], 0.0)

    def _networks(self) -> Iterator[Leftover]:
        for page in self._pages("ec2", "describe_vpcs"):
            for vpc in page["Vpcs"]:
                if self._ours(_tags(vpc)):
                    yield Leftover("network", vpc["VpcId"], vpc["CidrBlock"], 0.0)

    def _roles(self) -> Iterator[Leftover]:
        client = self.client("iam")
        for page in self._pages("iam", "list_roles"):
            for role in page["Roles"]:
                if not role["RoleName"].startswith(f"{self.cluster[:20]}"):
                    continue
                if self._ours(_tags({"Tags": client.list_role_tags(RoleName=role["RoleName"])["Tags"]})):
                    yield Leftover("role", role["RoleName"], role["Path"], 0.0)

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _pages(self, service: str, operation: str, **arguments: Any) -> Iterator[Any]:
        yield from self.client(service).get_paginator(operation).paginate(**arguments)

    def _cluster_exists(self) -> bool:
        return any(self.cluster in page["clusters"] for page in self._pages("eks", "list_clusters"))

    def _named(self, text: str, pattern: str) -> bool:
        """By a name that EKS makes up from its cluster's."""
        return not self.adopted and re.fullmatch(pattern, text) is not None

    def _ours(self, tags: Mapping[str, str]) -> bool:
        """By our own tag, or, in a cluster of our own, by one that EKS, its drivers and controllers write with its name."""
        if self.adopted or STACK_TAG in tags:
            return tags.get(STACK_TAG) == self.stack
        return (
            any(
                tags.get(key) == self.cluster
                for key in (
                    "eks:cluster-name",
                    "aws:eks:cluster-name",
                    "ebs.csi.aws.com/cluster-name",
                    "cluster.k8s.amazonaws.com/name",
                    "elbv2.k8s.aws/cluster",
                )
            )
            # `shared` is what lies in a network that was there before.
            or tags.get(f"kubernetes.io/cluster/{self.cluster}") == "owned"
        )

    def _day(self, price: str) -> float | None:
        prices = self.catalogue.prices.get(self.region)
        return None if prices is None else 24 * float(getattr(prices, price))

    def _volume_day(self, volume: Mapping[str, Any]) -> float | None:
        prices = self.catalogue.prices.get(self.region)
        if prices is None:
            return None
        monthly = volume["Size"] * prices.gp3_usd_per_gb_month
        monthly += max(0, volume.get("Throughput", 0) - 125) * prices.gp3_usd_per_mbs_month
        monthly += max(0, volume.get("Iops", 0) - 3000) * prices.gp3_usd_per_iops_month
        return float(monthly) * 24 / _HOURS_PER_MONTH


def _settled(look: Callable[[], Iterator[Leftover]]) -> list[Leftover] | str:
    try:
        with in_words():
            return list(look())
    except AwsTrouble as error:
        return str(error)


def _tags(resource: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags") or []}
