"""What differs between platforms, as one table without Pulumi: planner, commands, policies and components all read it here.

A question that has no field here is no difference between platforms: outside its own files nothing asks which platform it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class PlatformName(StrEnum):
    """Where the stack runs."""

    LOCAL = "local"
    EKS = "eks"
    OPENSHIFT = "openshift"


@dataclass(frozen=True)
class PlatformTraits:
    """The answers of one platform.

    built: False where a stack is refused with a sentence; nodes_bill: GPU nodes and volumes cost money; makes_cluster: control
    plane, network and system nodes are the stack's own, unless it adopts them, and bill as well; aws_account: `doctor`, `sweep`,
    `park` and `rehearse` have an account to work on; direct: Services are reached by their own addresses, elsewhere through
    kubectl; engine_images, node_reserve: under which name the catalogue keeps the engine's images and what a node keeps for
    itself; pod_user_ids: `fixed` by the manifests, or `assigned` by the platform, which refuses fixed ones; deployment_mode:
    KServe's word for raw Deployments in the installed version; declares_storage_config: False where a controller generates that
    Secret and reverts edits; registry_database: what the model registry keeps its data in; registry_link: where a controller (or
    a person) looks for the ids of a service's registry entry; exposures: what `access.exposure` may be.
    """

    built: bool
    nodes_bill: bool
    makes_cluster: bool
    aws_account: bool
    direct: bool
    engine_images: str
    node_reserve: str
    pod_user_ids: Literal["fixed", "assigned"]
    deployment_mode: Literal["Standard", "RawDeployment"]
    declares_storage_config: bool
    registry_database: Literal["file", "postgresql"]
    registry_link: Literal["labels", "annotations"]
    exposures: frozenset[str]


TRAITS: Mapping[PlatformName, PlatformTraits] = {
    PlatformName.LOCAL: PlatformTraits(
        built=True,
        nodes_bill=False,
        makes_cluster=False,
        aws_account=False,
        direct=True,
        engine_images="local",
        # Its nodes imitate those of EKS.
        node_reserve="eks",
        pod_user_ids="fixed",
        deployment_mode="Standard",
        declares_storage_config=True,
        registry_database="file",
        registry_link="annotations",
        exposures=frozenset({"none"}),
    ),
    PlatformName.EKS: PlatformTraits(
        built=True,
        nodes_bill=True,
        makes_cluster=True,
        aws_account=True,
        direct=False,
        engine_images="eks",
        node_reserve="eks",
        pod_user_ids="fixed",
        deployment_mode="Standard",
        declares_storage_config=True,
        registry_database="postgresql",
        registry_link="annotations",
        exposures=frozenset({"none"}),
    ),
    PlatformName.OPENSHIFT: PlatformTraits(
        built=False,
        nodes_bill=True,
        makes_cluster=False,
        aws_account=False,
        direct=False,
        engine_images="openshift",
        node_reserve="openshift",
        pod_user_ids="assigned",
        deployment_mode="RawDeployment",
        declares_storage_config=False,
        registry_database="postgresql",
        registry_link="labels",
        exposures=frozenset({"none", "route"}),
    ),
}
