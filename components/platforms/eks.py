"""An AWS account: network, EKS cluster, system and GPU nodes, storage, and KServe with what it needs, all made by the stack."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components.aws.gpu_pools import GpuPools, GpuPoolsArgs
from components.aws.kubeconfig import kubeconfig
from components.aws.node_images import gpu_release
from components.aws.provider import account_provider, account_tags, profile
from components.aws.refusals import refuse_reserved_names
from components.aws.site import Site, SiteArgs, adopted_site, made_site
from components.aws.software import Software, SoftwareArgs, adopted_software, own_software
from components.aws.system_nodes import STORAGE_POOL, SYSTEM_POOL, system_sizes
from components.aws.zones import offering_zones
from components.charts import Charts, ChartsArgs
from components.image_pull import ImagePull, ImagePullArgs
from components.last_words import Cluster
from components.platforms.base import Marks, PlatformInputs, SharedMarks
from components.platforms.provider_version import local_provider_version
from components.store_certificate import CA_CONFIG_MAP, TLS_SECRET, StoreCertificate, StoreCertificateArgs
from mistral_on_l4.aws.account import REHEARSAL_ACCOUNT, cluster_name
from mistral_on_l4.config.images import image
from mistral_on_l4.config.names import GPU_PRESENT_LABEL, GPU_TOLERATION, POOL_LABEL, PUBLIC_HUB
from mistral_on_l4.config.settings import ServiceSettings
from mistral_on_l4.manifests.serving import Placement
from mistral_on_l4.planner.hosting import downloader


class EksPlatform(pulumi.ComponentResource):
    """An EKS cluster, made here or adopted by name. An adopted one brings its network, add-ons and system nodes."""

    adopted_namespaces: frozenset[str] = frozenset()
    shared_marks = SharedMarks()
    provider: k8s.Provider
    cluster_ready: Sequence[pulumi.Resource]
    serving_ready: Sequence[pulumi.Resource]
    storage_class: pulumi.Input[str]
    store_storage_class: pulumi.Input[str]
    store_placement: Placement | None
    store_tls_secret: str | None
    store_ca_config_map: str | None
    hub_endpoint: str
    rehearsal: bool

    def __init__(self, name: str, args: PlatformInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        settings, catalogue = args.settings, args.catalogue
        sizes = system_sizes(settings, catalogue)
        refuse_reserved_names(settings, {STORAGE_POOL, SYSTEM_POOL})
        account = pulumi.ResourceOptions(providers=[account_provider(f"{name}-aws", settings)])
        super().__init__("mistral-on-l4:eks:Platform", name, None, pulumi.ResourceOptions.merge(opts, account))
        self._name, self._settings, self._plan, self._catalogue = name, settings, args.plan, catalogue
        ask = pulumi.InvokeOptions(parent=self)
        caller = aws.get_caller_identity(opts=ask)
        self.rehearsal = caller.account_id == REHEARSAL_ACCOUNT
        types = {name for pool in settings.pools.groups for name in pool.instance_types}
        types |= {instance_type for instance_type, _ in sizes.values()}
        site = self._site(offering_zones(sorted(types), ask), caller.arn)
        self.provider = self._kubernetes(site)
        tags = account_tags(settings)
        software = self._software(SoftwareArgs(site, settings, self.provider, sizes, tags))
        self.storage_class, self.store_storage_class = software.storage.default, software.storage.store
        self._charts = Charts(
            "charts",
            ChartsArgs(
                settings.images,
                settings.traits.deployment_mode,
                downloader([service.pod for service in args.plan.services if service.pod]),
                self.rehearsal,
            ),
            self._on_cluster(software.controllers_need),
        )
        self.cluster_ready = [*software.storage_ready, *self._charts.ready]
        self.serving_ready = self._charts.serving_ready

        self.hub_endpoint = settings.hub.endpoint or PUBLIC_HUB
        in_cluster = settings.object_store.kind == "minio"
        self.store_tls_secret = TLS_SECRET if in_cluster else None
        self.store_ca_config_map = CA_CONFIG_MAP if in_cluster else None
        self.store_placement = Placement({POOL_LABEL: STORAGE_POOL}) if STORAGE_POOL in sizes else None

        release, needs = gpu_release(settings, site.cluster.version, ask), software.nodes_need
        self._pools = GpuPools(GpuPoolsArgs(site, settings, catalogue, software.node_role_arn, release, needs, tags), self)
        self.register_outputs({"clusterName": site.cluster.cluster_name})

    # -- what components ask of a platform -----------------------------------------------------------------------------

    def marks(self, service: ServiceSettings) -> Marks:  # noqa: ARG002  (nobody looks for any)
        return Marks()

    def placement(self, pool: str) -> Placement:
        return Placement({POOL_LABEL: pool}, (GPU_TOLERATION,))

    def nodes(self, pool: str, after: Sequence[pulumi.Resource] = ()) -> Sequence[pulumi.Resource]:
        """The pool's node group. With `pools.start: after-seed` it is declared here, behind `after`: the weights."""
        return self._pools.nodes(pool, after)

    def from_here(
        self,
        service: str,
        namespace: str,
        port: int,
        after: Sequence[pulumi.CustomResource],  # noqa: ARG002  (a command waits for nothing)
    ) -> pulumi.Input[str]:
        return f"kubectl port-forward -n {namespace} service/{service} 8080:{port}"

    def prepare_namespaces(self, namespaces: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:
        """The engine's image goes to the nodes while weights still move; the store waits for its certificate, which is returned."""
        spaces, images = self._settings.namespaces, self._settings.images
        if self._plan.services:
            # One runtime serves all of them, so they have one image.
            engine = image("engine", images, self._plan.services[0].image)
            gpu_nodes = Placement({GPU_PRESENT_LABEL: "true"}, (GPU_TOLERATION,))
            pull = ImagePullArgs(engine, spaces.services, gpu_nodes, images.pull_secret)
            ImagePull("engine-image", pull, self._on_cluster(namespaces))
        if self.store_tls_secret is None:
            return ()
        return StoreCertificate(
            "store-certificate",
            StoreCertificateArgs(spaces.object_store, (spaces.registry,), spaces.services),
            self._on_cluster([self._charts.cert_manager, *namespaces]),
        ).ready

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _site(self, offered: dict[str, list[str]], caller_arn: str) -> Site:
        settings = self._settings
        name = cluster_name(settings, pulumi.get_stack())
        args = SiteArgs(self._name, settings, name, offered, caller_arn, profile(), self.rehearsal, self._catalogue)
        return adopted_site(args, self) if settings.cluster.existing else made_site(args, self)

    def _software(self, args: SoftwareArgs) -> Software:
        return adopted_software(args, self) if self._settings.cluster.existing else own_software(args, self)

    def _kubernetes(self, site: Site) -> Cluster:
        cluster = site.cluster
        return Cluster(
            f"{self._name}-kubernetes",
            kubeconfig(cluster.cluster_name, self._settings.region, profile(), cluster.endpoint, cluster.ca),
            # The endpoint's certificate may be renewed, and another engineer's credentials differ: still the same cluster.
            cluster_identifier=cluster.identity,
            enable_config_map_mutable=True,
            enable_secret_mutable=True,
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=cluster.ready, version=local_provider_version() if self.rehearsal else None
            ),
        )

    def _on_cluster(self, after: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
        """For a component whose objects are the cluster's."""
        return pulumi.ResourceOptions(parent=self, provider=self.provider, depends_on=[*after])
