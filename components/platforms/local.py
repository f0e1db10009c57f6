"""The embedded cluster on this machine: a real Kubernetes API, simulated GPU nodes, local programs in place of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.core.v1 import Node, Service

from components.last_words import Cluster
from components.namespaces import owned_elsewhere
from components.platforms.base import Marks, PlatformInputs, SharedMarks
from components.platforms.provider_version import local_provider_version
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.local import NoLocalStack, local_stack
from mistral_on_l4.config.names import GPU_PRESENT_LABEL, GPU_RESOURCE, GPU_TAINT, GPU_TOLERATION, POOL_LABEL
from mistral_on_l4.config.settings import PoolSettings, ServiceSettings, Settings
from mistral_on_l4.manifests.metadata import MANAGER_LABELS
from mistral_on_l4.manifests.serving import Placement
from mistral_on_l4.planner.catalogue import Catalogue, Instance


class LocalPlatform(pulumi.ComponentResource):
    """The embedded cluster. Its nodes are Node objects of ours, which the node agent keeps alive."""

    store_placement: Placement | None = None
    store_tls_secret: str | None = None
    store_ca_config_map: str | None = None
    adopted_namespaces: frozenset[str] = frozenset()
    shared_marks = SharedMarks()
    provider: k8s.Provider
    storage_class: pulumi.Input[str]
    store_storage_class: pulumi.Input[str]
    hub_endpoint: str
    rehearsal: bool
    cluster_ready: Sequence[pulumi.Resource] = ()
    serving_ready: Sequence[pulumi.Resource] = ()

    def __init__(self, name: str, args: PlatformInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:local:Platform", name, None, opts)
        settings = args.settings
        try:
            stack = local_stack()
        except NoLocalStack as error:
            raise pulumi.RunError(str(error)) from None
        _refuse_another_stack(KubeClient.from_kubeconfig(stack.kubeconfig), settings)
        self.hub_endpoint = settings.hub.endpoint or stack.hub_url
        self.storage_class = self.store_storage_class = stack.storage_class
        self.rehearsal = True
        self._port_shift = stack.port_shift
        self.provider = Cluster(
            f"{name}-kubernetes",
            str(stack.kubeconfig),
            # The cluster's certificates may be made again; it stays the same cluster as long as its data do.
            cluster_identifier=f"embedded-{stack.home}",
            enable_config_map_mutable=True,
            enable_secret_mutable=True,
            opts=pulumi.ResourceOptions(parent=self, version=local_provider_version()),
        )
        self._pools = {
            pool.name: self._nodes(pool, _instance(args.catalogue, pool), settings.region) for pool in settings.pools.groups
        }
        self.register_outputs({"hubEndpoint": self.hub_endpoint})

    def marks(self, service: ServiceSettings) -> Marks:  # noqa: ARG002  (nobody looks for any)
        return Marks()

    def placement(self, pool: str) -> Placement:
        return Placement({POOL_LABEL: pool}, (GPU_TOLERATION,))

    def nodes(self, pool: str, after: Sequence[pulumi.Resource] = ()) -> Sequence[pulumi.Resource]:  # noqa: ARG002  (they are free)
        return self._pools[pool]

    def from_here(self, service: str, namespace: str, port: int, after: Sequence[pulumi.CustomResource]) -> pulumi.Input[str]:
        """Its Services' addresses are this machine's own."""
        known = Service.get(
            f"address-{service}",
            # No preview looks for a Service that is still to come: until then the ids are not known.
            pulumi.Output.all(*(resource.id for resource in after)).apply(lambda _: f"{namespace}/{service}"),
            opts=pulumi.ResourceOptions(parent=self, provider=self.provider, depends_on=[*after]),
        )
        address: pulumi.Output[str] = known.spec.apply(
            lambda spec: _address(spec.cluster_ip, port, self._port_shift) if spec else ""
        )
        return address

    def prepare_namespaces(self, namespaces: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:  # noqa: ARG002  (nothing is needed)
        return ()

    def _nodes(self, pool: PoolSettings, instance: Instance, region: str) -> list[pulumi.Resource]:
        """One Node object per machine of the pool, with the labels and capacity that the real instance would have."""
        return [
            Node(
                f"node-{pool.name}-{index}",
                metadata={
                    "name": f"{pool.name}-{index}",
                    "labels": {
                        **MANAGER_LABELS,
                        "mistral-on-l4/simulated": "true",
                        POOL_LABEL: pool.name,
                        "kubernetes.io/arch": "amd64",
                        "kubernetes.io/os": "linux",
                        "kubernetes.io/hostname": f"{pool.name}-{index}",
                        "node.kubernetes.io/instance-type": pool.instance_type,
                        "topology.kubernetes.io/region": region,
                        "topology.kubernetes.io/zone": f"{region}{'abc'[index % 3]}",
                        GPU_PRESENT_LABEL: "true",
                        "nvidia.com/gpu.product": f"NVIDIA-{instance.gpu}",
                    },
                    "annotations": {
                        "mistral-on-l4/capacity": json.dumps(_capacity(instance)),
                        "pulumi.com/waitFor": "condition=Ready",
                    },
                },
                spec={"taints": [dict(GPU_TAINT)]},
                opts=pulumi.ResourceOptions(parent=self, provider=self.provider),
            )
            for index in range(pool.count)
        ]


def _instance(catalogue: Catalogue, pool: PoolSettings) -> Instance:
    instance = catalogue.instances.get(pool.instance_type)
    if instance is None:
        raise pulumi.RunError(
            f"pool {pool.name!r} names the instance type {pool.instance_type!r}; the catalogue knows "
            + ", ".join(sorted(catalogue.instances))
        )
    return instance


def _address(ip: str, port: int, port_shift: int) -> str:
    """port_shift: where this user may not bind the ports below 1024."""
    return f"http://{ip}:{port + port_shift if port < 1024 else port}"


def _capacity(instance: Instance) -> Mapping[str, str]:
    return {
        "cpu": str(instance.vcpus),
        "memory": f"{instance.memory_gib:g}Gi",
        GPU_RESOURCE: str(instance.gpus),
        "ephemeral-storage": f"{instance.nvme_gb:g}G",
        "pods": "110",
    }


def _refuse_another_stack(client: KubeClient, settings: Settings) -> None:
    try:
        problem = owned_elsewhere(client, settings.namespaces)
    except ApiError as error:
        raise pulumi.RunError(f"{error.message}: start the local cluster with `make up`") from None
    if problem:
        raise pulumi.RunError(problem)
