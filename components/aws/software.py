"""What a cluster needs before charts are installed: add-ons, system nodes, storage, in the order in which a node gets ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components.aws.addons import Addons, AddonsArgs, AddonSpec
from components.aws.service_role import ServiceRole, ServiceRoleArgs
from components.aws.site import Site
from components.aws.storage_class import StorageClasses, StorageClassesArgs
from components.aws.system_nodes import SystemNodesArgs, system_nodes
from components.aws.volume_guard import VolumeGuard, VolumeGuardArgs
from mistral_on_l4.config.images import image
from mistral_on_l4.config.settings import Settings

NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy")
# The newer, narrower policies of the driver are bound to tags that an adopted cluster's volumes may lack.
STORAGE_DRIVER_POLICY = "service-role/AmazonEBSCSIDriverPolicy"


@dataclass(frozen=True)
class SoftwareArgs:
    """sizes: of the system pools, none where the cluster brings nodes of its own; tags: of instances and volumes."""

    site: Site
    settings: Settings
    provider: k8s.Provider
    sizes: Mapping[str, tuple[str, int]]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Software:
    """node_role_arn: of every node; nodes_need: what is there before a node starts; controllers_need: before a controller does;
    storage_ready: before a namespace with claims is made.
    """

    node_role_arn: pulumi.Input[str]
    nodes_need: Sequence[pulumi.Resource]
    controllers_need: Sequence[pulumi.Resource]
    storage: StorageClasses
    storage_ready: Sequence[pulumi.Resource]


def adopted_software(args: SoftwareArgs, parent: pulumi.Resource) -> Software:
    """An adopted cluster has add-ons, a driver and nodes: only classes of volumes are added."""
    role = _node_role(args, parent)
    storage = _storage_classes(args, parent, ())
    return Software(role.arn, role.ready, (), storage, storage.ready)


def own_software(args: SoftwareArgs, parent: pulumi.Resource) -> Software:
    """Add-ons, nodes and volumes of a cluster that the stack makes."""
    cluster, role = args.site.cluster, _node_role(args, parent)
    basic = [
        # Without the setting NetworkPolicies are accepted and ignored.
        AddonSpec("vpc-cni", {"enableNetworkPolicy": "true"}),
        AddonSpec("kube-proxy"),
        AddonSpec("eks-pod-identity-agent"),
    ]
    network = Addons(
        "addons-network", AddonsArgs(cluster.name, basic), pulumi.ResourceOptions(parent=parent, depends_on=cluster.ready)
    )
    nodes_need = [*cluster.ready, *role.ready, *network.ready]
    nodes = system_nodes(
        SystemNodesArgs(args.site, args.sizes, role.arn, args.tags), pulumi.ResourceOptions(parent=parent, depends_on=nodes_need)
    )
    addons = _addons_on_nodes(args, nodes, parent)
    storage = _storage_classes(args, parent, addons.ready)
    spaces, images = args.settings.namespaces, args.settings.images
    guard = VolumeGuard(
        "volume-guard",
        VolumeGuardArgs((spaces.object_store, spaces.registry), image("jobs", images), images.pull_secret),
        pulumi.ResourceOptions(parent=parent, provider=args.provider, depends_on=[*nodes, *addons.ready]),
    )
    return Software(role.arn, nodes_need, [*nodes, *addons.ready], storage, [*storage.ready, *guard.ready])


def _node_role(args: SoftwareArgs, parent: pulumi.Resource) -> ServiceRole:
    return ServiceRole(
        "nodes",
        ServiceRoleArgs(args.site.cluster.cluster_name, "node", "ec2.amazonaws.com", NODE_POLICIES),
        pulumi.ResourceOptions(parent=parent),
    )


def _addons_on_nodes(args: SoftwareArgs, nodes: Sequence[pulumi.Resource], parent: pulumi.Resource) -> Addons:
    """Both run on nodes and would wait for them, so they come after; the driver's role outlives the driver."""
    actions = ("sts:AssumeRole", "sts:TagSession")
    role = ServiceRole(
        "storage-driver",
        ServiceRoleArgs(args.site.cluster.cluster_name, "ebs", "pods.eks.amazonaws.com", (STORAGE_DRIVER_POLICY,), actions),
        pulumi.ResourceOptions(parent=parent),
    )
    # Its volumes are made by the driver, whom no default tags of a provider reach.
    driver = {"controller": {"extraVolumeTags": dict(args.tags)}}
    workload = [AddonSpec("coredns"), AddonSpec("aws-ebs-csi-driver", driver, ("ebs-csi-controller-sa", role.arn))]
    return Addons(
        "addons-workload",
        AddonsArgs(args.site.cluster.name, workload),
        pulumi.ResourceOptions(parent=parent, depends_on=[*nodes, *role.ready]),
    )


def _storage_classes(args: SoftwareArgs, parent: pulumi.Resource, driver: Sequence[pulumi.Resource]) -> StorageClasses:
    return StorageClasses(
        "storage",
        StorageClassesArgs(args.settings.object_store.volume_throughput_mibps, args.tags),
        pulumi.ResourceOptions(parent=parent, provider=args.provider, depends_on=[*driver]),
    )
