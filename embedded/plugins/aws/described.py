"""The stand-in's account as `demo sweep` asks of it: boto3's clients for the reading calls that the sweep makes, and no others.

Tags are those that the program's resources were created with. What AWS makes for them bears what EKS and its CNI write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from embedded.plugins.aws.ledger import Account, Entry, Ledger

Answer = dict[str, Any]


class Described:
    """Clients by service, as mistral_on_l4.aws.session.Clients gives them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __call__(self, service: str) -> Client:
        return Client(self._ledger, _ANSWERS[service])


class Client:
    """One service. Raises KeyError for a call that the sweep does not make."""

    def __init__(self, ledger: Ledger, answers: Mapping[str, Callable[..., Answer]]) -> None:
        self._ledger, self._answers = ledger, answers

    def __getattr__(self, operation: str) -> Callable[..., Answer]:
        def call(**arguments: Any) -> Answer:
            with self._ledger.open() as account:
                return self._answers[operation](account, **arguments)

        return call

    def get_paginator(self, operation: str) -> Pages:
        return Pages(getattr(self, operation))


class Pages:
    """All of an answer as its only page."""

    def __init__(self, call: Callable[..., Answer]) -> None:
        self._call = call

    def paginate(self, **arguments: Any) -> Iterator[Answer]:
        yield self._call(**arguments)


def _tags(entry: Entry) -> list[dict[str, str]]:
    return [{"Key": key, "Value": text} for key, text in (entry.data.get("tags") or {}).items()]


def _node_group(account: Account, clusterName: str, nodegroupName: str) -> Answer:
    group = account.entries[f"{clusterName}:{nodegroupName}"]
    return {"nodegroup": {"nodegroupName": group.name, "status": group.status, "tags": group.data.get("tags") or {}}}


def _instances(account: Account) -> Answer:
    made = {"Key": "eks:cluster-name"}
    found = []
    for instance in account.of("instance"):
        cluster = next((entry.ref("cluster") for entry in account.of("nodegroup") if entry.id in instance.refs["of"]), "")
        found.append(
            {
                "InstanceId": instance.id,
                "InstanceType": instance.name,
                "State": {"Name": "running"},
                "Tags": [{**made, "Value": cluster}],
            }
        )
    return {"Reservations": [{"Instances": found}]}


def _interfaces(account: Account) -> Answer:
    """The CNI tags its interfaces with the cluster's name; what NAT gateways and control planes have is described by it."""
    found = []
    for entry in account.of("network-interface"):
        cluster = entry.data.get("cluster", "")
        tags = [{"Key": "cluster.k8s.amazonaws.com/name", "Value": cluster}] if cluster else []
        found.append({"NetworkInterfaceId": entry.id, "Status": "available", "Description": entry.name, "TagSet": tags})
    return {"NetworkInterfaces": found}


def _volumes(account: Account) -> Answer:
    return {
        "Volumes": [
            {"VolumeId": entry.id, "Size": 1, "VolumeType": "gp3", "State": "available", "Tags": _tags(entry)}
            for entry in account.of("volume")
        ]
    }


def _listed(kind: str, group: str, **fields: str) -> Callable[[Account], Answer]:
    """An answer with every resource of a kind. fields: of the answer -> `id` or `name`, or a text."""

    def answer(account: Account) -> Answer:
        return {
            group: [
                {**{field: getattr(entry, what, what) for field, what in fields.items()}, "Tags": _tags(entry)}
                for entry in account.of(kind)
            ]
        }

    return answer


def _none(group: str) -> Callable[..., Answer]:
    return lambda _account, **_: {group: []}


_ANSWERS: Mapping[str, Mapping[str, Callable[..., Answer]]] = {
    "eks": {
        "list_clusters": lambda account: {"clusters": [entry.name for entry in account.of("cluster")]},
        "list_nodegroups": lambda account, clusterName: {
            "nodegroups": [entry.name for entry in account.of("nodegroup") if entry.ref("cluster") == clusterName]
        },
        "describe_nodegroup": _node_group,
    },
    "autoscaling": {"describe_auto_scaling_groups": _none("AutoScalingGroups")},
    "elbv2": {"describe_load_balancers": _none("LoadBalancers")},
    "elb": {"describe_load_balancers": _none("LoadBalancerDescriptions")},
    "logs": {"describe_log_groups": _none("logGroups")},
    "iam": {
        "list_roles": _listed("role", "Roles", RoleName="name", Path="/"),
        "list_role_tags": lambda account, RoleName: {"Tags": _tags(account.entries[RoleName])},
    },
    "ec2": {
        "describe_instances": _instances,
        "describe_volumes": _volumes,
        "describe_network_interfaces": _interfaces,
        "describe_nat_gateways": _listed("nat-gateway", "NatGateways", NatGatewayId="id", State="available"),
        "describe_addresses": _listed("eip", "Addresses", AllocationId="id", PublicIp="192.0.2.1"),
        "describe_launch_templates": _listed(
            "launch-template", "LaunchTemplates", LaunchTemplateId="id", LaunchTemplateName="name"
        ),
        "describe_security_groups": _listed("security-group", "SecurityGroups", GroupId="id", GroupName="name"),
        "describe_vpcs": _listed("vpc", "Vpcs", VpcId="id", CidrBlock="10.0.0.0/16"),
    },
}
