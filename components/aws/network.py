"""The VPC: public subnets for the NAT gateway, private ones for nodes, and a gateway endpoint that keeps S3 traffic off the NAT."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from components.aws import resources as aws
from components.aws.tags import named
from mistral_on_l4.config.settings import NetworkSettings

# Eight equal blocks of the VPC: one for each zone's private subnet, the last one cut again for the public subnets.
_BLOCKS = 3
_SMALLEST_VPC = 20


@dataclass(frozen=True)
class NetworkArgs:
    """zones: at least two; an existing VPC in `settings` is only looked up."""

    settings: NetworkSettings
    region: str
    zones: Sequence[str]
    tags: Mapping[str, str]


class Network(pulumi.ComponentResource):
    """Answers `subnets`, zone -> id of a private subnet, and `ready`, what a node needs to reach anything outside."""

    subnets: Mapping[str, pulumi.Input[str]]
    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:aws:Network", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        if args.settings.existing_vpc_id:
            vpc = args.settings.existing_vpc_id
            self.subnets, self.ready = existing_subnets(args.settings.existing_subnet_ids, args.region, vpc), []
        else:
            self.subnets, self.ready = self._make()
        self.register_outputs({"subnetIds": list(self.subnets.values())})

    def _make(self) -> tuple[dict[str, pulumi.Input[str]], list[pulumi.Resource]]:
        name, args, child = self._name, self._args, self._child
        blocks = subnet_blocks(args.settings.cidr, len(args.zones))
        vpc = aws.Vpc(
            f"{name}-vpc",
            cidr_block=args.settings.cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=named(args.tags, name),
            opts=child,
        )
        gateway = aws.InternetGateway(f"{name}-internet", vpc_id=vpc.id, tags=named(args.tags, name), opts=child)
        public_routes = aws.RouteTable(
            f"{name}-public",
            vpc_id=vpc.id,
            routes=[{"cidrBlock": "0.0.0.0/0", "gatewayId": gateway.id}],
            tags=named(args.tags, f"{name}-public"),
            opts=child,
        )
        nats: list[pulumi.CustomResource] = []
        subnets: dict[str, pulumi.Input[str]] = {}
        tables: list[pulumi.CustomResource] = []
        ready: list[pulumi.Resource] = []
        for index, (zone, (private, public)) in enumerate(zip(args.zones, blocks, strict=True)):
            if index == 0 or args.settings.nat_gateways == "one-per-zone":
                nats.append(self._nat(index, zone, public, vpc, public_routes, gateway))
            subnet = aws.Subnet(
                f"{name}-private-{index}",
                vpc_id=vpc.id,
                cidr_block=private,
                availability_zone=zone,
                tags={**named(args.tags, f"{name}-private-{zone}"), "kubernetes.io/role/internal-elb": "1"},
                opts=child,
            )
            if index < len(nats):
                tables.append(
                    aws.RouteTable(
                        f"{name}-private-{index}",
                        vpc_id=vpc.id,
                        routes=[{"cidrBlock": "0.0.0.0/0", "natGatewayId": nats[-1].id}],
                        tags=named(args.tags, f"{name}-private-{zone}"),
                        opts=child,
                    )
                )
            ready.append(
                aws.RouteTableAssociation(f"{name}-private-{index}", subnet_id=subnet.id, route_table_id=tables[-1].id, opts=child)
            )
            subnets[zone] = subnet.id
        ready.append(
            aws.VpcEndpoint(
                f"{name}-s3",
                vpc_id=vpc.id,
                service_name=f"com.amazonaws.{args.region}.s3",
                vpc_endpoint_type="Gateway",
                route_table_ids=[table.id for table in tables],
                tags=named(args.tags, f"{name}-s3"),
                opts=child,
            )
        )
        return subnets, ready

    def _nat(
        self,
        index: int,
        zone: str,
        block: str,
        vpc: pulumi.CustomResource,
        routes: pulumi.CustomResource,
        gateway: pulumi.CustomResource,
    ) -> pulumi.CustomResource:
        """A NAT gateway with its public subnet, which holds nothing else."""
        name, tags = self._name, named(self._args.tags, f"{self._name}-public-{zone}")
        subnet = aws.Subnet(
            f"{name}-public-{index}", vpc_id=vpc.id, cidr_block=block, availability_zone=zone, tags=tags, opts=self._child
        )
        routed = aws.RouteTableAssociation(
            f"{name}-public-{index}", subnet_id=subnet.id, route_table_id=routes.id, opts=self._child
        )
        # An address cannot be given back while the internet gateway that it is reached by is being taken away.
        after = pulumi.ResourceOptions(parent=self, depends_on=[gateway, routed])
        address = aws.Eip(f"{name}-nat-{index}", domain="vpc", tags=tags, opts=after)
        nat: pulumi.CustomResource = aws.NatGateway(
            f"{name}-nat-{index}", subnet_id=subnet.id, allocation_id=address.id, tags=tags, opts=after
        )
        return nat


def existing_subnets(ids: Sequence[str], region: str, vpc: str) -> dict[str, pulumi.Input[str]]:
    """Zone -> id of subnets that are there already. Raises pulumi.RunError if they lie elsewhere, or do not reach two zones."""
    subnets = {subnet: aws.lookup("aws:ec2/getSubnet:getSubnet", id=subnet, region=region) for subnet in ids}
    if elsewhere := [f"{subnet} in {found['vpcId']}" for subnet, found in subnets.items() if found.get("vpcId", vpc) != vpc]:
        raise pulumi.RunError(
            f"mistral-on-l4:network.existingSubnetIds: {', '.join(elsewhere)}, not in {vpc}: name subnets of one VPC"
        )
    zones = {found["availabilityZone"]: subnet for subnet, found in subnets.items()}
    if len(zones) < 2:
        raise pulumi.RunError(
            f"mistral-on-l4:network.existingSubnetIds names subnets in {len(zones)} zone ({', '.join(zones)}): EKS needs two"
        )
    return dict(sorted(zones.items()))


def subnet_blocks(cidr: str, zones: int) -> list[tuple[str, str]]:
    """(private, public) block for each zone. Raises pulumi.RunError if the VPC's block is none, or too small."""
    try:
        block = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise pulumi.RunError(f"mistral-on-l4:network.cidr: {error}") from None
    if not 16 <= block.prefixlen <= _SMALLEST_VPC:
        raise pulumi.RunError(f"mistral-on-l4:network.cidr: {cidr} must be a /16 (AWS's largest VPC) to a /{_SMALLEST_VPC}")
    *private, last = block.subnets(_BLOCKS)
    public = last.subnets(_BLOCKS)
    return [(str(inner), str(outer)) for inner, outer in zip(private[:zones], public, strict=False)]
