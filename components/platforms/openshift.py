"""An OpenShift cluster on AWS with OpenShift AI: GPU pools are MachineSets; KServe, Routes and the registry are its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

from components.image_pull import ImagePull, ImagePullArgs
from components.openshift.data_science import DataScience, DataScienceArgs
from components.openshift.gpu_pools import GpuPools, GpuPoolsArgs
from components.openshift.gpu_software import GpuSoftware, GpuSoftwareArgs
from components.platforms.base import Marks, PlatformInputs, SharedMarks
from components.platforms.provider_version import local_provider_version
from components.script_jobs import JobPodArgs
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.config.images import image
from mistral_on_l4.config.names import ASSUMED_CLUSTER, GPU_TOLERATION, POOL_LABEL, PUBLIC_HUB
from mistral_on_l4.config.settings import ServiceSettings
from mistral_on_l4.manifests.openshift.data_science import PoolMachine, runtime_marks, service_annotations, service_labels
from mistral_on_l4.manifests.serving import Placement
from mistral_on_l4.openshift.reading import AssumedObjects, Reader
from mistral_on_l4.openshift.refusals import PINNED_DRIVERS, inspect
from mistral_on_l4.openshift.site import Site


class OpenshiftPlatform(pulumi.ComponentResource):
    """A cluster that is there. What it lacks is added as the settings say; what it has stays as it is."""

    provider: k8s.Provider
    cluster_ready: Sequence[pulumi.Resource]
    serving_ready: Sequence[pulumi.Resource]
    storage_class: pulumi.Input[str]
    store_storage_class: pulumi.Input[str]
    store_placement: Placement | None = None
    # Inside the cluster the store speaks plain HTTP, behind its NetworkPolicy.
    store_tls_secret: str | None = None
    store_ca_config_map: str | None = None
    adopted_namespaces: frozenset[str]
    shared_marks: SharedMarks
    hub_endpoint: str
    rehearsal: bool

    def __init__(self, name: str, args: PlatformInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:openshift:Platform", name, None, opts)
        self._name, self._settings, self._plan = name, args.settings, args.plan
        settings, stack = args.settings, pulumi.get_stack()
        assumed = os.environ.get(ASSUMED_CLUSTER)
        site = Site(_reader(assumed, settings.openshift.context), settings, stack)
        engine = args.catalogue.engine(args.catalogue.engine_of(settings.traits.engine_images))
        _refuse(site, args)
        for finding in (findings := inspect(site, engine)):
            if finding.state == "warn":
                pulumi.log.warn(finding.line)
        if failed := [finding.line for finding in findings if finding.state == "fail"]:
            raise pulumi.RunError("\n".join(failed))
        worker, storage_class = site.worker, site.storage_class
        if worker is None or storage_class is None:
            raise AssertionError("the checks have refused a cluster without")
        self.rehearsal = site.simulated
        self.provider = self._kubernetes(site, assumed)
        self.storage_class = self.store_storage_class = storage_class
        self.hub_endpoint = settings.hub.endpoint or PUBLIC_HUB
        self.adopted_namespaces = site.adopted
        self.shared_marks = SharedMarks(
            runtime_marks(engine.version), {"opendatahub.io/dashboard": "true", "modelmesh-enabled": "false"}
        )
        self._pod = JobPodArgs(image("jobs", settings.images), settings.images.pull_secret, settings.traits.pod_user_ids)
        operators = settings.openshift.operators
        dsc = site.data_science_cluster
        existing = dsc["metadata"]["name"] if dsc is not None and not site.is_ours(dsc) else None
        machines = {
            pool.name: PoolMachine(instance.gpus, instance.vcpus, int(instance.memory_gib))
            for pool in settings.pools.groups
            for instance in [args.catalogue.instance(pool.instance_type)]
        }
        science = DataScience(
            "data-science",
            DataScienceArgs(operators, stack, settings.namespaces.registry, existing, machines, self._pod),
            self._on_cluster(()),
        )
        driver = PINNED_DRIVERS[settings.openshift.rhoai_version]
        software = GpuSoftware("gpu-software", GpuSoftwareArgs(operators, stack, driver, self._pod), self._on_cluster(()))
        self.cluster_ready = science.ready
        self.serving_ready = [*science.ready, *science.profiles]
        tags = {"owner": settings.tags.owner, **({"expires": settings.tags.expires} if settings.tags.expires else {})}
        self._pools = GpuPools(
            GpuPoolsArgs(
                settings=settings,
                catalogue=args.catalogue,
                stack=stack,
                infrastructure=site.infrastructure,
                worker=worker,
                software=software.ready,
                namespace=settings.namespaces.object_store,
                pod=self._pod,
                tags=tags,
            ),
            self,
            self.provider,
        )
        self.register_outputs({"infrastructure": site.infrastructure})

    # -- what components ask of a platform -----------------------------------------------------------------------------

    def marks(self, service: ServiceSettings) -> Marks:
        access, traits = self._settings.access, self._settings.traits
        title = f"{service.name} ({service.variant.value})"
        return Marks(
            service_labels(access.exposure == "route", self._settings.openshift.queue),
            service_annotations(title, service.pool, traits.storage_key, access.auth == "token"),
        )

    def placement(self, pool: str) -> Placement:
        return Placement({POOL_LABEL: pool}, (GPU_TOLERATION,))

    def nodes(self, pool: str, after: Sequence[pulumi.Resource] = ()) -> Sequence[pulumi.Resource]:
        """The pool's MachineSet, and the Job that ends when its nodes offer their GPUs."""
        return self._pools.nodes(pool, after)

    def from_here(
        self,
        service: str,
        namespace: str,
        port: int,
        after: Sequence[pulumi.CustomResource],  # noqa: ARG002  (a command waits for nothing)
    ) -> pulumi.Input[str]:
        return f"oc port-forward -n {namespace} service/{service} 8080:{port}"

    def prepare_namespaces(self, namespaces: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:
        """The engine's image goes to the nodes while weights still move."""
        spaces, images, traits = self._settings.namespaces, self._settings.images, self._settings.traits
        self._pools.await_in(namespaces)
        if self._plan.services:
            # One runtime serves all of them, so they have one image.
            engine = image("engine", images, self._plan.services[0].image)
            gpu_nodes = Placement({"node-role.kubernetes.io/gpu": ""}, (GPU_TOLERATION,))
            pull = ImagePullArgs(engine, spaces.services, gpu_nodes, images.pull_secret, traits.pod_user_ids)
            ImagePull("engine-image", pull, self._on_cluster(namespaces))
        return ()

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _kubernetes(self, site: Site, assumed: str | None) -> k8s.Provider:
        return k8s.Provider(
            f"{self._name}-kubernetes",
            # By itself the provider reads the user's kubeconfig, which `oc login` writes. That of a cluster which is only assumed
            # is not known, so that nobody looks for one.
            kubeconfig=_unknown() if assumed else None,
            context=self._settings.openshift.context,
            # Tokens and addresses change; it stays the same cluster.
            cluster_identifier=site.infrastructure,
            enable_config_map_mutable=True,
            enable_secret_mutable=True,
            opts=pulumi.ResourceOptions(parent=self, version=local_provider_version() if site.simulated else None),
        )

    def _on_cluster(self, after: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, provider=self.provider, depends_on=[*after])


def _reader(assumed: str | None, context: str | None) -> Reader:
    """The cluster that the user's kubeconfig points at, or an assumed one. Raises pulumi.RunError."""
    if assumed:
        if not pulumi.runtime.is_dry_run():
            raise pulumi.RunError(f"{ASSUMED_CLUSTER} is set, which is for previews without a cluster alone: unset it")
        return AssumedObjects.read(Path(assumed))
    # Of several files, as KUBECONFIG may name, the first decides here as for `oc login`.
    files = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part] or [
        Path.home() / ".kube" / "config"
    ]
    try:
        return KubeClient.from_kubeconfig(files[0], context)
    except (OSError, ValueError) as error:
        why = f"{files[0]} is not there" if isinstance(error, FileNotFoundError) else str(error)
        raise pulumi.RunError(f"no cluster to look at ({why}): log in with `oc login`, or name openshift.context") from None


def _refuse(site: Site, args: PlatformInputs) -> None:
    """Another cluster than the stack's: with a login that has moved on, everything would be made a second time."""
    try:
        here = site.infrastructure
    except ApiError as error:
        raise pulumi.RunError(f"{error}: log in with `oc login`") from None
    there = args.recorded.cluster_identity
    if there and here and there != here:
        raise pulumi.RunError(
            f"the stack lives in cluster {there}, and you are logged in to {here}: `oc login` to the other, or destroy the stack "
            "there"
        )


def _unknown() -> pulumi.Output[str]:
    """A value that no preview knows."""

    async def later() -> str:
        return ""

    async def known() -> bool:
        return False

    return pulumi.Output(set(), asyncio.ensure_future(later()), asyncio.ensure_future(known()))
