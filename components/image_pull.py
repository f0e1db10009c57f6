"""Pulls the engine's image onto GPU nodes while weights still move, so that a service need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apps.v1 import DaemonSet

from mistral_on_l4.manifests.metadata import SKIP_AWAIT, labels, metadata, selector
from mistral_on_l4.manifests.placement import POOLS_ALONE
from mistral_on_l4.manifests.security import PodUserIds, container_security, pod_security
from mistral_on_l4.manifests.serving import Placement

NAME = "engine-image"


@dataclass(frozen=True)
class ImagePullArgs:
    """placement: of the GPU nodes that pull; namespace: with the pull secret."""

    image: str
    namespace: str
    placement: Placement
    pull_secret: str | None = None
    user_ids: PodUserIds = "fixed"


class ImagePull(pulumi.ComponentResource):
    """A pod on each GPU node of the stack that holds the image and sleeps. Nothing waits for it: a start without it is slower."""

    def __init__(self, name: str, args: ImagePullArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:cluster:ImagePull", name, None, opts)
        pod: dict[str, Any] = {
            "automountServiceAccountToken": False,
            "nodeSelector": dict(args.placement.node_selector),
            "tolerations": [dict(toleration) for toleration in args.placement.tolerations],
            "affinity": POOLS_ALONE,
            "securityContext": pod_security(args.user_ids, {"runAsUser": 2000}),
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "hold",
                    "image": args.image,
                    "command": ["sleep", "infinity"],
                    # The image asks for all GPUs. `void` means nothing of NVIDIA's at all; `none` still brings the driver's
                    # files, and older toolkits take it for `all` (nvidia-container-toolkit#1562).
                    "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}],
                    # The runtime's hooks run inside the limit, before the container's own process does.
                    "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"cpu": "50m", "memory": "64Mi"}},
                    "securityContext": container_security(args.user_ids, {}),
                }
            ],
        }
        if args.pull_secret:
            pod["imagePullSecrets"] = [{"name": args.pull_secret}]
        tags = labels(NAME, "image-pull")
        DaemonSet(
            f"{name}-daemon-set",
            metadata=metadata(NAME, args.namespace, tags, SKIP_AWAIT),
            spec={
                "selector": {"matchLabels": selector(NAME, "image-pull")},
                "template": {"metadata": {"labels": tags}, "spec": pod},
            },
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
