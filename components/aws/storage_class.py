"""StorageClasses on gp3: an EKS cluster has none that is the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.storage.v1 import StorageClass

from mistral_on_l4.config.names import STACK_LABEL
from mistral_on_l4.manifests.metadata import MANAGER_LABELS

DEFAULT, STORE = STORAGE_CLASSES = ("gp3", "gp3-weights")

# gp3's baseline, without extra cost, and its ratio: at most a quarter MiB/s per IOPS.
BASE_THROUGHPUT = 125
_BASE_IOPS = 3000
_IOPS_PER_MIBPS = 4


@dataclass(frozen=True)
class StorageClassesArgs:
    """throughput_mibps: of the volume with the weights; tags: of every volume."""

    throughput_mibps: int
    tags: Mapping[str, str]


class StorageClasses(pulumi.ComponentResource):
    """`default`: the cluster's default, at gp3's baseline; `store`: for the weights, with the throughput that the settings ask.

    It depends on the EBS driver, which must outlive every volume of these classes.
    """

    default: pulumi.Input[str]
    store: pulumi.Input[str]
    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: StorageClassesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """opts.depends_on: the EBS driver, which must outlive every volume of these classes."""
        super().__init__("mistral-on-l4:aws:StorageClasses", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.ready = [
            _gp3(f"{name}-default", DEFAULT, BASE_THROUGHPUT, args.tags, True, child),
            _gp3(f"{name}-store", STORE, args.throughput_mibps, args.tags, False, child),
        ]
        self.default, self.store = DEFAULT, STORE
        self.register_outputs({})


def _gp3(
    name: str, class_name: str, throughput: int, tags: Mapping[str, str], default: bool, opts: pulumi.ResourceOptions
) -> StorageClass:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    # All values are strings to the driver. Volumes carry no tag of the cluster, so `demo sweep` finds them by these.
    tagging = {f"tagSpecification_{index}": f"{key}={text}" for index, (key, text) in enumerate(sorted(tags.items()), 1)}
    return StorageClass(
        name,
        metadata={
            "name": class_name,
            "labels": {**MANAGER_LABELS, STACK_LABEL: pulumi.get_stack()},
            "annotations": annotations,
        },
        provisioner="ebs.csi.aws.com",
        parameters={
            "type": "gp3",
            "throughput": str(throughput),
            "iops": str(max(_BASE_IOPS, _IOPS_PER_MIBPS * throughput)),
            "encrypted": "true",
            "csi.storage.k8s.io/fstype": "xfs",
            **tagging,
        },
        # A volume is made in the zone of its pod's node.
        volume_binding_mode="WaitForFirstConsumer",
        reclaim_policy="Delete",
        allow_volume_expansion=True,
        opts=opts,
    )
