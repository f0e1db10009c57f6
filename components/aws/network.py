"""The VPC: public subnets for the NAT gateway, private ones for nodes, and a gateway endpoint that keeps S3 traffic off the NAT."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws import ec2

from components.aws.tags import name_tag
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


class Network(pulumi.ComponentResource):
    """`subnets`, zone -> id of a private subnet, and `ready`, what a node needs to reach anything outside."""

    subnets: Mapping[str, pulumi.Input[str]]
    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:aws:Network", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        if args.settings.existing_vpc_id:
            vpc = args.settings.existing_vpc_id
            ask = pulumi.InvokeOptions(parent=self)
            self.subnets, self.ready = existing_subnets(args.settings.existing_subnet_ids, vpc, ask), []
        else:
            self._blocks = subnet_blocks(args.settings.cidr, len(args.zones))
            self.subnets, self.ready = self._make()
        self.register_outputs({"subnetIds": list(self.subnets.values())})

    def _make(self) -> tuple[dict[str, pulumi.Input[str]], list[pulumi.Resource]]:
        """(zone -> private subnet, their ways out)."""
        name, args, child = self._name, self._args, self._child
        vpc = ec2.Vpc(
            f"{name}-vpc",
            cidr_block=args.settings.cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=name_tag(name),
            opts=child,
        )
        gateway = ec2.InternetGateway(f"{name}-internet", vpc_id=vpc.id, tags=name_tag(name), opts=child)
        public_routes = self._routes("public", vpc, f"{name}-public", gateway_id=gateway.id)
        subnets: dict[str, pulumi.Input[str]] = {}
        tables: list[ec2.RouteTable] = []
        ready: list[pulumi.Resource] = []
        for index, (zone, (private, public)) in enumerate(zip(args.zones, self._blocks, strict=True)):
            if index == 0 or args.settings.nat_gateways == "one-per-zone":
                nat = self._nat(index, zone, public, vpc, public_routes, gateway)
                tables.append(self._routes(f"private-{index}", vpc, f"{name}-private-{zone}", nat_gateway_id=nat.id))
            subnet = ec2.Subnet(
                f"{name}-private-{index}",
                vpc_id=vpc.id,
                cidr_block=private,
                availability_zone=zone,
                tags={**name_tag(f"{name}-private-{zone}"), "kubernetes.io/role/internal-elb": "1"},
                opts=child,
            )
            ready.append(
                ec2.RouteTableAssociation(f"{name}-private-{index}", subnet_id=subnet.id, route_table_id=tables[-1].id, opts=child)
            )
            subnets[zone] = subnet.id
        endpoint = ec2.VpcEndpoint(
            f"{name}-s3",
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in tables],
            tags=name_tag(f"{name}-s3"),
            opts=child,
        )
        return subnets, [*ready, endpoint]

    def _routes(
        self,
        role: str,
        vpc: ec2.Vpc,
        shown: str,
        gateway_id: pulumi.Input[str] | None = None,
        nat_gateway_id: pulumi.Input[str] | None = None,
    ) -> ec2.RouteTable:
        """A route table whose way to everywhere is the gateway. shown: its name in the console."""
        return ec2.RouteTable(
            f"{self._name}-{role}",
            vpc_id=vpc.id,
            routes=[{"cidr_block": "0.0.0.0/0", "gateway_id": gateway_id, "nat_gateway_id": nat_gateway_id}],
            tags=name_tag(shown),
            opts=self._child,
        )

    def _nat(
        self,
        index: int,
        zone: str,
        block: str,
        vpc: ec2.Vpc,
        routes: ec2.RouteTable,
        gateway: ec2.InternetGateway,
    ) -> ec2.NatGateway:
        """A NAT gateway with its public subnet, which holds nothing else."""
        name, tags = self._name, name_tag(f"{self._name}-public-{zone}")
        subnet = ec2.Subnet(
            f"{name}-public-{index}", vpc_id=vpc.id, cidr_block=block, availability_zone=zone, tags=tags, opts=self._child
        )
        routed = ec2.RouteTableAssociation(
            f"{name}-public-{index}", subnet_id=subnet.id, route_table_id=routes.id, opts=self._child
        )
        # An address cannot be given back while the internet gateway that it is reached by is being taken away.
        after = pulumi.ResourceOptions(parent=self, depends_on=[gateway, routed])
        address = ec2.Eip(f"{name}-nat-{index}", domain="vpc", tags=tags, opts=after)
        return ec2.NatGateway(f"{name}-nat-{index}", subnet_id=subnet.id, allocation_id=address.id, tags=tags, opts=after)


def existing_subnets(ids: Sequence[str], vpc: str, ask: pulumi.InvokeOptions) -> dict[str, pulumi.Input[str]]:
    """Zone -> id of subnets that are there already. Raises pulumi.RunError if they lie elsewhere, or do not reach two zones."""
    subnets = {subnet: ec2.get_subnet(id=subnet, opts=ask) for subnet in ids}
    if elsewhere := [f"{subnet} in {known.vpc_id}" for subnet, known in subnets.items() if known.vpc_id != vpc]:
        raise pulumi.RunError(
            f"mistral-on-l4:network.existingSubnetIds: {', '.join(elsewhere)}, not in {vpc}: name subnets of one VPC"
        )
    zones = {known.availability_zone: subnet for subnet, known in subnets.items()}
    if len(zones) < 2:
        raise pulumi.RunError(
            f"mistral-on-l4:network.existingSubnetIds names subnets in {len(zones)} zone ({', '.join(zones)}): EKS needs two"
        )
    return {**dict(sorted(zones.items()))}


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
