"""EKS: control plane, access, add-ons, node groups; and the launch templates that node groups are made from."""

from __future__ import annotations

import base64
import email
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from embedded.plugins.aws.bridge import Bridge
from embedded.plugins.aws.faults import Switch
from embedded.plugins.aws.kinds.base import Kind, Values, ec2_tags, present, renamed, require
from embedded.plugins.aws.kinds.identity import role_by_arn
from embedded.plugins.aws.kinds.stock import Stock
from embedded.plugins.aws.ledger import Account, AwsError, Entry, new_id, new_name
from embedded.plugins.aws.service_model import Call
from embedded.plugins.values import UNKNOWN

# The official provider shows a time; nothing here depends on which.
_NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy")
_ON_NODES = frozenset({"coredns", "aws-ebs-csi-driver"})
ADDONS = frozenset({"vpc-cni", "kube-proxy", "eks-pod-identity-agent", *_ON_NODES})


class Cluster(Kind):
    token = "aws:eks/cluster:Cluster"
    kind = "cluster"
    known = frozenset(
        {"name", "version", "roleArn", "bootstrapSelfManagedAddons", "accessConfig", "upgradePolicy", "vpcConfig", "tags", "region"}
    )
    # vpcConfig: AWS adds the security group to what it was given.
    computed = ("arn", "endpoint", "certificateAuthority", "createdAt", "status", "platformVersion", "identities", "vpcConfig")
    half_made_on_failure = True

    def calls(self, inputs: Values) -> Iterator[Call]:
        names = {
            "name": "name",
            "version": "version",
            "roleArn": "roleArn",
            "bootstrapSelfManagedAddons": "bootstrapSelfManagedAddons",
            "accessConfig": "accessConfig",
            "upgradePolicy": "upgradePolicy",
            "vpcConfig": "resourcesVpcConfig",
            "tags": "tags",
        }
        yield "eks", "CreateCluster", {api: inputs[name] for name, api in names.items() if name in inputs}

    def enter(self, account: Account, inputs: Values) -> Entry:
        operation, name = "EKS: CreateCluster", inputs["name"]
        if account.find("cluster", name):
            raise AwsError(operation, "ResourceInUseException", f"Cluster already exists with name: {name}")
        role = role_by_arn(account, operation, inputs["roleArn"], "eks.amazonaws.com", "AmazonEKSClusterPolicy")
        subnets = [
            require(account, operation, "InvalidParameterException", "subnet", found) for found in inputs["vpcConfig"]["subnetIds"]
        ]
        if len({found.data["zone"] for found in subnets}) < 2:
            raise AwsError(
                operation, "InvalidParameterException", "Subnets specified must be in at least two different Availability Zones"
            )
        refs = {"subnet": [found.id for found in subnets], "role": [role.id]}
        cluster = account.add(Entry(name, "cluster", name, refs, {"version": inputs["version"], "tags": inputs.get("tags") or {}}))
        vpc = subnets[0].ref("vpc")
        group = account.add(
            Entry(
                new_id("sg"), "security-group", f"eks-cluster-sg-{name}", {"vpc": [vpc], "of": [name]}, status="ACTIVE", ours=False
            )
        )
        cluster.data["securityGroup"] = group.id
        for subnet in subnets[:2]:
            account.add(
                Entry(
                    new_id("eni"),
                    "network-interface",
                    f"Amazon EKS {name}",
                    {"subnet": [subnet.id], "security-group": [group.id], "of": [name]},
                    status="ACTIVE",
                    ours=False,
                )
            )
        return cluster

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:
        endpoint, ca = bridge.endpoint()
        entry.data |= {
            "arn": account.arn("eks", f"cluster/{entry.name}"),
            "endpoint": endpoint,
            "ca": ca,
            "createdAt": "2026-01-01T00:00:00Z",
        }
        return {
            "arn": entry.data["arn"],
            "endpoint": endpoint,
            "certificateAuthority": {"data": ca},
            "createdAt": entry.data["createdAt"],
            "status": "ACTIVE",
            "platformVersion": "eks.1",
            **self.update(account, entry, inputs),
        }

    def update(self, account: Account, entry: Entry, inputs: Values) -> Values:
        vpc = account.entries[entry.refs["subnet"][0]].ref("vpc")
        return {"vpcConfig": {**inputs["vpcConfig"], "clusterSecurityGroupId": entry.data["securityGroup"], "vpcId": vpc}}

    def blockers(self, account: Account, entry: Entry) -> Sequence[Entry]:
        return [found for found in account.of("nodegroup") if found.ref("cluster") == entry.id]

    def refusal(self, entry: Entry, blockers: Sequence[Entry]) -> AwsError:
        return AwsError(
            "EKS: DeleteCluster",
            "ResourceInUseException",
            f"Cluster {entry.name} has nodegroups attached ({', '.join(found.name for found in blockers)})",
        )

    def gone(self, account: Account, entry: Entry) -> None:
        held = {found.name for found in account.users(entry.ref("role"), "role-policy")}
        for found in account.users(entry.id):
            # Without its policy EKS may no longer touch its own interfaces and group in the account: they stay, and block.
            if "AmazonEKSClusterPolicy" in held or found.kind not in ("security-group", "network-interface"):
                account.remove(found.id)
        account.remove(entry.id)


class AccessEntry(Kind):
    token = "aws:eks/accessEntry:AccessEntry"
    kind = "access-entry"
    known = frozenset({"clusterName", "principalArn", "type", "tags", "region"})
    computed = ("accessEntryArn", "createdAt", "modifiedAt", "userName")

    def calls(self, inputs: Values) -> Iterator[Call]:
        yield "eks", "CreateAccessEntry", {key: value for key, value in inputs.items() if key in self.known - {"region"}}

    def enter(self, account: Account, inputs: Values) -> Entry:
        operation = "EKS: CreateAccessEntry"
        cluster = _active_cluster(account, operation, inputs["clusterName"])
        key = f"{cluster.name}:{inputs['principalArn']}"
        if account.find(self.kind, key):
            raise AwsError(
                operation, "ResourceInUseException", "The specified access entry resource is already in use on this cluster."
            )
        return account.add(Entry(key, self.kind, key, {"cluster": [cluster.id]}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {"accessEntryArn": account.arn("eks", f"access-entry/{entry.ref('cluster')}")}


class AccessPolicyAssociation(Kind):
    token = "aws:eks/accessPolicyAssociation:AccessPolicyAssociation"
    kind = "access-policy"
    known = frozenset({"clusterName", "principalArn", "policyArn", "accessScope", "region"})
    computed = ("associatedAt", "modifiedAt")

    def calls(self, inputs: Values) -> Iterator[Call]:
        yield "eks", "AssociateAccessPolicy", {key: value for key, value in inputs.items() if key != "region"}

    def enter(self, account: Account, inputs: Values) -> Entry:
        operation = "EKS: AssociateAccessPolicy"
        cluster = _active_cluster(account, operation, inputs["clusterName"])
        key = f"{cluster.name}:{inputs['principalArn']}"
        require(account, operation, "ResourceNotFoundException", "access-entry", key)
        return account.add(Entry(f"{key}#{inputs['policyArn']}", self.kind, key, {"cluster": [cluster.id], "entry": [key]}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {}


class Addon(Kind):
    token = "aws:eks/addon:Addon"
    kind = "addon"
    known = frozenset(
        {
            "addonName",
            "clusterName",
            "configurationValues",
            "podIdentityAssociations",
            "resolveConflictsOnCreate",
            "resolveConflictsOnUpdate",
            "tags",
            "region",
        }
    )
    computed = ("arn", "addonVersion", "createdAt", "modifiedAt")
    half_made_on_failure = True

    def calls(self, inputs: Values) -> Iterator[Call]:
        names = {
            "addonName": "addonName",
            "clusterName": "clusterName",
            "configurationValues": "configurationValues",
            "podIdentityAssociations": "podIdentityAssociations",
            "resolveConflictsOnCreate": "resolveConflicts",
            "tags": "tags",
        }
        yield "eks", "CreateAddon", {api: inputs[name] for name, api in names.items() if name in inputs}
        yield (
            "eks",
            "UpdateAddon",
            present(
                {
                    "clusterName": inputs.get("clusterName"),
                    "addonName": inputs.get("addonName"),
                    "resolveConflicts": inputs.get("resolveConflictsOnUpdate"),
                }
            ),
        )

    def enter(self, account: Account, inputs: Values) -> Entry:
        operation, name = "EKS: CreateAddon", inputs["addonName"]
        cluster = _active_cluster(account, operation, inputs["clusterName"])
        if name not in ADDONS:
            raise AwsError(operation, "InvalidParameterException", f"Addon {name} specified is not supported")
        key = f"{cluster.name}:{name}"
        if account.find(self.kind, key):
            raise AwsError(operation, "ResourceInUseException", f"Addon {name} already exists.")
        if (text := inputs.get("configurationValues")) is not None:
            try:
                json.loads(text)
            except ValueError:
                raise AwsError(operation, "InvalidParameterException", "ConfigurationValue is not JSON") from None
        roles = []
        for association in inputs.get("podIdentityAssociations") or []:
            roles.append(role_by_arn(account, operation, association["roleArn"], "pods.eks.amazonaws.com").id)
        if roles and not account.find(self.kind, f"{cluster.name}:eks-pod-identity-agent"):
            raise AwsError(operation, "InvalidRequestException", "Pod Identity needs the add-on eks-pod-identity-agent")
        return account.add(Entry(key, self.kind, name, {"cluster": [cluster.id], "role": roles}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        if entry.name in _ON_NODES and not _nodes(account, entry.ref("cluster")):
            raise AwsError(
                "EKS: CreateAddon",
                "InsufficientNumberOfReplicas",
                f"timeout while waiting for state to become 'ACTIVE' (last state: 'DEGRADED'): {entry.name} has no node to run on",
            )
        return {"arn": account.arn("eks", f"addon/{entry.ref('cluster')}/{entry.name}"), "addonVersion": "v0.0.0-standin.1"}


class LaunchTemplate(Kind):
    token = "aws:ec2/launchTemplate:LaunchTemplate"
    kind = "launch-template"
    known = frozenset(
        {
            "name",
            "namePrefix",
            "updateDefaultVersion",
            "blockDeviceMappings",
            "metadataOptions",
            "tagSpecifications",
            "userData",
            "tags",
            "region",
        }
    )
    computed = ("arn", "latestVersion", "defaultVersion")

    def named(self, inputs: Values) -> Values:
        if "name" in inputs or inputs.get("namePrefix") in (None, UNKNOWN):
            return inputs
        return {**inputs, "name": new_name(inputs["namePrefix"])}

    def calls(self, inputs: Values) -> Iterator[Call]:
        data = present(
            {
                "BlockDeviceMappings": [_device(found) for found in inputs.get("blockDeviceMappings") or []],
                "MetadataOptions": renamed(inputs.get("metadataOptions")),
                "TagSpecifications": [
                    {
                        "ResourceType": found.get("resourceType"),
                        "Tags": [{"Key": key, "Value": text} for key, text in (found.get("tags") or {}).items()],
                    }
                    for found in inputs.get("tagSpecifications") or []
                ],
                "UserData": inputs.get("userData"),
            }
        )
        yield (
            "ec2",
            "CreateLaunchTemplate",
            present(
                {
                    "LaunchTemplateName": inputs.get("name"),
                    "LaunchTemplateData": data,
                    "TagSpecifications": ec2_tags("launch-template", inputs),
                }
            ),
        )
        if isinstance(text := inputs.get("userData"), str):
            _check_user_data(text)

    def enter(self, account: Account, inputs: Values) -> Entry:
        name = inputs["name"]
        if account.find(self.kind, name):
            raise AwsError(
                "EC2: CreateLaunchTemplate",
                "InvalidLaunchTemplateName.AlreadyExistsException",
                f"Launch template name already in use: {name}",
            )
        for device in inputs.get("blockDeviceMappings") or []:
            disk = device["ebs"]
            rate, iops = disk.get("throughput", 125), disk.get("iops", 3000)
            if disk.get("volumeType") == "gp3" and rate > iops / 4:
                raise AwsError(
                    "EC2: CreateLaunchTemplate",
                    "InvalidParameterCombination",
                    f"{rate} MiB/s need {4 * rate} IOPS, and {iops} are set",
                )
        return account.add(Entry(new_id("lt"), self.kind, name, data={"version": 1}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        version = entry.data["version"]
        return {"arn": account.arn("ec2", f"launch-template/{entry.id}"), "latestVersion": version, "defaultVersion": version}

    def update(self, account: Account, entry: Entry, inputs: Values) -> Values:  # noqa: ARG002
        entry.data["version"] += 1
        return {"latestVersion": entry.data["version"], "defaultVersion": entry.data["version"]}


class NodeGroup(Kind):
    token = "aws:eks/nodeGroup:NodeGroup"
    kind = "nodegroup"
    known = frozenset(
        {
            "clusterName",
            "nodeGroupName",
            "nodeGroupNamePrefix",
            "nodeRoleArn",
            "subnetIds",
            "amiType",
            "capacityType",
            "instanceTypes",
            "releaseVersion",
            "launchTemplate",
            "scalingConfig",
            "updateConfig",
            "labels",
            "taints",
            "tags",
            "region",
        }
    )
    computed = ("arn", "status", "resources")
    half_made_on_failure = True
    fault = (
        "AsgInstanceLaunchFailures",
        "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity than your current vCPU "
        "limit of 0 allows for the instance bucket that the specified instance type belongs to.",
    )

    def named(self, inputs: Values) -> Values:
        if "nodeGroupName" in inputs or inputs.get("nodeGroupNamePrefix") in (None, UNKNOWN):
            return inputs
        return {**inputs, "nodeGroupName": new_name(inputs["nodeGroupNamePrefix"])}

    def calls(self, inputs: Values) -> Iterator[Call]:
        names = {
            "clusterName": "clusterName",
            "nodeGroupName": "nodegroupName",
            "nodeRoleArn": "nodeRole",
            "subnetIds": "subnets",
            "amiType": "amiType",
            "capacityType": "capacityType",
            "instanceTypes": "instanceTypes",
            "releaseVersion": "releaseVersion",
            "launchTemplate": "launchTemplate",
            "scalingConfig": "scalingConfig",
            "updateConfig": "updateConfig",
            "labels": "labels",
            "taints": "taints",
            "tags": "tags",
        }
        yield "eks", "CreateNodegroup", {api: inputs[name] for name, api in names.items() if name in inputs}

    def enter(self, account: Account, inputs: Values) -> Entry:
        operation, name = "EKS: CreateNodegroup", inputs["nodeGroupName"]
        cluster = _active_cluster(account, operation, inputs["clusterName"])
        key = f"{cluster.name}:{name}"
        if account.find(self.kind, key):
            raise AwsError(
                operation, "ResourceInUseException", f"NodeGroup already exists with name {name} and cluster name {cluster.name}"
            )
        role = role_by_arn(account, operation, inputs["nodeRoleArn"], "ec2.amazonaws.com")
        subnets = [require(account, operation, "InvalidParameterException", "subnet", found).id for found in inputs["subnetIds"]]
        template = require(
            account, operation, "InvalidParameterException", "launch-template", (inputs.get("launchTemplate") or {}).get("id")
        )
        scaling = inputs["scalingConfig"]
        if not scaling["minSize"] <= scaling["desiredSize"] <= scaling["maxSize"]:
            raise AwsError(
                operation, "InvalidParameterException", f"desired size must lie between the smallest and the largest: {scaling}"
            )
        refs = {"cluster": [cluster.id], "subnet": subnets, "role": [role.id], "template": [template.id]}
        return account.add(Entry(key, self.kind, name, refs, {"desired": scaling["desiredSize"]}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        operation = "EKS: CreateNodegroup"
        if reason := self._cannot_join(account, entry, inputs):
            raise AwsError(operation, "NodeCreationFailure", f"Instances failed to join the kubernetes cluster: {reason}")
        stock = Stock(account, inputs["instanceTypes"][0])
        subnets = stock.subnets(entry.refs["subnet"])
        entry.data["zones"] = [account.entries[subnet].data["zone"] for subnet in subnets]
        for index in range(entry.data["desired"]):
            stock.take()
            subnet = subnets[index % len(subnets)]
            instance = account.add(
                Entry(
                    new_id("i"),
                    "instance",
                    inputs["instanceTypes"][0],
                    {"subnet": [subnet], "of": [entry.id]},
                    status="ACTIVE",
                    ours=False,
                )
            )
            account.add(
                Entry(
                    new_id("eni"),
                    "network-interface",
                    "aws-K8S",
                    {"subnet": [subnet], "of": [entry.id, instance.id]},
                    status="ACTIVE",
                    ours=False,
                )
            )
        return {"arn": account.arn("eks", f"nodegroup/{entry.ref('cluster')}/{entry.name}/{entry.name}"), "status": "ACTIVE"}

    def _cannot_join(self, account: Account, entry: Entry, inputs: Values) -> str | None:
        """What keeps an instance out of the cluster, as far as the account shows it."""
        if not entry.data["desired"]:
            return None
        cluster = entry.ref("cluster")
        if not account.find("addon", f"{cluster}:vpc-cni"):
            return "the add-on vpc-cni is not there, so no node gets ready"
        held = {found.name for found in account.users(entry.ref("role"), "role-policy")}
        if missing := set(_NODE_POLICIES) - held:
            return f"the node role {inputs['nodeRoleArn']} lacks {', '.join(sorted(missing))}"
        for subnet in entry.refs["subnet"]:
            tables = [found.ref("table") for found in account.users(subnet, "route-table-association")]
            ways = [way for table in tables for way in account.entries[table].refs["to"] if way in account.entries]
            if not ways:
                return f"the subnet {subnet} has no route to the internet"
        return None

    def outside(self, entry: Entry, inputs: Values, bridge: Bridge) -> None:
        bridge.join(entry, inputs)

    def update(self, account: Account, entry: Entry, inputs: Values) -> Values:  # noqa: ARG002
        entry.data["desired"] = inputs["scalingConfig"]["desiredSize"]
        return {}

    def leave(self, entry: Entry, bridge: Bridge) -> None:
        bridge.part(entry)

    def gone(self, account: Account, entry: Entry) -> None:
        for found in account.users(entry.id):
            if self._lingers(account, found):
                # Twenty minutes and more: longer than a delete waits for it.
                data = {"cluster": entry.ref("cluster")}
                account.linger(Entry(found.id, found.kind, found.name, {"subnet": found.refs["subnet"]}, data), math.inf)
                continue
            # The CNI's interfaces are removed by the CNI, which has to be there.
            if found.kind != "network-interface" or account.find("addon", f"{entry.ref('cluster')}:vpc-cni"):
                account.remove(found.id)
        account.remove(entry.id)

    @staticmethod
    def _lingers(account: Account, found: Entry) -> bool:
        """One interface of the account: with several, a destroy would be refused in as many places at once."""
        others = [other for other in account.of("network-interface") if "until" in other.data]
        return Switch.INTERFACES in account.switches and found.kind == "network-interface" and not others


def _active_cluster(account: Account, operation: str, name: Any) -> Entry:
    cluster = require(account, operation, "ResourceNotFoundException", "cluster", name)
    if cluster.status != "ACTIVE":
        raise AwsError(operation, "ResourceInUseException", f"Cluster {name} is {cluster.status}, not ACTIVE")
    return cluster


def _nodes(account: Account, cluster: str) -> list[Entry]:
    groups = [found for found in account.of("nodegroup") if found.ref("cluster") == cluster and found.status == "ACTIVE"]
    return [node for group in groups for node in account.users(group.id, "instance")]


def _device(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The official provider takes these two booleans as texts."""
    disk = dict(mapping.get("ebs") or {})
    for name in ("encrypted", "deleteOnTermination"):
        if name in disk:
            if disk[name] not in ("true", "false"):
                raise ValueError(f"blockDeviceMappings.ebs.{name} must be the text 'true' or 'false', not {disk[name]!r}")
            disk[name] = disk[name] == "true"
    return renamed({**mapping, "ebs": disk})  # type: ignore[no-any-return]


def _check_user_data(text: str) -> None:
    """EKS merges user data only if it is multipart, and nodeadm reads only its own kind of part. Raises ValueError."""
    try:
        message = email.message_from_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        raise ValueError("userData must be base64") from None
    parts = [part for part in message.walk() if part.get_content_type() == "application/node.eks.aws"]
    if not message.is_multipart() or not parts:
        raise ValueError("userData must be a MIME multipart document with a part of type application/node.eks.aws")
    for part in parts:
        document = yaml.safe_load(str(part.get_payload()))
        if document.get("kind") != "NodeConfig" or document.get("apiVersion") != "node.eks.aws/v1alpha1":
            raise ValueError("userData: the part for nodeadm must be a NodeConfig of node.eks.aws/v1alpha1")


CLUSTER: tuple[Kind, ...] = (
    Cluster(),
    AccessEntry(),
    AccessPolicyAssociation(),
    Addon(),
    LaunchTemplate(),
    NodeGroup(),
)
