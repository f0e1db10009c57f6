"""The functions that the program asks before it declares anything. Offerings are real ones, as moto carries them."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embedded.plugins.aws.ledger import Account, AwsError, Entry
from mistral_on_l4.aws.account import REHEARSAL_ACCOUNT

Answer = dict[str, Any]


def caller_identity(account: Account, args: Mapping[str, Any]) -> Answer:  # noqa: ARG001
    arn = f"arn:aws:iam::{REHEARSAL_ACCOUNT}:user/rehearsal"
    return {"accountId": REHEARSAL_ACCOUNT, "arn": arn, "userId": "AIDA" + "0" * 17, "id": REHEARSAL_ACCOUNT}


def availability_zones(account: Account, args: Mapping[str, Any]) -> Answer:
    """Zones of the region; the ids are this account's, as every account has its own."""
    excluded = set(args.get("excludeZoneIds") or [])
    names = sorted({location for _, location in offerings(account.region)})
    with_ids = [(name, f"{_short(account.region)}-az{index}") for index, name in enumerate(names, 1)]
    found = [(name, zone) for name, zone in with_ids if zone not in excluded]
    return {"names": [name for name, _ in found], "zoneIds": [zone for _, zone in found], "groupNames": [], "id": account.region}


def instance_type_offerings(account: Account, args: Mapping[str, Any]) -> Answer:
    wanted = {value for found in args.get("filters") or [] if found["name"] == "instance-type" for value in found["values"]}
    found = [(name, zone) for name, zone in offerings(account.region) if name in wanted]
    return {"instanceTypes": [name for name, _ in found], "locations": [zone for _, zone in found], "id": account.region}


def clusters(account: Account, args: Mapping[str, Any]) -> Answer:  # noqa: ARG001
    return {"names": [found.name for found in account.of("cluster")], "id": account.region}


def cluster(account: Account, args: Mapping[str, Any]) -> Answer:
    found = account.find("cluster", args["name"])
    if found is None:
        raise AwsError("EKS: DescribeCluster", "ResourceNotFoundException", f"No cluster found for name: {args['name']}.")
    return {
        "name": found.name,
        "id": found.name,
        "arn": found.data.get("arn", ""),
        "createdAt": found.data.get("createdAt", ""),
        "endpoint": found.data.get("endpoint", ""),
        "certificateAuthorities": [{"data": found.data.get("ca", "")}],
        "status": found.status,
        "tags": found.data["tags"],
        "version": found.data["version"],
        "vpcConfig": {"subnetIds": found.refs["subnet"], "vpcId": account.entries[found.refs["subnet"][0]].ref("vpc")},
    }


def subnet(account: Account, args: Mapping[str, Any]) -> Answer:
    found: Entry | None = account.find("subnet", str(args.get("id")))
    if found is None:
        raise AwsError("EC2: DescribeSubnets", "InvalidSubnetID.NotFound", f"The subnet ID '{args.get('id')}' does not exist")
    return {"id": found.id, "availabilityZone": found.data["zone"], "vpcId": found.ref("vpc"), "cidrBlock": found.data["cidr"]}


def parameter(account: Account, args: Mapping[str, Any]) -> Answer:  # noqa: ARG001
    """Only the releases of EKS's node images, with a made-up date."""
    path = str(args["name"]).split("/")
    if path[1:5] != ["aws", "service", "eks", "optimized-ami"] or path[-1] != "release_version":
        raise AwsError("SSM: GetParameter", "ParameterNotFound", f"{args['name']}: the stand-in knows releases of node images only")
    return {"name": args["name"], "value": f"{path[5]}.0-20260714", "type": "String", "id": args["name"]}


LOOKUPS: dict[str, Callable[[Account, Mapping[str, Any]], Answer]] = {
    "aws:index/getCallerIdentity:getCallerIdentity": caller_identity,
    "aws:index/getAvailabilityZones:getAvailabilityZones": availability_zones,
    "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": instance_type_offerings,
    "aws:eks/getClusters:getClusters": clusters,
    "aws:eks/getCluster:getCluster": cluster,
    "aws:ec2/getSubnet:getSubnet": subnet,
    "aws:ssm/getParameter:getParameter": parameter,
}


def offerings(region: str) -> list[tuple[str, str]]:
    """(instance type, zone) pairs of a region. Raises AwsError where the region is none, or moto is not installed."""
    package = importlib.util.find_spec("moto")
    if package is None or not package.submodule_search_locations:
        raise AwsError("EC2: DescribeInstanceTypeOfferings", "StandIn", "the package moto is not installed: run `make venv`")
    folder = Path(next(iter(package.submodule_search_locations))) / "ec2/resources/instance_type_offerings/availability-zone"
    try:
        found = json.loads(gzip.decompress((folder / f"{region}.json.gz").read_bytes()))
    except FileNotFoundError:
        raise AwsError(
            "EC2: DescribeInstanceTypeOfferings",
            "UnrecognizedClient",
            f"there is no region {region!r}, or moto knows nothing of it",
        ) from None
    return [(entry["InstanceType"], entry["Location"]) for entry in found]


def _short(region: str) -> str:
    """us-east-1 as in zone ids: use1."""
    area, direction, number = region.rsplit("-", 2)
    shortened = {"northeast": "ne", "northwest": "nw", "southeast": "se", "southwest": "sw"}.get(direction, direction[0])
    return f"{area.replace('-', '')}{shortened}{number}"
