"""Feature discovery and driver on GPU nodes, and the console's dashboard of them; each brought by the stack or left as it is."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core.v1 import ConfigMap

from components.objects import body, custom
from components.openshift.operator import InstalledOperator, InstalledOperatorArgs
from components.script_jobs import JobPodArgs
from mistral_on_l4.config.settings import OperatorSettings
from mistral_on_l4.manifests.openshift import gpu_software as manifests
from mistral_on_l4.manifests.openshift.operators import GPU, NFD


@dataclass(frozen=True)
class GpuSoftwareArgs:
    """driver_version: that the engine's CUDA needs, None for the operator's own; pod: of the Jobs that wait for operators."""

    operators: OperatorSettings
    stack: str
    driver_version: str | None
    pod: JobPodArgs


class GpuSoftware(pulumi.ComponentResource):
    """`ready`: what the nodes' GPUs are awaited after."""

    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: GpuSoftwareArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:openshift:GpuSoftware", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.ready = []
        if args.operators.nfd == "install":
            nfd = InstalledOperator("nfd", InstalledOperatorArgs(NFD, args.stack, args.pod), child)
            discovery = pulumi.ResourceOptions(parent=self, depends_on=nfd.ready)
            self.ready.append(CustomResource(f"{name}-discovery", **custom(manifests.feature_discovery()), opts=discovery))
        if args.operators.gpu == "install":
            gpu = InstalledOperator("gpu-operator", InstalledOperatorArgs(GPU, args.stack, args.pod), child)
            # By the labels of feature discovery the operator chooses the kernel that it builds the driver for.
            policy = pulumi.ResourceOptions(parent=self, depends_on=[*gpu.ready, *self.ready])
            manifest = manifests.cluster_policy(args.stack, args.driver_version)
            self.ready.append(CustomResource(f"{name}-policy", **custom(manifest), opts=policy))
        ConfigMap(f"{name}-dashboard", **body(manifests.dashboard()), opts=child)
        if args.operators.monitoring == "install":
            ConfigMap(f"{name}-monitoring", **body(manifests.monitoring()), opts=child)
        self.register_outputs({})
