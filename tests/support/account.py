"""An AWS account's answers to the program's questions, made up: what the program declares does not depend on their details."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d")


def account(
    offered: Mapping[str, tuple[str, ...]] | None = None, clusters: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]:
    """Function token -> answer. offered: instance type -> zones, None for every type in all of them; clusters: those that exist."""
    clusters = clusters or {}

    def offerings(args: Mapping[str, Any]) -> Mapping[str, Any]:
        (wanted,) = [found["values"] for found in args["filters"]]
        pairs = [(name, zone) for name in wanted for zone in (ZONES if offered is None else offered[name])]
        return {"instanceTypes": [name for name, _ in pairs], "locations": [zone for _, zone in pairs], "id": "us-east-1"}

    return {
        "aws:index/getCallerIdentity:getCallerIdentity": lambda _: {"accountId": "123456789012", "arn": "", "userId": "", "id": ""},
        "aws:index/getAvailabilityZones:getAvailabilityZones": lambda _: {"names": list(ZONES), "zoneIds": [], "id": "us-east-1"},
        "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": offerings,
        "aws:eks/getClusters:getClusters": lambda _: {"names": list(clusters), "id": "us-east-1"},
        "aws:eks/getCluster:getCluster": lambda args: clusters[args["name"]],
        "aws:ec2/getSubnet:getSubnet": lambda args: {
            "id": args["id"],
            "availabilityZone": f"us-east-1{args['id'][-1]}",
            "vpcId": "vpc-1",
        },
        "aws:ssm/getParameter:getParameter": lambda args: {"name": args["name"], "value": "1.36.1-20260714"},
    }


def existing(name: str, tags: Mapping[str, str] | None = None, status: str = "ACTIVE") -> dict[str, Any]:
    return {
        "name": name,
        "arn": f"arn:aws:eks:us-east-1:123456789012:cluster/{name}",
        "createdAt": "2026-11-01T00:00:00Z",
        "endpoint": "https://api.example.com",
        "certificateAuthorities": [{"data": "Q0E="}],
        "status": status,
        "tags": dict(tags or {}),
        "version": "1.35",
        "vpcConfig": {"subnetIds": ["subnet-a", "subnet-b"], "vpcId": "vpc-1"},
    }


# What AWS alone knows, as the provider would answer after a create.
OUTPUTS: Mapping[str, Mapping[str, Any]] = {
    "aws:eks/cluster:Cluster": {
        "endpoint": "https://api.example.com",
        "certificateAuthority": {"data": "Q0E="},
        "arn": "arn:aws:eks:us-east-1:123456789012:cluster/x",
        "createdAt": "2026-11-25T00:00:00Z",
    },
    "aws:ec2/launchTemplate:LaunchTemplate": {"latestVersion": 1},
    "kubernetes:core/v1:ConfigMap": {"data": {"registeredModelId": "7", "modelVersionId": "9", "modelArtifactId": "11"}},
    "kubernetes:core/v1:Secret": {"data": {"ca.crt": base64.b64encode(b"an authority").decode()}},
}
