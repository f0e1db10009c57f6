"""OpenShift AI: installed by the stack, or there already; its components as the stack needs them, and profiles of the GPU pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource, CustomResourcePatch

from components.objects import custom
from components.openshift.operator import InstalledOperator, InstalledOperatorArgs
from components.script_jobs import JobPodArgs
from mistral_on_l4.config.settings import OperatorSettings
from mistral_on_l4.manifests.openshift import data_science as manifests
from mistral_on_l4.manifests.openshift.operators import RHOAI


@dataclass(frozen=True)
class DataScienceArgs:
    """registries_namespace: of model registries, which OpenShift AI makes; existing_cluster: name of a DataScienceCluster that is
    not the stack's, None where it makes one; machines: of the GPU pools, by name; pod: of the Job that waits for the operator.
    """

    operators: OperatorSettings
    stack: str
    registries_namespace: str
    existing_cluster: str | None
    machines: Mapping[str, manifests.PoolMachine]
    pod: JobPodArgs


class DataScience(pulumi.ComponentResource):
    """`ready`: KServe and the registry's operator serve; `profiles`: what services name."""

    ready: list[pulumi.Resource]
    profiles: list[pulumi.Resource]

    def __init__(self, name: str, args: DataScienceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:openshift:DataScience", name, None, opts)
        installed: list[pulumi.Resource] = []
        if args.operators.rhoai == "install":
            operator = InstalledOperatorArgs(RHOAI, args.stack, args.pod)
            installed = InstalledOperator("rhoai", operator, pulumi.ResourceOptions(parent=self)).ready
        # Without the components their controllers are gone, and finalizers of what is left are nobody's: they outlive their users.
        patient = pulumi.ResourceOptions(
            parent=self,
            depends_on=installed,
            custom_timeouts=pulumi.CustomTimeouts(create=f"{manifests.READY_SECONDS}s", update=f"{manifests.READY_SECONDS}s"),
        )
        if args.existing_cluster is None:
            whole = manifests.data_science_cluster(args.registries_namespace, args.stack)
            components: pulumi.Resource = CustomResource(f"{name}-components", **custom(whole), opts=patient)
        else:
            fields = custom(manifests.data_science_cluster(args.registries_namespace, None))
            fields["metadata"]["name"] = args.existing_cluster
            components = CustomResourcePatch(f"{name}-components", **fields, opts=patient)
        self.ready = [*installed, components]
        self.profiles = []
        if args.operators.hardware_profiles == "install":
            self.profiles = [
                CustomResource(
                    f"{name}-profile-{pool}",
                    **custom(manifests.hardware_profile(pool, args.stack, machine)),
                    opts=pulumi.ResourceOptions(parent=self, depends_on=self.ready),
                )
                for pool, machine in args.machines.items()
            ]
        self.register_outputs({})
