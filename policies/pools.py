"""Groups of identical nodes, as the platforms declare them: AWS node groups, OpenShift's MachineSets, the local cluster's Nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from mistral_on_l4.config.names import POOL_LABEL
from policies.pods import GPU
from policies.reading import UNKNOWN, at, items
from policies.rule import Resource

MACHINE_SET = "kubernetes:machine.openshift.io/v1beta1:MachineSet"
INSTANCE_LABEL = "node.kubernetes.io/instance-type"


@dataclass(frozen=True)
class NodePool:
    """name: None without the pool's label; count: nodes that bill; urn: of the (first) resource that declares it."""

    name: str | None
    instance_type: str
    count: int
    is_gpu: bool
    tainted: bool
    urn: str


def pool_of(resource: Resource, gpu_pattern: str = r"^(g|gr|p)[0-9]") -> NodePool | None:
    """The nodes that a resource declares, or None if it declares none or their type is unknown."""
    if resource.token == "kubernetes:core/v1:Node":
        labels = at(resource.meta, "labels")
        kind = at(labels, INSTANCE_LABEL)
        if not isinstance(kind, str):
            return None
        gpu = bool(re.search(gpu_pattern, kind)) or at(labels, "nvidia.com/gpu.present") == "true"
        taints = at(resource.props, "spec", "taints")
        return NodePool(_text(at(labels, POOL_LABEL)), kind, 1, gpu, _gpu_taint(taints, "NoSchedule"), resource.urn)
    if resource.token == "aws:eks/nodeGroup:NodeGroup":
        kinds = items(resource.props, "instanceTypes")
        if not kinds or not isinstance(kinds[0], str):
            return None
        gpu = any(re.search(gpu_pattern, str(kind)) for kind in kinds)
        desired = at(resource.props, "scalingConfig", "desiredSize")
        count = int(desired) if isinstance(desired, (int, float)) else int(at(resource.props, "scalingConfig", "minSize") or 0)
        tainted = _gpu_taint(at(resource.props, "taints"), "NO_SCHEDULE")
        return NodePool(_text(at(resource.props, "labels", POOL_LABEL)), kinds[0], count, gpu, tainted, resource.urn)
    if resource.token == MACHINE_SET:
        machine = at(resource.props, "spec", "template", "spec")
        kind = at(machine, "providerSpec", "value", "instanceType")
        if not isinstance(kind, str):
            return None
        replicas = at(resource.props, "spec", "replicas")
        # The Machine API makes one machine where nobody says how many.
        count = int(replicas) if isinstance(replicas, (int, float)) else 1
        name, gpu = _text(at(machine, "metadata", "labels", POOL_LABEL)), bool(re.search(gpu_pattern, kind))
        return NodePool(name, kind, count, gpu, _gpu_taint(at(machine, "taints"), "NoSchedule"), resource.urn)
    return None


def gpu_pools(resources: Iterable[Resource]) -> list[NodePool]:
    """GPU pools of a stack; nodes of one pool that are resources of their own count together."""
    found: dict[tuple[str | None, str], NodePool] = {}
    for resource in resources:
        pool = pool_of(resource)
        if pool is None or not pool.is_gpu:
            continue
        key = (pool.name, pool.instance_type)
        found[key] = replace(found[key], count=found[key].count + pool.count) if key in found else pool
    return list(found.values())


def _gpu_taint(taints: Any, effect: str) -> bool:
    """Whether the taint of GPU nodes is among the taints; what is not known yet is taken for it."""
    # Any effect but a mere preference keeps other pods away.
    wanted = (effect, "NoExecute", "NO_EXECUTE", UNKNOWN)
    return taints is UNKNOWN or any(at(taint, "key") == GPU and at(taint, "effect") in wanted for taint in items(taints))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
