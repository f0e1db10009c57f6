"""VPC, subnets, gateways, routes, addresses and endpoints."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from embedded.plugins.aws.bridge import Bridge
from embedded.plugins.aws.faults import Switch
from embedded.plugins.aws.kinds.base import Kind, Values, ec2_tags, present, require
from embedded.plugins.aws.ledger import Account, AwsError, Entry, new_id
from embedded.plugins.aws.service_model import Call

_COMMON = frozenset({"tags", "region"})

# How long a NAT gateway that is gone holds its address, where the account is switched so: a minute or two, in small.
ADDRESS_SECONDS = 1.5


class Vpc(Kind):
    token = "aws:ec2/vpc:Vpc"
    kind = "vpc"
    known = _COMMON | {"cidrBlock", "enableDnsHostnames", "enableDnsSupport"}
    computed = ("arn", "ownerId", "defaultSecurityGroupId", "mainRouteTableId", "defaultRouteTableId")

    def calls(self, inputs: Values) -> Iterator[Call]:
        yield "ec2", "CreateVpc", present({"CidrBlock": inputs.get("cidrBlock"), "TagSpecifications": ec2_tags("vpc", inputs)})
        for name, attribute in (("enableDnsHostnames", "EnableDnsHostnames"), ("enableDnsSupport", "EnableDnsSupport")):
            if name in inputs:
                yield "ec2", "ModifyVpcAttribute", {"VpcId": "vpc-0", attribute: {"Value": inputs[name]}}

    def enter(self, account: Account, inputs: Values) -> Entry:
        vpc = account.add(Entry(new_id("vpc"), "vpc", "", data={"cidr": inputs["cidrBlock"]}))
        for kind, prefix in (("security-group", "sg"), ("route-table", "rtb")):
            account.add(Entry(new_id(prefix), kind, "default", {"vpc": [vpc.id]}, status="ACTIVE", ours=False))
        return vpc

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        made = {found.kind: found.id for found in account.users(entry.id) if not found.ours}
        return {
            "arn": account.arn("ec2", f"vpc/{entry.id}"),
            "ownerId": account.arn("", "").split(":")[4],
            "defaultSecurityGroupId": made["security-group"],
            "mainRouteTableId": made["route-table"],
            "defaultRouteTableId": made["route-table"],
        }

    def blockers(self, account: Account, entry: Entry) -> Sequence[Entry]:
        return [found for found in account.users(entry.id) if found.ours or found.name != "default"]

    def gone(self, account: Account, entry: Entry) -> None:
        for found in account.users(entry.id):
            account.remove(found.id)
        account.remove(entry.id)


class Subnet(Kind):
    token = "aws:ec2/subnet:Subnet"
    kind = "subnet"
    known = _COMMON | {"vpcId", "cidrBlock", "availabilityZone"}
    computed = ("arn", "availabilityZoneId", "ownerId")

    def calls(self, inputs: Values) -> Iterator[Call]:
        names = {"vpcId": "VpcId", "cidrBlock": "CidrBlock", "availabilityZone": "AvailabilityZone"}
        given = {api: inputs[name] for name, api in names.items() if name in inputs}
        yield "ec2", "CreateSubnet", {**given, "TagSpecifications": ec2_tags("subnet", inputs)}

    def enter(self, account: Account, inputs: Values) -> Entry:
        vpc = require(account, "EC2: CreateSubnet", "InvalidVpcID.NotFound", "vpc", inputs["vpcId"])
        block = ipaddress.ip_network(inputs["cidrBlock"])
        if not block.subnet_of(ipaddress.ip_network(vpc.data["cidr"])):  # type: ignore[arg-type]
            raise AwsError("EC2: CreateSubnet", "InvalidSubnet.Range", f"The CIDR '{block}' is invalid.")
        for other in account.users(vpc.id, "subnet"):
            if block.overlaps(ipaddress.ip_network(other.data["cidr"])):
                raise AwsError(
                    "EC2: CreateSubnet", "InvalidSubnet.Conflict", f"The CIDR '{block}' conflicts with another subnet ({other.id})"
                )
        data = {"cidr": str(block), "zone": inputs["availabilityZone"]}
        return account.add(Entry(new_id("subnet"), "subnet", "", {"vpc": [vpc.id]}, data))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {"arn": account.arn("ec2", f"subnet/{entry.id}"), "ownerId": account.arn("", "").split(":")[4]}

    def blockers(self, account: Account, entry: Entry) -> Sequence[Entry]:
        return account.users(entry.id, "network-interface", "nat-gateway", "instance")


class InternetGateway(Kind):
    token = "aws:ec2/internetGateway:InternetGateway"
    kind = "internet-gateway"
    known = _COMMON | {"vpcId"}
    computed = ("arn", "ownerId")

    def calls(self, inputs: Values) -> Iterator[Call]:
        yield "ec2", "CreateInternetGateway", {"TagSpecifications": ec2_tags("internet-gateway", inputs)}
        yield "ec2", "AttachInternetGateway", {"InternetGatewayId": "igw-0", "VpcId": inputs.get("vpcId")}

    def enter(self, account: Account, inputs: Values) -> Entry:
        vpc = require(account, "EC2: AttachInternetGateway", "InvalidVpcID.NotFound", "vpc", inputs["vpcId"])
        if other := account.users(vpc.id, "internet-gateway"):
            raise AwsError(
                "EC2: AttachInternetGateway",
                "InvalidParameterValue",
                f"Network {vpc.id} already has an internet gateway ({other[0].id})",
            )
        return account.add(Entry(new_id("igw"), self.kind, "", {"vpc": [vpc.id]}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {"arn": account.arn("ec2", f"internet-gateway/{entry.id}")}

    def blockers(self, account: Account, entry: Entry) -> Sequence[Entry]:
        """Public addresses that are reached through it: those of the network's NAT gateways."""
        subnets = {found.id for found in account.users(entry.ref("vpc"), "subnet")}
        nats = [nat for nat in account.of("nat-gateway") if nat.ref("subnet") in subnets]
        return [address for nat in nats if (address := account.find("eip", nat.ref("eip")))]

    def refusal(self, entry: Entry, blockers: Sequence[Entry]) -> AwsError:
        return AwsError(
            "EC2: DetachInternetGateway",
            "DependencyViolation",
            f"Network {entry.ref('vpc')} has some mapped public address(es). Please unmap those public address(es) before "
            f"detaching the gateway ({', '.join(found.id for found in blockers)})",
        )


class RouteTable(Kind):
    token = "aws:ec2/routeTable:RouteTable"
    kind = "route-table"
    known = _COMMON | {"vpcId", "routes"}
    computed = ("arn", "ownerId")

    def calls(self, inputs: Values) -> Iterator[Call]:
        yield (
            "ec2",
            "CreateRouteTable",
            present({"VpcId": inputs.get("vpcId"), "TagSpecifications": ec2_tags("route-table", inputs)}),
        )
        for route in inputs.get("routes") or []:
            unknown = set(route) - {"cidrBlock", "gatewayId", "natGatewayId"}
            if unknown:
                raise ValueError(f"routes: the stand-in does not know {', '.join(sorted(unknown))}")
            yield (
                "ec2",
                "CreateRoute",
                present(
                    {
                        "RouteTableId": "rtb-0",
                        "DestinationCidrBlock": route.get("cidrBlock"),
                        "GatewayId": route.get("gatewayId"),
                        "NatGatewayId": route.get("natGatewayId"),
                    }
                ),
            )

    def enter(self, account: Account, inputs: Values) -> Entry:
        vpc = require(account, "EC2: CreateRouteTable", "InvalidVpcID.NotFound", "vpc", inputs["vpcId"])
        refs: dict[str, list[str]] = {"vpc": [vpc.id], "to": []}
        for route in inputs.get("routes") or []:
            if gateway := route.get("gatewayId"):
                refs["to"].append(
                    require(account, "EC2: CreateRoute", "InvalidInternetGatewayID.NotFound", "internet-gateway", gateway).id
                )
            if nat := route.get("natGatewayId"):
                refs["to"].append(require(account, "EC2: CreateRoute", "NatGatewayNotFound", "nat-gateway", nat).id)
        return account.add(Entry(new_id("rtb"), self.kind, "", refs))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {"arn": account.arn("ec2", f"route-table/{entry.id}")}

    def blockers(self, account: Account, entry: Entry) -> Sequence[Entry]:
        return account.users(entry.id, "route-table-association")


class RouteTableAssociation(Kind):
    token = "aws:ec2/routeTableAssociation:RouteTableAssociation"
    kind = "route-table-association"
    known = frozenset({"subnetId", "routeTableId", "region"})

    def calls(self, inputs: Values) -> Iterator[Call]:
        yield (
            "ec2",
            "AssociateRouteTable",
            present({"RouteTableId": inputs.get("routeTableId"), "SubnetId": inputs.get("subnetId")}),
        )

    def enter(self, account: Account, inputs: Values) -> Entry:
        operation = "EC2: AssociateRouteTable"
        table = require(account, operation, "InvalidRouteTableID.NotFound", "route-table", inputs["routeTableId"])
        subnet = require(account, operation, "InvalidSubnetID.NotFound", "subnet", inputs["subnetId"])
        if other := account.users(subnet.id, self.kind):
            raise AwsError(
                operation, "Resource.AlreadyAssociated", f"the subnet {subnet.id} has an association already ({other[0].id})"
            )
        return account.add(Entry(new_id("rtbassoc"), self.kind, "", {"table": [table.id], "subnet": [subnet.id]}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {}


class Eip(Kind):
    token = "aws:ec2/eip:Eip"
    kind = "eip"
    known = _COMMON | {"domain"}
    computed = ("allocationId", "arn", "publicIp", "privateIp", "publicDns")

    def calls(self, inputs: Values) -> Iterator[Call]:
        yield (
            "ec2",
            "AllocateAddress",
            present({"Domain": inputs.get("domain"), "TagSpecifications": ec2_tags("elastic-ip", inputs)}),
        )

    def enter(self, account: Account, inputs: Values) -> Entry:  # noqa: ARG002
        return account.add(Entry(new_id("eipalloc"), self.kind, ""))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        # 198.51.100.0/24 is for documentation (RFC 5737): nobody's address.
        address = f"198.51.100.{1 + len(account.of('eip')) % 254}"
        return {"allocationId": entry.id, "arn": account.arn("ec2", f"elastic-ip/{entry.id}"), "publicIp": address}

    def blockers(self, account: Account, entry: Entry) -> Sequence[Entry]:
        return account.users(entry.id, "nat-gateway", "network-interface")

    def refusal(self, entry: Entry, blockers: Sequence[Entry]) -> AwsError:
        return AwsError("EC2: ReleaseAddress", "InvalidIPAddress.InUse", f"Address {entry.id} is in use ({blockers[0].id}).")


class NatGateway(Kind):
    token = "aws:ec2/natGateway:NatGateway"
    kind = "nat-gateway"
    known = _COMMON | {"subnetId", "allocationId"}
    computed = ("publicIp", "privateIp", "networkInterfaceId", "associationId")
    half_made_on_failure = True

    def calls(self, inputs: Values) -> Iterator[Call]:
        given = present({"SubnetId": inputs.get("subnetId"), "AllocationId": inputs.get("allocationId")})
        yield "ec2", "CreateNatGateway", {**given, "TagSpecifications": ec2_tags("natgateway", inputs)}

    def enter(self, account: Account, inputs: Values) -> Entry:
        operation = "EC2: CreateNatGateway"
        subnet = require(account, operation, "InvalidSubnetID.NotFound", "subnet", inputs["subnetId"])
        address = require(account, operation, "InvalidAllocationID.NotFound", "eip", inputs["allocationId"])
        if other := account.users(address.id, self.kind):
            raise AwsError(operation, "InvalidParameterValue", f"the address {address.id} is in use ({other[0].id})")
        if not account.users(subnet.ref("vpc"), "internet-gateway"):
            raise AwsError(operation, "Gateway.NotAttached", f"Network {subnet.ref('vpc')} has no Internet gateway attached")
        return account.add(Entry(new_id("nat"), self.kind, "", {"subnet": [subnet.id], "eip": [address.id]}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {"networkInterfaceId": new_id("eni")}

    def gone(self, account: Account, entry: Entry) -> None:
        account.remove(entry.id)
        if Switch.ADDRESS in account.switches:
            name = f"Interface for NAT Gateway {entry.id}"
            refs = {"subnet": entry.refs["subnet"], "eip": entry.refs["eip"]}
            account.linger(Entry(new_id("eni"), "network-interface", name, refs), ADDRESS_SECONDS)


class VpcEndpoint(Kind):
    token = "aws:ec2/vpcEndpoint:VpcEndpoint"
    kind = "vpc-endpoint"
    known = _COMMON | {"vpcId", "serviceName", "vpcEndpointType", "routeTableIds"}
    computed = ("arn", "state", "prefixListId", "ownerId")

    def calls(self, inputs: Values) -> Iterator[Call]:
        names = {
            "vpcId": "VpcId",
            "serviceName": "ServiceName",
            "vpcEndpointType": "VpcEndpointType",
            "routeTableIds": "RouteTableIds",
        }
        given: dict[str, Any] = {api: inputs[name] for name, api in names.items() if name in inputs}
        yield "ec2", "CreateVpcEndpoint", {**given, "TagSpecifications": ec2_tags("vpc-endpoint", inputs)}

    def enter(self, account: Account, inputs: Values) -> Entry:
        operation = "EC2: CreateVpcEndpoint"
        vpc = require(account, operation, "InvalidVpcId.NotFound", "vpc", inputs["vpcId"])
        service = f"com.amazonaws.{account.region}."
        if not str(inputs["serviceName"]).startswith(service):
            raise AwsError(
                operation,
                "InvalidServiceName",
                f"The Vpc Endpoint Service '{inputs['serviceName']}' does not exist in {account.region}",
            )
        tables = [
            require(account, operation, "InvalidRouteTableId.NotFound", "route-table", found).id
            for found in inputs["routeTableIds"]
        ]
        return account.add(Entry(new_id("vpce"), self.kind, "", {"vpc": [vpc.id], "table": tables}))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {"arn": account.arn("ec2", f"vpc-endpoint/{entry.id}"), "state": "available"}


class SecurityGroupIngressRule(Kind):
    token = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    kind = "security-group-rule"
    known = _COMMON | {"securityGroupId", "cidrIpv4", "ipProtocol", "fromPort", "toPort", "description"}
    computed = ("arn", "securityGroupRuleId")

    def calls(self, inputs: Values) -> Iterator[Call]:
        source = present({"CidrIp": inputs.get("cidrIpv4"), "Description": inputs.get("description")})
        names = {"ipProtocol": "IpProtocol", "fromPort": "FromPort", "toPort": "ToPort"}
        permission = {**{api: inputs[name] for name, api in names.items() if name in inputs}, "IpRanges": [source]}
        given = present({"GroupId": inputs.get("securityGroupId"), "IpPermissions": [permission]})
        yield "ec2", "AuthorizeSecurityGroupIngress", {**given, "TagSpecifications": ec2_tags("security-group-rule", inputs)}

    def enter(self, account: Account, inputs: Values) -> Entry:
        operation = "EC2: AuthorizeSecurityGroupIngress"
        group = require(account, operation, "InvalidGroup.NotFound", "security-group", inputs.get("securityGroupId"))
        data = {key: inputs.get(key) for key in ("cidrIpv4", "ipProtocol", "fromPort", "toPort")}
        if other := [found for found in account.users(group.id, self.kind) if data.items() <= found.data.items()]:
            raise AwsError(operation, "InvalidPermission.Duplicate", f"the specified rule already exists ({other[0].id})")
        return account.add(Entry(new_id("sgr"), self.kind, "", {"group": [group.id]}, data))

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:  # noqa: ARG002
        return {"arn": account.arn("ec2", f"security-group-rule/{entry.id}"), "securityGroupRuleId": entry.id}


NETWORK: tuple[Kind, ...] = (
    Vpc(),
    Subnet(),
    InternetGateway(),
    RouteTable(),
    RouteTableAssociation(),
    Eip(),
    NatGateway(),
    VpcEndpoint(),
    SecurityGroupIngressRule(),
)
