"""The release of the GPU node image: the pinned one, or AWS's newest, with a warning of those that are known not to work."""

from __future__ import annotations

import pulumi
from pulumi_aws import ssm

from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.settings import Settings

# GPU pods of these releases of the node image do not start: first and last release date, and what is known of it.
BROKEN_RELEASES = (
    ("20260423", "20260511", "unprivileged device plugins find no GPU (amazon-eks-ami#2706)"),
    ("20260818", "20260826", "NVIDIA's toolkit 1.20.0 breaks some GPU pods (amazon-eks-ami#2790)"),
)
_RELEASES = "https://github.com/awslabs/amazon-eks-ami/releases"


def gpu_release(settings: Settings, version: str, ask: pulumi.InvokeOptions) -> str:
    """For a cluster of a Kubernetes version, such as 1.36. Raises pulumi.RunError if the pinned one is for another."""
    pinned = settings.cluster.gpu_release_version
    if pinned and not pinned.startswith(f"{version}."):
        raise pulumi.RunError(
            f"{PROJECT}:cluster.gpuReleaseVersion {pinned} is a node image for another Kubernetes than the cluster's "
            f"{version}: {_RELEASES} lists the releases, each with its versions"
        )
    release = pinned or _newest(version, ask)
    date = release.rpartition("-")[2]
    for first, last, why in BROKEN_RELEASES:
        if first <= date <= last:
            pulumi.log.warn(
                f"GPU node image {release} is known to be broken: {why}; pin another one for {version} with "
                f"{PROJECT}:cluster.gpuReleaseVersion ({_RELEASES} lists them)"
            )
    return release


def _newest(version: str, ask: pulumi.InvokeOptions) -> str:
    path = f"/aws/service/eks/optimized-ami/{version}/amazon-linux-2023/x86_64/nvidia/recommended/release_version"
    return ssm.get_parameter(name=path, opts=ask).value
