"""Keeps the storage driver until the stack's volumes are deleted: without it a destroy can leave disks that are billed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.kubernetes import ClusterRole, ClusterRoleBinding, ConfigMap, Deployment, NetworkPolicy, ServiceAccount
from mistral_on_l4 import jobs
from mistral_on_l4.manifests import volume_guard as manifests
from mistral_on_l4.manifests.metadata import fingerprint, metadata

# The driver's own, which outlives every namespace of the stack.
NAMESPACE = "kube-system"
_SCRIPT = "await_volumes"


@dataclass(frozen=True)
class VolumeGuardArgs:
    """namespaces: of the claims whose volumes are awaited; image: the jobs' own."""

    namespaces: Sequence[str]
    image: str
    pull_secret: str | None = None


class VolumeGuard(pulumi.ComponentResource):
    """`ready`: what the namespaces with claims depend on, so that they are deleted first and this is deleted after them."""

    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: VolumeGuardArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """It depends on the storage driver, and on nodes."""
        super().__init__("mistral-on-l4:aws:VolumeGuard", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        texts = jobs.scripts(_SCRIPT)
        scripts = f"{manifests.NAME}-{fingerprint(texts)}"
        config = ConfigMap(f"{name}-scripts", metadata=metadata(scripts, NAMESPACE), data=texts, immutable=True, opts=child)
        account = ServiceAccount(f"{name}-account", metadata=metadata(manifests.NAME, NAMESPACE), opts=child)
        role = ClusterRole(
            f"{name}-role", metadata=metadata(f"mistral-on-l4-{manifests.NAME}"), rules=manifests.rules(), opts=child
        )
        binding = ClusterRoleBinding(
            f"{name}-binding",
            metadata=metadata(f"mistral-on-l4-{manifests.NAME}"),
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"mistral-on-l4-{manifests.NAME}"},
            subjects=[{"kind": "ServiceAccount", "name": manifests.NAME, "namespace": NAMESPACE}],
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[role, account])),
        )
        meta, spec = manifests.network_policy(NAMESPACE)
        policy = NetworkPolicy(f"{name}-network-policy", metadata=meta, spec=spec, opts=child)
        meta, spec = manifests.deployment(NAMESPACE, args.image, f"{_SCRIPT}.py", scripts, args.namespaces, args.pull_secret)
        guard = Deployment(
            f"{name}-deployment",
            metadata=meta,
            spec=spec,
            opts=pulumi.ResourceOptions(
                parent=self,
                # Its account outlives it: what it waits for at its end, it has to read.
                depends_on=[config, account, binding, policy],
                custom_timeouts=pulumi.CustomTimeouts(delete=f"{manifests.GRACE_SECONDS + 60}s"),
            ),
        )
        self.ready = [guard]
        self.register_outputs({})
