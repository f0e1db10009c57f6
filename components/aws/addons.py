"""EKS add-ons: cluster software that AWS keeps in step with the Kubernetes version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_aws import eks


@dataclass(frozen=True)
class AddonSpec:
    """configuration: by the add-on's own schema; pod_role: (service account, role ARN) that its pods take by Pod Identity."""

    name: str
    configuration: Mapping[str, Any] | None = None
    pod_role: tuple[str, pulumi.Input[str]] | None = None


@dataclass(frozen=True)
class AddonsArgs:
    cluster_name: pulumi.Input[str]
    addons: Sequence[AddonSpec]


class Addons(pulumi.ComponentResource):
    """A set of add-ons at the version that EKS takes for the cluster's Kubernetes; `ready` when all are active."""

    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: AddonsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:aws:Addons", name, None, opts)
        self.ready = [
            eks.Addon(
                f"{name}-{addon.name}",
                addon_name=addon.name,
                cluster_name=args.cluster_name,
                configuration_values=json.dumps(addon.configuration) if addon.configuration else None,
                pod_identity_associations=(
                    [{"service_account": addon.pod_role[0], "role_arn": addon.pod_role[1]}] if addon.pod_role else None
                ),
                resolve_conflicts_on_create="OVERWRITE",
                resolve_conflicts_on_update="OVERWRITE",
                opts=pulumi.ResourceOptions(parent=self),
            )
            for addon in args.addons
        ]
        self.register_outputs({})
