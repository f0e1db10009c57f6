"""Keeps the storage driver until the stack's volumes are deleted: without it a destroy can leave disks that are billed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.networking.v1 import NetworkPolicy

from components.objects import body
from components.script_jobs import JobPodArgs, ScriptJobs, ScriptJobsArgs
from mistral_on_l4.manifests import volume_guard as manifests
from mistral_on_l4.manifests.scripts import sources
from mistral_on_l4.manifests.security import PodUserIds

# The driver's own, which outlives every namespace of the stack.
NAMESPACE = "kube-system"


@dataclass(frozen=True)
class VolumeGuardArgs:
    """namespaces: of the claims whose volumes are awaited; image: the jobs' own."""

    namespaces: Sequence[str]
    image: str
    pull_secret: str | None = None
    user_ids: PodUserIds = "fixed"


class VolumeGuard(pulumi.ComponentResource):
    """`ready`: what the namespaces with claims depend on, so that they are deleted first and this is deleted after them."""

    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: VolumeGuardArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """opts.depends_on: the storage driver, and nodes."""
        super().__init__("mistral-on-l4:aws:VolumeGuard", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        script = ScriptJobs(
            name,
            ScriptJobsArgs(
                sources=sources("await_volumes"),
                config_map=manifests.NAME,
                namespace=NAMESPACE,
                account=manifests.NAME,
                rules=manifests.rules(),
                pod=JobPodArgs(args.image, args.pull_secret, args.user_ids),
                cluster_role=f"mistral-on-l4-{manifests.NAME}",
            ),
            child,
        )
        policy = NetworkPolicy(f"{name}-network-policy", **body(manifests.network_policy(NAMESPACE)), opts=child)
        guard = Deployment(
            f"{name}-deployment",
            **body(manifests.deployment(script.program, args.namespaces)),
            opts=pulumi.ResourceOptions(
                parent=self,
                # Its account outlives it: what it waits for at its end, it has to read.
                depends_on=[*script.ready, policy],
                custom_timeouts=pulumi.CustomTimeouts(delete=f"{manifests.GRACE_SECONDS + 60}s"),
            ),
        )
        self.ready = [guard]
        self.register_outputs({})
