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
    """What one platform says to each question."""

    # GPU nodes and volumes cost money.
    nodes_bill: bool
    # Control plane, network and system nodes are the stack's own, unless it adopts them, and bill as well.
    makes_cluster: bool
    # `doctor`, `sweep`, `park` and `rehearse` have an account to work on.
    aws_account: bool
    # The cluster is somebody's, reached by a kubeconfig: `doctor`, `sweep`, `park` and `rehearse` look into it.
    given_cluster: bool
    # The cluster is this machine's own: `make up` starts it, its GPU nodes are imitations, its hub's checkpoints are small.
    embedded: bool
    # Services are reached by their own addresses; elsewhere through kubectl.
    direct: bool
    # What a reader of the plan's prices must know; "" for nothing.
    plan_note: str
    # Under which name the catalogue keeps the engine's images, and what a node keeps for itself.
    engine_images: str
    node_reserve: str
    # `fixed` by the manifests, or `assigned` by the platform, which refuses fixed ones.
    pod_user_ids: Literal["fixed", "assigned"]
    # KServe's word for raw Deployments in the installed version.
    deployment_mode: Literal["Standard", "RawDeployment"]
    # False where a controller generates that Secret and reverts edits.
    declares_storage_config: bool
    # What the model registry keeps its data in.
    registry_database: Literal["file", "postgresql"]
    # Where a controller (or a person) looks for the ids of a service's registry entry.
    registry_link: Literal["labels", "annotations"]
    # Who runs the registry's server: the stack, or an operator by its ModelRegistry object.
    registry_server: Literal["stack", "operator"]
    # Under which name a service finds its store's credentials.
    storage_key: str
    # What asks for a token: vLLM itself, by a key of the stack's, or the platform's proxy in front of it.
    guard: Literal["engine", "platform"]
    # Of the Service that pods of the cluster call: KServe's own, or, where its port depends on the platform, one of the stack's.
    client_service: Literal["predictor", "internal"]
    # Namespaces of the stack that are made by the platform, by the names of their settings.
    given_namespaces: frozenset[str]
    # What `access.exposure` may be, and, for the refusal of anything else, how the services are reached instead.
    exposures: frozenset[str]
    reached_by: str


TRAITS: Mapping[PlatformName, PlatformTraits] = {
    PlatformName.LOCAL: PlatformTraits(
        nodes_bill=False,
        makes_cluster=False,
        aws_account=False,
        given_cluster=False,
        embedded=True,
        direct=True,
        plan_note="local: nodes are simulated and nothing bills; prices are those of the instances that they imitate",
        engine_images="local",
        # Its nodes imitate those of EKS.
        node_reserve="eks",
        pod_user_ids="fixed",
        deployment_mode="Standard",
        declares_storage_config=True,
        registry_database="file",
        registry_link="annotations",
        registry_server="stack",
        storage_key="minio",
        guard="engine",
        client_service="predictor",
        given_namespaces=frozenset(),
        exposures=frozenset({"none"}),
        reached_by="programs on this machine reach the services by their own addresses, as `demo chat` does",
    ),
    PlatformName.EKS: PlatformTraits(
        nodes_bill=True,
        makes_cluster=True,
        aws_account=True,
        given_cluster=False,
        embedded=False,
        direct=False,
        plan_note="",
        engine_images="eks",
        node_reserve="eks",
        pod_user_ids="fixed",
        deployment_mode="Standard",
        declares_storage_config=True,
        registry_database="postgresql",
        registry_link="annotations",
        registry_server="stack",
        storage_key="minio",
        guard="engine",
        client_service="predictor",
        given_namespaces=frozenset(),
        exposures=frozenset({"none"}),
        reached_by=(
            "vLLM's key guards /v1 alone, so nothing is put in front of a service here; `demo chat` and `kubectl port-forward` "
            "reach it"
        ),
    ),
    PlatformName.OPENSHIFT: PlatformTraits(
        nodes_bill=True,
        makes_cluster=False,
        aws_account=False,
        given_cluster=True,
        embedded=False,
        direct=False,
        plan_note="the cluster itself and the OpenShift subscription are not priced",
        engine_images="openshift",
        node_reserve="openshift",
        pod_user_ids="assigned",
        deployment_mode="RawDeployment",
        declares_storage_config=False,
        registry_database="postgresql",
        registry_link="labels",
        registry_server="operator",
        storage_key="minio-connection",
        guard="platform",
        client_service="internal",
        given_namespaces=frozenset({"registry"}),
        exposures=frozenset({"none", "route"}),
        reached_by="a Route (access.exposure: route) is what reaches the services from outside",
    ),
}
