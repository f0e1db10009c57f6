"""The namespaces that the stack makes its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
from pulumi_kubernetes.core.v1 import Namespace, NamespacePatch

from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.config.names import ADOPTED_LABEL, STACK_LABEL
from mistral_on_l4.config.settings import NamespaceSettings
from mistral_on_l4.manifests.metadata import MANAGER_LABELS


def owned_elsewhere(client: KubeClient, settings: NamespaceSettings) -> str | None:
    """Which of the namespaces belongs to another stack, in words; None if none does. Raises ApiError.

    Two stacks with the same namespaces in one cluster would take each other's objects over, and destroy them.
    """
    for namespace in (settings.services, settings.object_store, settings.registry):
        try:
            existing = client.get("v1", "Namespace", namespace)
        except ApiError as error:
            if error.status == 404:
                continue
            raise
        owner = (existing["metadata"].get("labels") or {}).get(STACK_LABEL)
        if owner not in (None, pulumi.get_stack()):
            return (
                f"namespace {namespace} belongs to stack {owner!r} of this cluster: destroy that one first, or give this stack "
                "names of its own (mistral-on-l4:namespaces)"
            )
    return None


@dataclass(frozen=True)
class NamespacesArgs:
    """adopted: of these, those that are there without the stack: they are labelled, and stay; service_labels: what the platform
    wants on the services' namespace.
    """

    names: NamespaceSettings
    adopted: frozenset[str] = frozenset()
    service_labels: Mapping[str, str] = field(default_factory=dict)


class Namespaces(pulumi.ComponentResource):
    """Namespaces for services, object store and registry, guarded by the Pod Security Standards.

    Services run under `baseline`: KServe's own storage-initializer container sets no seccomp profile, which `restricted` asks.
    """

    all: list[pulumi.Resource]

    def __init__(self, name: str, args: NamespacesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:cluster:Namespaces", name, None, opts)
        self.all = []
        names = args.names
        levels = {names.services: "baseline", names.object_store: "restricted", names.registry: "restricted"}
        for namespace, level in levels.items():
            child = pulumi.ResourceOptions(parent=self)
            own = {STACK_LABEL: pulumi.get_stack(), **(args.service_labels if namespace == names.services else {})}
            if namespace in args.adopted:
                # Whatever else is on it is its owner's; what is ours goes again with the stack.
                patched = {"name": namespace, "labels": {**own, ADOPTED_LABEL: "true"}}
                self.all.append(NamespacePatch(f"{name}-{namespace}", metadata=patched, opts=child))
                continue
            labels = {
                **MANAGER_LABELS,
                **own,
                "pod-security.kubernetes.io/enforce": level,
                "pod-security.kubernetes.io/warn": level,
            }
            self.all.append(Namespace(f"{name}-{namespace}", metadata={"name": namespace, "labels": labels}, opts=child))
        self.register_outputs({})
