"""What components ask of a platform. They know this, and the table of traits, and nothing else of where they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pulumi
import pulumi_kubernetes as k8s

from components.recorded import Recorded
from mistral_on_l4.config.settings import ServiceSettings, Settings
from mistral_on_l4.manifests.serving import Placement
from mistral_on_l4.planner import StackPlan
from mistral_on_l4.planner.catalogue import Catalogue


@dataclass(frozen=True)
class Marks:
    """Of an InferenceService."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SharedMarks:
    """Of what services share: the runtime (`labels` and `annotations`), and the labels of their namespace."""

    runtime: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    namespace: Mapping[str, str] = field(default_factory=dict)


class PlatformInputs(Protocol):
    """What a platform is made of; the program's `StackInputs` is one."""

    @property
    def settings(self) -> Settings:
        """The stack's configuration."""

    @property
    def catalogue(self) -> Catalogue:
        """Instance types and engines that are known."""

    @property
    def recorded(self) -> Recorded:
        """What the stack's last `up` left."""

    @property
    def plan(self) -> StackPlan:
        """What was decided from both: which image serves, among other things."""


class Platform(Protocol):
    """Where a stack runs.

    provider: for every Kubernetes object; cluster_ready: what any object waits for; serving_ready: what objects of KServe's
    kinds wait for (controller and webhooks); storage_class: for volumes; hub_endpoint: where checkpoints come from;
    store_storage_class, store_placement: of the object store, which moves more bytes than anything else; store_tls_secret: its
    certificate, if it has one, and store_ca_config_map: what KServe trusts it by; adopted_namespaces: those of the stack that are
    not its own; shared_marks: labels and annotations that the platform wants on what services share; rehearsal: True on stand-in
    plugins.
    """

    provider: k8s.Provider
    cluster_ready: Sequence[pulumi.Resource]
    serving_ready: Sequence[pulumi.Resource]
    storage_class: pulumi.Input[str]
    hub_endpoint: str
    store_storage_class: pulumi.Input[str]
    store_placement: Placement | None
    store_tls_secret: str | None
    store_ca_config_map: str | None
    adopted_namespaces: frozenset[str]
    shared_marks: SharedMarks
    rehearsal: bool

    def marks(self, service: ServiceSettings) -> Marks:
        """Labels and annotations by which the platform treats a service as one of its own."""

    def placement(self, pool: str) -> Placement:
        """Where pods of a pool run."""

    def nodes(self, pool: str, after: Sequence[pulumi.Resource] = ()) -> Sequence[pulumi.Resource]:
        """What exists when the pool's nodes do. `after`: the weights, which nodes wait for with `pools.start: after-seed`."""

    def from_here(self, service: str, namespace: str, port: int, after: Sequence[pulumi.CustomResource]) -> pulumi.Input[str]:
        """How a Service is reached from outside the cluster: its address, or the command that gives it one. `after`: it exists."""

    def prepare_namespaces(self, namespaces: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:
        """What the platform puts into the stack's namespaces, once they exist; store, registry and jobs wait for it."""
