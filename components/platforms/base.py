"""The questions that a platform answers. Components know these answers and nothing else of where they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import pulumi
import pulumi_kubernetes as k8s

from mistral_on_l4.manifests.serving import Placement


class Platform(Protocol):
    """Where a stack runs.

    provider: for every Kubernetes object; cluster_ready: what any object waits for; serving_ready: what objects of KServe's
    kinds wait for (controller and webhooks); storage_class: for volumes; deployment_mode: KServe's word for raw Deployments in
    the installed version; declares_storage_config: False where a controller generates that Secret and reverts edits;
    registry_database: what the model registry keeps its data in; registry_link: where a controller (or a person) looks for the
    ids of a service's registry entry; hub_endpoint: where checkpoints come from; store_storage_class, store_placement: of the
    object store, which moves more bytes than anything else; store_tls_secret: its certificate, if it has one, and
    store_ca_config_map: what KServe trusts it by; rehearsal: True on stand-in plugins.
    """

    provider: k8s.Provider
    cluster_ready: Sequence[pulumi.Resource]
    serving_ready: Sequence[pulumi.Resource]
    storage_class: pulumi.Input[str]
    deployment_mode: Literal["Standard", "RawDeployment"]
    declares_storage_config: bool
    registry_database: Literal["file", "postgresql"]
    registry_link: Literal["labels", "annotations"]
    hub_endpoint: str
    store_storage_class: pulumi.Input[str]
    store_placement: Placement | None
    store_tls_secret: str | None
    store_ca_config_map: str | None
    rehearsal: bool

    def placement(self, pool: str) -> Placement:
        """Where pods of a pool run."""

    def nodes(self, pool: str, after: Sequence[pulumi.Resource] = ()) -> Sequence[pulumi.Resource]:
        """What exists when the pool's nodes do. `after`: the weights, which nodes wait for with `pools.start: after-seed`."""

    def inside(self, namespaces: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:
        """What the platform puts into the stack's namespaces, once they exist; store, registry and jobs wait for it."""
