"""A Kubernetes provider that can be asked why an object did not come up, beside the official one's "timed out"."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.last_words import last_words, selector_of


class Cluster(k8s.Provider):  # type: ignore[misc]  # pulumi_kubernetes is not followed
    """The provider of a stack's cluster. `explain`: hooks for whatever waits for pods."""

    explain: pulumi.ResourceHookBinding

    def __init__(self, name: str, kubeconfig: pulumi.Input[str], opts: pulumi.ResourceOptions, **args: Any) -> None:
        """kubeconfig: a file's name, or its contents."""
        super().__init__(name, kubeconfig=kubeconfig, opts=opts, **args)
        self._known: str | None = None
        pulumi.Output.from_input(kubeconfig).apply(self._remember)
        self.explain = pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook(f"{name}-last-words", self._say)])

    def _remember(self, text: str) -> None:
        # A preview of a cluster that is still to come never gets here.
        self._known = text

    def _say(self, args: pulumi.ErrorHookArgs) -> bool:
        """Beside the provider's own error, the pod's. Never asks for another try, and never fails by itself."""
        inputs = dict(args.new_inputs or args.old_inputs or {})
        kind, meta = args.type.rpartition(":")[2], inputs.get("metadata") or {}
        selector = selector_of(kind, inputs)
        if self._known is None or selector is None or args.failed_operation == "delete":
            return False
        try:
            with closing(_client(self._known)) as client:
                lines = last_words(client, meta.get("namespace") or "default", selector)
        except (ApiError, ValueError, OSError) as error:
            lines = [f"its pods cannot be asked: {error}"]
        if lines:
            pulumi.log.error("\n".join([f"{kind} {meta.get('namespace')}/{meta.get('name')}: {lines[0]}", *lines[1:]]))
        return False


def _client(kubeconfig: str) -> KubeClient:
    return KubeClient.from_kubeconfig_text(kubeconfig) if "{" in kubeconfig else KubeClient.from_kubeconfig(kubeconfig)


def explained(component: pulumi.Resource) -> pulumi.ResourceHookBinding | None:
    """For the options of a component's children that wait for pods: the hooks of the cluster that they are in."""
    provider = component.get_provider("kubernetes:core/v1:Pod")
    return provider.explain if isinstance(provider, Cluster) else None
