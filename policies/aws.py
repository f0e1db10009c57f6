"""Rules for AWS: encryption, instance metadata, open networks, tags, instance types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

from pulumi_policy import Severity

from policies.exposure import everywhere
from policies.reading import UNKNOWN, at, items, mapping
from policies.rule import ADVISORY, Resource, resource_rule

_TRUE = (True, "true", UNKNOWN)
# Types that cannot carry tags, or that bill nothing and are part of something tagged.
_UNTAGGED = re.compile(
    r"aws:(ec2/(route|routeTableAssociation|securityGroupRule|networkAclRule|volumeAttachment|mainRouteTableAssociation):"
    r"|iam/(rolePolicy|rolePolicyAttachment|policyAttachment|userPolicy|groupPolicy)[A-Za-z]*:"
    r"|eks/(accessPolicyAssociation):|s3/(bucket[A-Z][A-Za-z]*):|kms/(alias|keyPolicy):|autoscaling/(tag):)"
)


def declared(resource: Resource) -> bool:
    """Whether it is something that the stack makes on AWS: not a provider, not a component."""
    return resource.is_aws and bool(re.match(r"aws:[a-z0-9]+/", resource.token))


@resource_rule(
    "aws-data-is-encrypted",
    why="Weights and registry data on an unencrypted volume can be read from its snapshot by anyone the snapshot is shared with.",
    fix="set encrypted: true on volumes, launch template disks and the StorageClass",
    severity=Severity.HIGH,
)
def aws_data_is_encrypted(resource: Resource) -> Iterator[str]:
    match resource.token:
        case "aws:ebs/volume:Volume":
            if at(resource.props, "encrypted") not in _TRUE:
                yield f"{resource.label}: the volume is not encrypted"
        case "aws:ec2/launchTemplate:LaunchTemplate":
            for disk in items(resource.props, "blockDeviceMappings"):
                if at(disk, "ebs", "encrypted") not in _TRUE:
                    yield f"{resource.label}: disk {at(disk, 'deviceName')} is not encrypted"
        case "aws:ec2/instance:Instance":
            if at(resource.props, "rootBlockDevice", "encrypted") not in _TRUE:
                yield f"{resource.label}: the root disk is not encrypted"
        case "aws:efs/fileSystem:FileSystem" | "aws:rds/instance:Instance" | "aws:rds/cluster:Cluster":
            field = "storageEncrypted" if "rds" in resource.token else "encrypted"
            if at(resource.props, field) not in _TRUE:
                yield f"{resource.label}: {field} is not set"
        case _ if resource.is_kubernetes and resource.kind == "StorageClass":
            driver = at(resource.props, "provisioner")
            if driver == "ebs.csi.aws.com" and at(resource.props, "parameters", "encrypted") not in _TRUE:
                yield f"{resource.label}: its volumes are not encrypted"


@resource_rule(
    "aws-instances-use-imdsv2",
    why="Version 1 of the instance metadata service gives the node's credentials to any pod that can make one GET request.",
    fix="set metadataOptions.httpTokens to required and httpPutResponseHopLimit to 1 (2 at most)",
    severity=Severity.HIGH,
)
def aws_instances_use_imdsv2(resource: Resource) -> Iterator[str]:
    if resource.token == "aws:eks/nodeGroup:NodeGroup":
        if at(resource.props, "launchTemplate") is None:
            yield f"{resource.label}: without a launch template its nodes answer version 1 of the metadata service"
        return
    if resource.token not in ("aws:ec2/launchTemplate:LaunchTemplate", "aws:ec2/instance:Instance"):
        return
    options = at(resource.props, "metadataOptions")
    if options is UNKNOWN or at(options, "httpEndpoint") == "disabled":
        return
    if at(options, "httpTokens") not in ("required", UNKNOWN):
        yield f"{resource.label}: the instance metadata service answers without a token"
    hops = at(options, "httpPutResponseHopLimit")
    if isinstance(hops, int) and hops > 2:
        yield f"{resource.label}: instance metadata is reached over {hops} hops, so from pods behind other pods"


@resource_rule(
    "aws-networks-are-not-open",
    why="0.0.0.0/0 is the whole internet, and its scanners are there within minutes.",
    fix="name the address ranges that may connect (mistral-on-l4:cluster.publicAccessCidrs), or keep the endpoint private",
    severity=Severity.CRITICAL,
)
def aws_networks_are_not_open(resource: Resource) -> Iterator[str]:
    props = resource.props
    match resource.token:
        case "aws:ec2/securityGroup:SecurityGroup" | "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup":
            for rule in items(props, "ingress"):
                yield from _open(resource, [*items(rule, "cidrBlocks"), *items(rule, "ipv6CidrBlocks")])
        case "aws:ec2/securityGroupRule:SecurityGroupRule" if at(props, "type") == "ingress":
            yield from _open(resource, [*items(props, "cidrBlocks"), *items(props, "ipv6CidrBlocks")])
        case "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule":
            yield from _open(resource, [at(props, "cidrIpv4"), at(props, "cidrIpv6")])
        case "aws:eks/cluster:Cluster":
            if at(props, "vpcConfig", "endpointPublicAccess") not in (False, "false", UNKNOWN):
                cidrs = at(props, "vpcConfig", "publicAccessCidrs")
                if cidrs is None:
                    yield f"{resource.label}: its public endpoint is open to 0.0.0.0/0, the default"
                yield from _open(resource, items(cidrs))
        case "aws:ec2/subnet:Subnet" if at(props, "mapPublicIpOnLaunch") in (True, "true"):
            if "kubernetes.io/role/elb" not in mapping(props, "tags"):
                yield f"{resource.label}: gives every instance a public address"


def _open(resource: Resource, cidrs: list[Any]) -> Iterator[str]:
    for cidr in cidrs:
        if everywhere(cidr):
            yield f"{resource.label}: open to {cidr}"


@resource_rule(
    "aws-resources-are-tagged",
    why="`demo sweep` finds what a failed destroy left, and who owes it, by its tags; what has none bills until somebody notices.",
    fix="set mistral-on-l4:tags.owner and mistral-on-l4:tags.expires (a date); the platform puts them on everything",
    severity=Severity.MEDIUM,
    settings={"required": {"type": "array", "items": {"type": "string"}, "default": ["owner", "expires", "mistral-on-l4:stack"]}},
)
def aws_resources_are_tagged(resource: Resource) -> Iterator[str]:
    tags = tags_of(resource)
    if tags is None:
        return
    required = [str(name) for name in resource.config["required"]]
    if missing := [name for name in required if tags.get(name) in (None, "", "unknown")]:
        yield f"{resource.label}: no tag {', '.join(missing)}"
    if resource.token == "aws:ec2/launchTemplate:LaunchTemplate":
        # Tags of a node group or template reach neither its instances nor their volumes.
        for kind in ("instance", "volume"):
            specified = [item for item in items(resource.props, "tagSpecifications") if at(item, "resourceType") == kind]
            carried = mapping(specified[0], "tags") if specified else {}
            if missing := [name for name in required if carried.get(name) in (None, "", "unknown")]:
                yield f"{resource.label}: its {kind}s get no tag {', '.join(missing)}"
    if "expires" in required and isinstance(tags.get("expires"), str) and _day(tags["expires"]) is None:
        yield f"{resource.label}: tag expires is no date: {tags['expires']!r}"


@resource_rule(
    "aws-expiry-is-ahead",
    why="A demo whose date has passed is one that nobody took down.",
    fix="move mistral-on-l4:tags.expires ahead, by 90 days at most, or destroy the stack",
    severity=Severity.LOW,
    # The outcome depends on the day: it must not stop the preview of a change that has nothing to do with it.
    level=ADVISORY,
    settings={"maxDays": {"type": "integer", "minimum": 1, "default": 90}},
)
def aws_expiry_is_ahead(resource: Resource) -> Iterator[str]:
    if resource.token != "aws:eks/cluster:Cluster":
        return
    expires = (tags_of(resource) or {}).get("expires")
    day = _day(expires) if isinstance(expires, str) else None
    if day is None:
        return
    today = date.today()
    if day < today:
        yield f"{resource.label}: expired on {day}"
    elif day > today + timedelta(days=int(resource.config["maxDays"])):
        yield f"{resource.label}: expires on {day}, more than {resource.config['maxDays']} days ahead"


def tags_of(resource: Resource) -> Mapping[str, Any] | None:
    """Tags as AWS will see them, the provider's default ones included; None where there can be none, or they are unknown."""
    if not declared(resource) or _UNTAGGED.match(resource.token):
        return None
    own, merged = at(resource.props, "tags"), at(resource.props, "tagsAll")
    defaults = at(resource.provider, "defaultTags")
    if UNKNOWN in (own, merged, defaults):
        return None
    # The plugin has merged both by the time that a preview shows a resource; a program on mocks has no plugin.
    return merged if isinstance(merged, Mapping) else {**mapping(_decoded(defaults), "tags"), **mapping(own)}


def _decoded(value: Any) -> Any:
    """Providers take nested inputs as JSON text."""
    if isinstance(value, str):
        import json

        try:
            return json.loads(value)
        except ValueError:
            return {}
    return value


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) else None
    except ValueError:
        return None


@resource_rule(
    "aws-instance-types-are-allowed",
    why="One typing error in an instance type can cost a hundred dollars an hour.",
    fix="use a type that the catalogue prices (planner/catalogue/data/instances.yaml), or extend this policy's list",
    severity=Severity.HIGH,
    settings={
        "allowed": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Regular expressions of instance types",
            "default": [
                r"g6\.(x|2x|4x|8x|12x|16x|24x|48x)large",
                r"gr6\.[48]xlarge",
                r"g6e\.(x|2x|12x)large",
                r"g5\.12xlarge",
                r"(m7i|m6i|t3)\.(large|xlarge|2xlarge)",
                r"m6in\.2xlarge",
            ],
        }
    },
)
def aws_instance_types_are_allowed(resource: Resource) -> Iterator[str]:
    if not declared(resource):
        return
    for kind in (*items(resource.props, "instanceTypes"), *items(resource.props, "instanceType")):
        if isinstance(kind, str) and not any(re.fullmatch(str(pattern), kind) for pattern in resource.config["allowed"]):
            yield f"{resource.label}: instance type {kind} is not among the allowed ones"


POLICIES = (
    aws_data_is_encrypted,
    aws_instances_use_imdsv2,
    aws_networks_are_not_open,
    aws_resources_are_tagged,
    aws_expiry_is_ahead,
    aws_instance_types_are_allowed,
)
