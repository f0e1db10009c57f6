"""The EKS control plane: one that the stack makes, or one that exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws import eks, vpc

from components.aws.service_role import ServiceRole, ServiceRoleArgs
from components.aws.tags import name_tag
from mistral_on_l4.config.names import STACK_TAG
from mistral_on_l4.config.settings import ClusterSettings

# Addresses that nobody has on the internet (RFC 1918): anyone who comes from them has a way into the network already.
PRIVATE_RANGES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
ADMIN_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"


@dataclass(frozen=True)
class ClusterArgs:
    """subnet_ids: private ones in two zones or more; inside: the network holds machines that are not the cluster's nodes."""

    settings: ClusterSettings
    cluster_name: str
    subnet_ids: Sequence[pulumi.Input[str]]
    inside: bool = False


class Cluster(pulumi.ComponentResource):
    """A control plane, and how it is reached. It goes before what it depends on, such as its network.

    cluster_name: known in a preview; name: the same once the cluster exists, for what is made in it; endpoint; ca: base64 of
    its certificate authority; identity: another one for a new cluster of the same name; ready: access and control plane.
    """

    cluster_name: str
    version: str
    name: pulumi.Input[str]
    endpoint: pulumi.Input[str]
    ca: pulumi.Input[str]
    identity: pulumi.Input[str]
    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:aws:Cluster", name, None, opts)
        self._name = name
        cluster = self._control_plane(args)
        self.cluster_name, self.version = args.cluster_name, args.settings.version
        self.name, self.endpoint = cluster.name, cluster.endpoint
        # A cluster that is still coming up has none.
        self.ca = cluster.certificate_authority.apply(lambda authority: (authority.data if authority else None) or "")
        self.identity = pulumi.Output.concat(cluster.arn, "@", cluster.created_at)
        self.ready = [cluster, *self._administrators(cluster, args.settings.admin_principal_arns)]
        if args.inside or not args.settings.public_access_cidrs:
            self.ready += self._reachable_inside(cluster, args.cluster_name)
        self.register_outputs({"name": self.name, "endpoint": self.endpoint})

    def _control_plane(self, args: ClusterArgs) -> eks.Cluster:
        role = ServiceRole(
            f"{self._name}-control-plane",
            ServiceRoleArgs(args.cluster_name, "eks", "eks.amazonaws.com", ["AmazonEKSClusterPolicy"]),
            pulumi.ResourceOptions(parent=self),
        )
        public = list(args.settings.public_access_cidrs)
        return eks.Cluster(
            f"{self._name}-cluster",
            name=args.cluster_name,
            version=args.settings.version,
            role_arn=role.arn,
            # No self-managed copies of what the add-ons bring; changing this later replaces the cluster.
            bootstrap_self_managed_addons=False,
            access_config={"authentication_mode": "API", "bootstrap_cluster_creator_admin_permissions": True},
            upgrade_policy={"support_type": "STANDARD"},
            # No control plane logs: EKS writes them once more after deletion, into a new group that nobody removes.
            vpc_config={
                "subnet_ids": list(args.subnet_ids),
                "endpoint_private_access": True,
                "endpoint_public_access": bool(public),
                "public_access_cidrs": public or None,
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                # Without its policies EKS could not take its network interfaces and security group away again.
                depends_on=role.ready,
                custom_timeouts=pulumi.CustomTimeouts(create="30m", delete="30m"),
            ),
        )

    def _administrators(self, cluster: eks.Cluster, principal_arns: Sequence[str]) -> list[pulumi.Resource]:
        """Access for whoever the settings name beside the cluster's creator."""
        policies: list[pulumi.Resource] = []
        for index, principal in enumerate(principal_arns):
            child = pulumi.ResourceOptions(parent=self)
            entry = eks.AccessEntry(f"{self._name}-admin-{index}", cluster_name=cluster.name, principal_arn=principal, opts=child)
            policies.append(
                eks.AccessPolicyAssociation(
                    f"{self._name}-admin-{index}",
                    cluster_name=cluster.name,
                    principal_arn=entry.principal_arn,
                    policy_arn=ADMIN_POLICY,
                    access_scope={"type": "cluster"},
                    opts=child,
                )
            )
        return policies

    def _reachable_inside(self, cluster: eks.Cluster, cluster_name: str) -> list[pulumi.Resource]:
        """EKS lets the cluster's own nodes alone to the private endpoint, and inside its network no other answers to its name."""
        return [
            vpc.SecurityGroupIngressRule(
                f"{self._name}-inside-{cidr.partition('/')[0]}",
                security_group_id=cluster.vpc_config.apply(lambda config: config.cluster_security_group_id),
                cidr_ipv4=cidr,
                ip_protocol="tcp",
                from_port=443,
                to_port=443,
                description="API server, from inside",
                tags=name_tag(f"{cluster_name}-inside"),
                opts=pulumi.ResourceOptions(parent=self),
            )
            for cidr in PRIVATE_RANGES
        ]


@dataclass(frozen=True)
class AdoptedCluster:
    """A cluster that exists: reached in the same way. subnet_ids: where it has its network interfaces, in vpc."""

    cluster_name: str
    endpoint: str
    ca: str
    identity: str
    subnet_ids: Sequence[str]
    vpc: str
    version: str

    @property
    def name(self) -> str:
        return self.cluster_name

    @property
    def ready(self) -> list[pulumi.Resource]:
        return []


def adopt(cluster_name: str, region: str, ask: pulumi.InvokeOptions) -> AdoptedCluster:
    """Looks an existing cluster up. Raises pulumi.RunError if there is none, or if it is not working."""
    if cluster_name not in (names := eks.get_clusters(opts=ask).names):
        raise pulumi.RunError(
            f"there is no EKS cluster {cluster_name!r} in {region} (there are: {', '.join(sorted(names)) or 'none'}): correct "
            "mistral-on-l4:cluster.name, or set cluster.existing to false to have it made"
        )
    known = eks.get_cluster(name=cluster_name, opts=ask)
    if known.status != "ACTIVE":
        raise pulumi.RunError(f"EKS cluster {cluster_name!r} is {known.status}, not ACTIVE: wait, or look at it in the console")
    return AdoptedCluster(
        cluster_name,
        known.endpoint,
        known.certificate_authorities[0].data,
        f"{known.arn}@{known.created_at}",
        tuple(known.vpc_config.subnet_ids),
        known.vpc_config.vpc_id,
        known.version,
    )


def refuse_foreign_cluster(cluster_name: str, region: str, stack: str, ask: pulumi.InvokeOptions) -> bool:
    """Whether the stack's cluster is there. Says at preview that its name is taken, by one that another stack or a person made."""
    if cluster_name not in eks.get_clusters(opts=ask).names:
        return False
    owner = (eks.get_cluster(name=cluster_name, opts=ask).tags or {}).get(STACK_TAG)
    if owner != stack:
        whose = f"belongs to stack {owner!r}" if owner else "was not made by this project"
        raise pulumi.RunError(
            f"an EKS cluster {cluster_name!r} exists in {region} and {whose}: choose another name (mistral-on-l4:cluster.name), or "
            "adopt it (mistral-on-l4:cluster.existing: true)"
        )
    return True
