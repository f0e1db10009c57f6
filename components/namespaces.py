"""The namespaces that the stack makes its own."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.core.v1 import Namespace

from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.config.names import STACK_LABEL
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


class Namespaces(pulumi.ComponentResource):
    """Namespaces for services, object store and registry, guarded by the Pod Security Standards.

    Services run under `baseline`: KServe's own storage-initializer container sets no seccomp profile, which `restricted` asks.
    """

    all: list[pulumi.Resource]

    def __init__(self, name: str, args: NamespaceSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:cluster:Namespaces", name, None, opts)
        self.all = []
        levels = {args.services: "baseline", args.object_store: "restricted", args.registry: "restricted"}
        for namespace, level in levels.items():
            self.all.append(
                Namespace(
                    f"{name}-{namespace}",
                    metadata={
                        "name": namespace,
                        "labels": {
                            **MANAGER_LABELS,
                            STACK_LABEL: pulumi.get_stack(),
                            "pod-security.kubernetes.io/enforce": level,
                            "pod-security.kubernetes.io/warn": level,
                        },
                    },
                    opts=pulumi.ResourceOptions(parent=self),
                )
            )
        self.register_outputs({})
