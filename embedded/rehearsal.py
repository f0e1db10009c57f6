"""Reading a rehearsal: whether the stack's order of destruction is the one that leaves nothing behind, and what was left.

Order is read twice: from the dependencies in the state, before destroy, and from what the engine then really did, event by event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Layer = Literal["service", "certificate", "registry, store or KServe", "system node", "GPU node", "cluster", "network"]

# What has to be gone before what, when a stack is destroyed. GPU nodes need not wait for the registry: they bill more.
ORDER: tuple[tuple[Layer, Layer], ...] = (
    ("service", "registry, store or KServe"),
    # With cert-manager's kinds go their objects, needed or not: Helm asks nobody.
    ("certificate", "registry, store or KServe"),
    ("service", "GPU node"),
    ("service", "system node"),
    ("registry, store or KServe", "system node"),
    ("system node", "cluster"),
    ("GPU node", "cluster"),
    ("cluster", "network"),
)
RELEASE = "kubernetes:helm.sh/v3:Release"
_SYSTEM_PREFIXES = ("system-", "storage-")


@dataclass(frozen=True)
class Edges:
    """checked: pairs of resources whose order matters; violated: those that were, or could be, destroyed the wrong way round."""

    checked: int
    violated: tuple[str, ...]

    def __add__(self, other: Edges) -> Edges:
        return Edges(self.checked + other.checked, (*self.violated, *other.violated))


def layer_of(resource: Mapping[str, Any]) -> Layer | None:
    """Where a resource of a state stands; None for what has no place in the order."""
    token, inputs = resource["type"], resource.get("inputs") or {}
    meta = inputs.get("metadata") or {}
    if token == "kubernetes:serving.kserve.io/v1beta1:InferenceService":
        return "service"
    if token.startswith("kubernetes:cert-manager.io/"):
        return "certificate"
    if token in ("kubernetes:apps/v1:StatefulSet", "kubernetes:apps/v1:Deployment") and meta.get("labels"):
        return "registry, store or KServe"
    if token == RELEASE and inputs.get("name") in ("kserve", "kserve-crd", "cert-manager"):
        return "registry, store or KServe"
    if token == "aws:eks/nodeGroup:NodeGroup":
        return "system node" if str(inputs.get("nodeGroupNamePrefix")).startswith(_SYSTEM_PREFIXES) else "GPU node"
    if token == "aws:eks/cluster:Cluster":
        return "cluster"
    if token in ("aws:ec2/subnet:Subnet", "aws:ec2/natGateway:NatGateway", "aws:ec2/vpc:Vpc", "aws:ec2/vpcEndpoint:VpcEndpoint"):
        return "network"
    return None


def resources_of(export: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Resources of a `pulumi stack export`, the stack itself left out."""
    found = (export.get("deployment") or {}).get("resources") or []
    return [resource for resource in found if resource["type"] != "pulumi:pulumi:Stack"]


def edges_in_state(resources: Iterable[Mapping[str, Any]]) -> Edges:
    """Whether every pair of the order is tied together by dependencies, so that no delay can turn it round.

    A public subnet carries nothing but a NAT gateway, which the nodes are tied to.
    """
    resources = list(resources)
    upstream = {resource["urn"]: _upstream(resource, {found["urn"]: found for found in resources}) for resource in resources}
    layers = _layers(resources)
    checked, violated = 0, []
    for first, then in ORDER:
        for early in layers.get(first, []):
            for late in _needed(early, layers.get(then, [])):
                checked += 1
                if late["urn"] not in upstream[early["urn"]]:
                    violated.append(f"{_name(early)} does not depend on {_name(late)}")
    return Edges(checked, tuple(violated))


def edges_in_events(log: Path, resources: Iterable[Mapping[str, Any]]) -> Edges:
    """Whether the engine finished the one before it began the other, by its event log of a destroy that went through."""
    began: dict[str, int] = {}
    ended: dict[str, int] = {}
    for number, line in enumerate(log.read_text().splitlines()):
        event = json.loads(line)
        for kind, times in (("resourcePreEvent", began), ("resOutputsEvent", ended)):
            meta = (event.get(kind) or {}).get("metadata") or {}
            if meta.get("op") == "delete":
                times[meta["urn"]] = number
    layers = _layers(resources)
    checked, violated = 0, []
    for first, then in ORDER:
        for early in layers.get(first, []):
            for late in _needed(early, layers.get(then, [])):
                if early["urn"] not in ended or late["urn"] not in began:
                    continue
                checked += 1
                if ended[early["urn"]] > began[late["urn"]]:
                    violated.append(f"{_name(late)} began to go before {_name(early)} was gone")
    return Edges(checked, tuple(violated))


def _layers(resources: Iterable[Mapping[str, Any]]) -> dict[Layer, list[Mapping[str, Any]]]:
    layers: dict[Layer, list[Mapping[str, Any]]] = {}
    for resource in resources:
        if (layer := layer_of(resource)) is not None:
            layers.setdefault(layer, []).append(resource)
    return layers


def _needed(early: Mapping[str, Any], late: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of GPU nodes, a service needs those of its own pool; a certificate needs cert-manager."""
    if layer_of(early) == "certificate":
        return [found for found in late if found["type"] == RELEASE and found["inputs"]["name"] == "cert-manager"]
    if early["type"].endswith(":InferenceService") and late and layer_of(late[0]) == "GPU node":
        predictor = early["inputs"]["spec"]["predictor"]
        pool = (predictor.get("nodeSelector") or {}).get("mistral-on-l4/pool", "")
        return [found for found in late if found["inputs"]["nodeGroupNamePrefix"].startswith(pool)]
    return late


def _upstream(resource: Mapping[str, Any], by_urn: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """URNs that the engine deletes after this one: dependencies, parents and providers, and theirs."""
    seen: set[str] = set()
    queue = [resource]
    while queue:
        found = queue.pop()
        provider = (found.get("provider") or "").rpartition("::")[0]
        for urn in (*(found.get("dependencies") or []), found.get("parent") or "", provider):
            if urn in by_urn and urn not in seen:
                seen.add(urn)
                queue.append(by_urn[urn])
    return seen


def _name(resource: Mapping[str, Any]) -> str:
    return f"{resource['type'].rpartition(':')[2]} {resource['urn'].rpartition('::')[2]}"


def left_over(ledger: Path) -> list[str]:
    """What is still in the account: `kind name`, one each."""
    try:
        resources = json.loads(ledger.read_text())["resources"]
    except FileNotFoundError:
        return []
    return sorted(f"{entry['kind']} {entry['name'] or entry['id']}" for entry in resources.values())


def refusals(ledger: Path) -> list[str]:
    """What the account refused on the way."""
    try:
        journal = json.loads(ledger.read_text())["journal"]
    except FileNotFoundError:
        return []
    return [str(note["why"]) for note in journal if note["deed"] == "refused"]
