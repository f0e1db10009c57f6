"""The EKS control plane, or the answers of one that exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.aws.resources import AccessEntry, AccessPolicyAssociation, EksCluster, SecurityGroupIngressRule, lookup
from components.aws.service_role import ServiceRole, ServiceRoleArgs
from components.aws.tags import named
from mistral_on_l4.config.names import STACK_TAG
from mistral_on_l4.config.settings import ClusterSettings

# Addresses that nobody has on the internet (RFC 1918): whoever comes from them has a way into the network already.
PRIVATE_RANGES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
ADMIN_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"


@dataclass(frozen=True)
class ClusterArgs:
    """subnet_ids: private ones in two zones or more; inside: the network holds machines that are not the cluster's nodes."""

    settings: ClusterSettings
    cluster_name: str
    subnet_ids: Sequence[pulumi.Input[str]]
    tags: Mapping[str, str]
    inside: bool = False


class Cluster(pulumi.ComponentResource):
    """Answers how the control plane is reached.

    cluster_name: known in a preview; name: the same once the cluster exists, for what is made in it; endpoint; ca: base64 of
    its certificate authority; identity: another one for a new cluster of the same name; ready: access and control plane.
    """

    cluster_name: str
    name: pulumi.Input[str]
    endpoint: pulumi.Input[str]
    ca: pulumi.Input[str]
    identity: pulumi.Input[str]
    ready: list[pulumi.Resource]

    def __init__(
        self, name: str, args: ClusterArgs, depends_on: Sequence[pulumi.Resource], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("mistral-on-l4:aws:Cluster", name, None, opts)
        self.cluster_name = args.cluster_name
        settings, child = args.settings, pulumi.ResourceOptions(parent=self)
        role = ServiceRole(
            f"{name}-control-plane",
            ServiceRoleArgs(args.cluster_name, "eks", "eks.amazonaws.com", ["AmazonEKSClusterPolicy"], args.tags),
            child,
        )
        public = bool(settings.public_access_cidrs)
        cluster = EksCluster(
            f"{name}-cluster",
            name=args.cluster_name,
            version=settings.version,
            role_arn=role.arn,
            # No self-managed copies of what the add-ons bring; changing this later replaces the cluster.
            bootstrap_self_managed_addons=False,
            access_config={"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": True},
            upgrade_policy={"supportType": "STANDARD"},
            # No control plane logs: EKS writes them once more after deletion, into a new group that nobody removes.
            vpc_config={
                "subnetIds": list(args.subnet_ids),
                "endpointPrivateAccess": True,
                "endpointPublicAccess": public,
                **({"publicAccessCidrs": list(settings.public_access_cidrs)} if public else {}),
            },
            tags=dict(args.tags),
            opts=pulumi.ResourceOptions(
                parent=self,
                # Without its policies EKS could not take its network interfaces and security group away again.
                depends_on=[*role.ready, *depends_on],
                custom_timeouts=pulumi.CustomTimeouts(create="30m", delete="30m"),
            ),
        )
        self.name, self.endpoint = cluster.name, cluster.endpoint
        authority: pulumi.Output[Any] = cluster.certificate_authority.apply(lambda found: found["data"] if found else None)
        self.ca = authority
        self.identity = pulumi.Output.concat(cluster.arn, "@", cluster.created_at)
        self.ready = [cluster]
        if args.inside or not public:
            self.ready += self._reachable_inside(name, cluster, args)
        for index, principal in enumerate(settings.admin_principal_arns):
            entry = AccessEntry(
                f"{name}-admin-{index}", cluster_name=cluster.name, principal_arn=principal, tags=dict(args.tags), opts=child
            )
            self.ready.append(
                AccessPolicyAssociation(
                    f"{name}-admin-{index}",
                    cluster_name=cluster.name,
                    principal_arn=entry.principal_arn,
                    policy_arn=ADMIN_POLICY,
                    access_scope={"type": "cluster"},
                    opts=child,
                )
            )
        self.register_outputs({"name": self.name, "endpoint": self.endpoint})

    def _reachable_inside(self, name: str, cluster: EksCluster, args: ClusterArgs) -> list[pulumi.Resource]:
        """EKS lets the cluster's own nodes alone to the private endpoint, and inside its network no other answers to its name."""
        config: pulumi.Output[Any] = cluster.vpc_config
        return [
            SecurityGroupIngressRule(
                f"{name}-inside-{cidr.partition('/')[0]}",
                security_group_id=config.apply(lambda found: found.get("clusterSecurityGroupId")),
                cidr_ipv4=cidr,
                ip_protocol="tcp",
                from_port=443,
                to_port=443,
                description="API server, from inside",
                tags=named(args.tags, f"{args.cluster_name}-inside"),
                opts=pulumi.ResourceOptions(parent=self),
            )
            for cidr in PRIVATE_RANGES
        ]


@dataclass(frozen=True)
class AdoptedCluster:
    """A cluster that exists: the same answers, without a resource. subnet_ids: where it has its network interfaces, in vpc."""

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


def adopt(cluster_name: str, region: str) -> AdoptedCluster:
    """Looks an existing cluster up. Raises pulumi.RunError if there is none, or if it is not working."""
    if cluster_name not in (names := _cluster_names(region)):
        raise pulumi.RunError(
            f"there is no EKS cluster {cluster_name!r} in {region} (there are: {', '.join(sorted(names)) or 'none'}): correct "
            "mistral-on-l4:cluster.name, or set cluster.existing to false to have it made"
        )
    found = _cluster(cluster_name, region)
    if found["status"] != "ACTIVE":
        raise pulumi.RunError(f"EKS cluster {cluster_name!r} is {found['status']}, not ACTIVE: wait, or look at it in the console")
    return AdoptedCluster(
        cluster_name,
        found["endpoint"],
        found["certificateAuthorities"][0]["data"],
        f"{found['arn']}@{found['createdAt']}",
        tuple(found["vpcConfig"]["subnetIds"]),
        found["vpcConfig"]["vpcId"],
        found["version"],
    )


def refuse_foreign_cluster(cluster_name: str, region: str, stack: str) -> bool:
    """Whether the stack's cluster is there. Says at preview that its name is taken, by one that another stack or a person made."""
    if cluster_name not in _cluster_names(region):
        return False
    owner = (_cluster(cluster_name, region).get("tags") or {}).get(STACK_TAG)
    if owner != stack:
        whose = f"belongs to stack {owner!r}" if owner else "was not made by this project"
        raise pulumi.RunError(
            f"an EKS cluster {cluster_name!r} exists in {region} and {whose}: choose another name (mistral-on-l4:cluster.name), or "
            "adopt it (mistral-on-l4:cluster.existing: true)"
        )
    return True


def _cluster_names(region: str) -> Sequence[str]:
    names: Sequence[str] = lookup("aws:eks/getClusters:getClusters", region=region)["names"]
    return names


def _cluster(name: str, region: str) -> Mapping[str, Any]:
    return lookup("aws:eks/getCluster:getCluster", name=name, region=region)
