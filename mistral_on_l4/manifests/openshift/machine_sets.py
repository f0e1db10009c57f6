"""A GPU pool as a MachineSet of the Machine API, derived from a worker MachineSet that works in this cluster."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mistral_on_l4.config.machine_disks import root_gib
from mistral_on_l4.config.names import GPU_RESOURCE, GPU_TAINT, POOL_LABEL, STACK_LABEL, STACK_TAG
from mistral_on_l4.manifests.metadata import MANAGER_LABELS, SKIP_AWAIT, manifest, metadata
from mistral_on_l4.manifests.openshift.names import MACHINE_API, MACHINE_NAMESPACE

_MACHINE = "machine.openshift.io/cluster-api-"
ROLE = "gpu-worker"


@dataclass(frozen=True)
class MachinePool:
    """infrastructure: the cluster's name for itself; instance_type, gpus, vcpus, memory_mib: of one machine; tags: of instances."""

    name: str
    stack: str
    infrastructure: str
    instance_type: str
    count: int
    spot: bool
    gpus: int
    vcpus: int
    memory_mib: int
    tags: Mapping[str, str]


def zone_of(worker: Mapping[str, Any]) -> str:
    """The zone that a MachineSet's machines are in, "" where it names none."""
    provider = worker["spec"]["template"]["spec"]["providerSpec"]["value"]
    return str((provider.get("placement") or {}).get("availabilityZone") or "")


def machine_set_name(infrastructure: str, pool: str, zone: str) -> str:
    return f"{infrastructure}-{pool}-{zone}"


def machine_set(pool: MachinePool, worker: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the cluster and its account need (image, subnet, security groups, profile, user data, credentials, tags,
    zone) is the worker's; what makes a GPU pool of it is ours. worker: a live MachineSet.
    """
    name = machine_set_name(pool.infrastructure, pool.name, zone_of(worker))
    machines = {f"{_MACHINE}cluster": pool.infrastructure, f"{_MACHINE}machineset": name}
    roles = {f"{_MACHINE}machine-role": ROLE, f"{_MACHINE}machine-type": ROLE}
    tags = {**MANAGER_LABELS, STACK_LABEL: pool.stack, f"{_MACHINE}cluster": pool.infrastructure, POOL_LABEL: pool.name}
    capacity = {
        "machine.openshift.io/GPU": str(pool.gpus),
        "machine.openshift.io/vCPU": str(pool.vcpus),
        "machine.openshift.io/memoryMb": str(pool.memory_mib),
    }
    spec = {
        "replicas": pool.count,
        "selector": {"matchLabels": machines},
        "template": {
            "metadata": {"labels": {**machines, **roles}},
            "spec": {
                "metadata": {
                    "labels": {
                        "node-role.kubernetes.io/worker": "",
                        "node-role.kubernetes.io/gpu": "",
                        POOL_LABEL: pool.name,
                    }
                },
                "taints": [dict(GPU_TAINT)],
                "providerSpec": {"value": _provider(pool, worker)},
            },
        },
    }
    meta = metadata(name, MACHINE_NAMESPACE, tags, {**capacity, **SKIP_AWAIT})
    return manifest(MACHINE_API, "MachineSet", meta, spec=spec)


def _provider(pool: MachinePool, worker: Mapping[str, Any]) -> dict[str, Any]:
    provider: dict[str, Any] = copy.deepcopy(dict(worker["spec"]["template"]["spec"]["providerSpec"]["value"]))
    # The worker's own key of the account, if it has one, stays; without a name the account's default encrypts.
    before = ((provider.get("blockDevices") or [{}])[0].get("ebs")) or {}
    disk = {"encrypted": True, "volumeSize": root_gib(pool.gpus), "volumeType": "gp3"}
    if key := before.get("kmsKey"):
        disk["kmsKey"] = key
    provider |= {"instanceType": pool.instance_type, "blockDevices": [{"ebs": disk}]}
    provider.pop("spotMarketOptions", None)
    provider.pop("metadata", None)
    if pool.spot:
        provider["spotMarketOptions"] = {}
    tags = {tag["name"]: tag["value"] for tag in provider.get("tags") or []}
    tags |= {STACK_TAG: pool.stack, **pool.tags}
    provider["tags"] = [{"name": name, "value": value} for name, value in tags.items()]
    return provider


def gpus_of(node: Mapping[str, Any]) -> int:
    """GPUs that a node offers to pods."""
    text = str(((node.get("status") or {}).get("allocatable") or {}).get(GPU_RESOURCE, "0"))
    return int(text) if text.isdigit() else 0
