"""The namespaces that the stack makes its own."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as k8s

from components.kubernetes import Namespace
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
            found = client.get("v1", "Namespace", namespace)
        except ApiError as error:
            if error.status == 404:
                continue
            raise
        owner = (found["metadata"].get("labels") or {}).get(STACK_LABEL)
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

    def __init__(
        self, name: str, settings: NamespaceSettings, provider: k8s.Provider, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("mistral-on-l4:cluster:Namespaces", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, provider=provider)
        self.all: list[pulumi.Resource] = []
        levels = {settings.services: "baseline", settings.object_store: "restricted", settings.registry: "restricted"}
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
                            "pod-security.kubernetes.io/warn": "restricted" if level == "restricted" else level,
                        },
                    },
                    opts=child,
                )
            )
        self.register_outputs({})
