"""An AWS account: network, EKS cluster, system and GPU nodes, storage, and KServe with what it needs, all made by the stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pulumi
import pulumi_kubernetes as k8s

from components.aws.addons import Addons, AddonSpec
from components.aws.cluster import AdoptedCluster, Cluster, ClusterArgs, adopt, refuse_foreign_cluster
from components.aws.gpu_node_pool import TAINT_KEY, GpuNodePool, GpuNodePoolArgs
from components.aws.kubeconfig import kubeconfig
from components.aws.network import Network, NetworkArgs, existing_subnets
from components.aws.node_pool import NodePool, NodePoolArgs
from components.aws.refusals import (
    refuse_another_stack,
    refuse_exposure,
    refuse_principals,
    refuse_reserved_names,
    refuse_two_regions,
)
from components.aws.resources import lookup
from components.aws.service_role import ServiceRole, ServiceRoleArgs
from components.aws.storage_class import StorageClasses
from components.aws.tags import stack_tags
from components.aws.volume_guard import VolumeGuard, VolumeGuardArgs
from components.aws.zones import common_zones, offering_zones
from components.charts import Charts, ChartsArgs
from components.image_pull import ImagePull
from components.platforms.provider_version import local_provider_version
from components.store_certificate import CA_CONFIG_MAP, TLS_SECRET, StoreCertificate, StoreCertificateArgs
from mistral_on_l4.aws.account import REHEARSAL_ACCOUNT, cluster_name
from mistral_on_l4.config.images import image
from mistral_on_l4.config.names import POOL_LABEL, PROJECT
from mistral_on_l4.config.settings import PoolSettings, Settings
from mistral_on_l4.manifests.serving import Placement
from mistral_on_l4.planner.catalogue import Catalogue

HUB = "https://huggingface.co"
SYSTEM_AMI_TYPE = "AL2023_x86_64_STANDARD"
STORAGE_POOL, SYSTEM_POOL = "storage", "system"
TOLERATION = {"key": TAINT_KEY, "operator": "Exists", "effect": "NoSchedule"}
_MB_PER_MIB = 1.048576
_SYSTEM_ROOT_GIB = 40

NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy")
# The newer, narrower policies of the driver are bound to tags that an adopted cluster's volumes may lack.
STORAGE_DRIVER_POLICY = "service-role/AmazonEBSCSIDriverPolicy"

# GPU pods of these releases of the node image do not start: first and last release date, and what is known of it.
BROKEN_RELEASES = (
    ("20260423", "20260511", "unprivileged device plugins find no GPU (amazon-eks-ami#2706)"),
    ("20260818", "20260826", "NVIDIA's toolkit 1.20.0 breaks some GPU pods (amazon-eks-ami#2790)"),
)
_RELEASES = "https://github.com/awslabs/amazon-eks-ami/releases"


class EksPlatform(pulumi.ComponentResource):
    """Answers of an EKS cluster, made here or adopted by name. An adopted one brings its network, add-ons and system nodes."""

    deployment_mode: Literal["Standard", "RawDeployment"] = "Standard"
    declares_storage_config = True
    registry_database: Literal["file", "postgresql"] = "postgresql"
    registry_link: Literal["labels", "annotations"] = "annotations"

    def __init__(self, name: str, settings: Settings, catalogue: Catalogue, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:eks:Platform", name, None, opts)
        self._name, self._settings, self._catalogue = name, settings, catalogue
        self._child = pulumi.ResourceOptions(parent=self)
        stack = pulumi.get_stack()
        refuse_two_regions(settings.region)
        refuse_exposure(settings)
        refuse_reserved_names(settings, {STORAGE_POOL, SYSTEM_POOL})
        self._caller = lookup("aws:index/getCallerIdentity:getCallerIdentity")
        self.rehearsal = self._caller["accountId"] == REHEARSAL_ACCOUNT
        self._tags = stack_tags(stack, settings.tags)
        self._cluster_name = cluster_name(settings, stack)
        self._storage_instance = _storage_instance(settings, catalogue)
        self._offered = self._offerings()

        subnets = self._adopted() if settings.cluster.existing else self._made(stack)
        self._subnets = subnets
        self.provider = k8s.Provider(
            f"{name}-kubernetes",
            kubeconfig=kubeconfig(self._cluster.cluster_name, settings.region, self._cluster.endpoint, self._cluster.ca),
            # The endpoint's certificate may be made anew, and another engineer's credentials differ: still the same cluster.
            cluster_identifier=self._cluster.identity,
            enable_config_map_mutable=True,
            enable_secret_mutable=True,
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=self._cluster.ready, version=local_provider_version() if self.rehearsal else None
            ),
        )
        storage, nodes_ready = self._software(subnets)
        self.storage_class, self.store_storage_class = storage.default, storage.store
        self._charts = Charts(
            "charts",
            ChartsArgs(settings.images, self.deployment_mode, rehearsal=self.rehearsal),
            pulumi.ResourceOptions(parent=self, provider=self.provider, depends_on=nodes_ready),
        )
        self.cluster_ready: Sequence[pulumi.Resource] = [*storage.ready, *self._charts.ready]
        self.serving_ready: Sequence[pulumi.Resource] = self._charts.serving_ready

        self.hub_endpoint = settings.hub.endpoint or HUB
        in_cluster = settings.object_store.kind == "minio"
        self.store_tls_secret = TLS_SECRET if in_cluster else None
        self.store_ca_config_map = CA_CONFIG_MAP if in_cluster else None
        self.store_placement = Placement({POOL_LABEL: STORAGE_POOL}) if in_cluster and not settings.cluster.existing else None

        self._release = self._gpu_release()
        self._pools: dict[str, list[pulumi.Resource]] = {}
        if settings.pools.start == "with-seed":
            for pool in settings.pools.groups:
                self.nodes(pool.name)
        self.register_outputs({"clusterName": self._cluster_name})

    # -- what a platform answers ---------------------------------------------------------------------------------------

    def placement(self, pool: str) -> Placement:
        return Placement({POOL_LABEL: pool}, (TOLERATION,))

    def nodes(self, pool: str, after: Sequence[pulumi.Resource] = ()) -> Sequence[pulumi.Resource]:
        """The pool's node group. With `pools.start: after-seed` it is declared here, behind `after`: the weights."""
        if pool not in self._pools:
            later = self._settings.pools.start == "after-seed"
            self._pools[pool] = [self._gpu_pool(self._settings.pool(pool), after if later else ())]
        return self._pools[pool]

    def inside(self, namespaces: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:
        """What the platform puts into the stack's namespaces, once they exist; the object store waits for the answer."""
        spaces = self._settings.namespaces
        engine = self._catalogue.engines[self._catalogue.default_engine].images["eks"].reference
        ImagePull(
            "engine-image",
            image("engine", self._settings.images, engine),
            spaces.services,
            Placement({"nvidia.com/gpu.present": "true"}, (TOLERATION,)),
            self._settings.images.pull_secret,
            self.provider,
            namespaces,
            self._child,
        )
        if self.store_tls_secret is None:
            return ()
        return StoreCertificate(
            "store-certificate",
            StoreCertificateArgs(spaces.object_store, (spaces.registry,), spaces.services),
            self.provider,
            [self._charts.cert_manager, *namespaces],
            self._child,
        ).ready

    # -- cluster -------------------------------------------------------------------------------------------------------

    def _offerings(self) -> Mapping[str, Sequence[str]]:
        """Instance type -> zones, of every type that this stack starts."""
        types = {pool.instance_type for pool in self._settings.pools.groups}
        if not self._settings.cluster.existing:
            types |= {self._catalogue.system_nodes.instance, self._storage_instance}
        return offering_zones(self._settings.region, sorted(types))

    def _made(self, stack: str) -> Mapping[str, pulumi.Input[str]]:
        """Network and control plane; answers zone -> subnet for nodes."""
        settings = self._settings
        exists = refuse_foreign_cluster(self._cluster_name, settings.region, stack)
        refuse_principals(settings.cluster.admin_principal_arns, None if exists else self._caller["arn"])
        lent = bool(settings.network.existing_vpc_id)
        if not settings.cluster.public_access_cidrs:
            empty = not (lent or exists)
            inside = (
                "which nobody is in yet: an `up` would stop when the cluster is there"
                if empty
                else "so this command must run there"
            )
            pulumi.log.warn(
                f"the cluster's API will answer inside its VPC only, {inside}; to run it from here, set "
                f"{PROJECT}:cluster.publicAccessCidrs to your own address, such as [203.0.113.7/32] (`curl "
                "https://checkip.amazonaws.com` tells it)"
            )
        zones = common_zones(settings.region, self._offered)
        network = Network(
            self._cluster_name,
            NetworkArgs(settings.network, settings.region, zones, self._tags),
            pulumi.ResourceOptions(parent=self),
        )
        self._cluster: Cluster | AdoptedCluster = Cluster(
            self._name,
            ClusterArgs(settings.cluster, self._cluster_name, list(network.subnets.values()), self._tags, inside=lent),
            # Nodes need the way out, and the control plane goes before the network does.
            network.ready,
            self._child,
        )
        return network.subnets

    def _adopted(self) -> Mapping[str, pulumi.Input[str]]:
        adopted = adopt(self._cluster_name, self._settings.region)
        if not self.rehearsal:
            refuse_another_stack(adopted, self._settings)
        self._cluster = adopted
        subnets = self._settings.network.existing_subnet_ids or adopted.subnet_ids
        return existing_subnets(subnets, self._settings.region, adopted.vpc)

    def _software(self, subnets: Mapping[str, pulumi.Input[str]]) -> tuple[StorageClasses, list[pulumi.Resource]]:
        """Add-ons and system nodes, in the order in which a node gets ready; answers storage and what controllers run on."""
        self._node_role = ServiceRole("nodes", self._role("node", "ec2.amazonaws.com", NODE_POLICIES), self._child)
        throughput = self._settings.object_store.volume_throughput_mibps
        if self._settings.cluster.existing:
            self._nodes_need = [*self._node_role.ready]
            storage = StorageClasses("storage", throughput, self._tags, self.provider, [], self._child)
            return storage, []
        cluster = self._cluster
        basic = [
            # Without the setting NetworkPolicies are accepted and ignored.
            AddonSpec("vpc-cni", {"enableNetworkPolicy": "true"}),
            AddonSpec("kube-proxy"),
            AddonSpec("eks-pod-identity-agent"),
        ]
        network = Addons("addons-network", cluster.name, basic, self._tags, cluster.ready, self._child)
        self._nodes_need = [*cluster.ready, *self._node_role.ready, *network.ready]
        nodes = self._system_nodes(subnets)
        driver_role = ServiceRole(
            "storage-driver",
            self._role("ebs", "pods.eks.amazonaws.com", (STORAGE_DRIVER_POLICY,), ("sts:AssumeRole", "sts:TagSession")),
            self._child,
        )
        workload = [
            AddonSpec("coredns"),
            AddonSpec(
                "aws-ebs-csi-driver",
                {"controller": {"extraVolumeTags": self._tags}},
                ("ebs-csi-controller-sa", driver_role.arn),
            ),
        ]
        # Both run on nodes and would wait for them, so they come after; the driver's role outlives the driver.
        addons = Addons("addons-workload", cluster.name, workload, self._tags, [*nodes, *driver_role.ready], self._child)
        storage = StorageClasses("storage", throughput, self._tags, self.provider, addons.ready, self._child)
        spaces, images = self._settings.namespaces, self._settings.images
        guarded = VolumeGuardArgs((spaces.object_store, spaces.registry), image("jobs", images), images.pull_secret)
        guard = VolumeGuard("volume-guard", guarded, self.provider, [*nodes, *addons.ready], self._child)
        storage.ready += guard.ready
        return storage, [*nodes, *addons.ready]

    def _role(
        self, purpose: str, service: str, policies: Sequence[str], actions: Sequence[str] = ("sts:AssumeRole",)
    ) -> ServiceRoleArgs:
        return ServiceRoleArgs(self._cluster_name, purpose, service, policies, self._tags, actions)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _system_nodes(self, subnets: Mapping[str, pulumi.Input[str]]) -> list[pulumi.Resource]:
        """Nodes for controllers, and one for the object store, whose instance moves bytes as fast as its volume."""
        count, instance = self._catalogue.system_nodes.count, self._catalogue.system_nodes.instance
        sizes = {SYSTEM_POOL: (instance, count)}
        if self._settings.object_store.kind == "minio":
            sizes = {SYSTEM_POOL: (instance, max(1, count - 1)), STORAGE_POOL: (self._storage_instance, 1)}
        # In one zone, the NAT gateway's: a volume cannot follow its pod into another, where a new node might come up.
        offered = set.intersection(*(set(self._offered[kind]) for kind, _ in sizes.values()))
        subnet = next((found for zone, found in subnets.items() if zone in offered), None)
        if subnet is None:
            raise pulumi.RunError(
                f"{PROJECT}:network.existingSubnetIds: none of the zones {', '.join(subnets)} offers the system nodes' types "
                f"(all of them are offered in: {', '.join(sorted(offered)) or 'no zone'}): name a subnet in one that does"
            )
        return [
            NodePool(
                pool,
                NodePoolArgs(
                    pool=pool,
                    cluster_name=self._cluster_name,
                    cluster=self._cluster.name,
                    role_arn=self._node_role.arn,
                    subnet_ids=[subnet],
                    instance_type=instance_type,
                    count=nodes,
                    ami_type=SYSTEM_AMI_TYPE,
                    root_gib=_SYSTEM_ROOT_GIB,
                    labels={POOL_LABEL: pool},
                    tags=self._tags,
                ),
                self._nodes_need,
                self._child,
            ).nodes
            for pool, (instance_type, nodes) in sizes.items()
        ]

    def _gpu_pool(self, pool: PoolSettings, after: Sequence[pulumi.Resource]) -> pulumi.Resource:
        zones = {zone: subnet for zone, subnet in self._subnets.items() if zone in self._offered[pool.instance_type]}
        if not zones:
            raise pulumi.RunError(
                f"pool {pool.name!r}: none of the zones {', '.join(self._subnets)} offers {pool.instance_type} (offered in: "
                f"{', '.join(self._offered[pool.instance_type]) or 'no zone of the region'})"
            )
        return GpuNodePool(
            f"pool-{pool.name}",
            GpuNodePoolArgs(
                settings=pool,
                instance=self._catalogue.instances[pool.instance_type],
                cluster_name=self._cluster_name,
                cluster=self._cluster.name,
                role_arn=self._node_role.arn,
                subnets=zones,
                root_gib=int(self._catalogue.rates.root_volume_gb),
                release_version=self._release,
                release_pinned=self._settings.cluster.gpu_release_version is not None,
                tags=self._tags,
            ),
            [*self._nodes_need, *after],
            self._child,
        ).nodes

    def _gpu_release(self) -> str:
        """Release of the GPU node image: the pinned one, or the newest for this Kubernetes version. Warns of broken ones."""
        version = self._cluster.version if isinstance(self._cluster, AdoptedCluster) else self._settings.cluster.version
        pinned = self._settings.cluster.gpu_release_version
        if pinned and not pinned.startswith(f"{version}."):
            raise pulumi.RunError(
                f"{PROJECT}:cluster.gpuReleaseVersion {pinned} is a node image for another Kubernetes than the cluster's "
                f"{version}: {_RELEASES} lists the releases, each with its versions"
            )
        release = pinned or self._newest_gpu_release(version)
        date = release.rpartition("-")[2]
        for first, last, why in BROKEN_RELEASES:
            if first <= date <= last:
                pulumi.log.warn(
                    f"GPU node image {release} is known to be broken: {why}; pin another one for {version} with "
                    f"{PROJECT}:cluster.gpuReleaseVersion ({_RELEASES} lists them)"
                )
        return release

    def _newest_gpu_release(self, version: str) -> str:
        path = f"/aws/service/eks/optimized-ami/{version}/amazon-linux-2023/x86_64/nvidia/recommended/release_version"
        return str(lookup("aws:ssm/getParameter:getParameter", name=path, region=self._settings.region)["value"])


def _storage_instance(settings: Settings, catalogue: Catalogue) -> str:
    """The cheapest instance without a GPU that moves as much as the store's volume; if none does, the fastest, with a warning."""
    wanted = settings.object_store.volume_throughput_mibps * _MB_PER_MIB
    rates = {name: found.ebs_mbs[1] for name, found in catalogue.instances.items() if found.gpus == 0 and found.ebs_mbs}
    if enough := [name for name, rate in rates.items() if rate >= wanted]:
        return min(enough, key=lambda name: catalogue.instances[name].usd_per_hour.get("us-east-1", float("inf")))
    fastest = max(rates, key=lambda name: rates[name])
    pulumi.log.warn(
        f"the store's volume is set to {settings.object_store.volume_throughput_mibps} MiB/s, and {fastest}, the fastest storage "
        f"node that the catalogue knows, moves {rates[fastest] / _MB_PER_MIB:.0f} at its best: lower {PROJECT}:objectStore."
        "volumeThroughputMibps, or pay for what is not used"
    )
    return fastest
