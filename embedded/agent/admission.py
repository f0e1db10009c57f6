"""Who may connect to which pod: ingress NetworkPolicies, applied by the service proxy, which knows both ends of a connection.

As the API documents them: a pod that no policy with policyType Ingress selects is open; one that some select takes what any of
them admits. Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from mistral_on_l4.cluster.client import Object

Labels = Mapping[str, str]


class Admission:
    """The policies of a cluster at one moment. pods: those that run, by uid, with their addresses."""

    def __init__(
        self, policies: Iterable[Object], namespaces: Iterable[Object], pods: Mapping[str, Object], addresses: Mapping[str, str]
    ) -> None:
        self._policies: dict[str, list[Object]] = {}
        for policy in policies:
            if "Ingress" in (policy["spec"].get("policyTypes") or ["Ingress"]):
                self._policies.setdefault(policy["metadata"]["namespace"], []).append(policy)
        self._namespaces = {each["metadata"]["name"]: each["metadata"].get("labels") or {} for each in namespaces}
        self._pods, self._addresses = pods, addresses

    def clients(self, uid: str, port: int) -> list[str] | None:
        """Uids of the pods that may connect to a pod's TCP port; None if every pod may. A pod always reaches itself."""
        target = self._pods[uid]
        selecting = [
            policy
            for policy in self._policies.get(target["metadata"]["namespace"], [])
            if selects(policy["spec"].get("podSelector"), _labels(target))
        ]
        if not selecting:
            return None
        admitted = {uid}
        for policy in selecting:
            for rule in policy["spec"].get("ingress") or []:
                if not any(_is_port(entry, port, target) for entry in rule.get("ports") or [{}]):
                    continue
                if not rule.get("from"):
                    return None
                admitted |= {client for client in self._pods if any(self._is_peer(peer, client, policy) for peer in rule["from"])}
        return sorted(admitted)

    def _is_peer(self, peer: Mapping[str, Any], client: str, policy: Object) -> bool:
        if (block := peer.get("ipBlock")) is not None:
            address = ipaddress.ip_address(self._addresses[client])
            inside = address in ipaddress.ip_network(block["cidr"], strict=False)
            return inside and not any(address in ipaddress.ip_network(each, strict=False) for each in block.get("except") or [])
        pod = self._pods[client]
        namespace = pod["metadata"]["namespace"]
        if peer.get("namespaceSelector") is None:
            near = namespace == policy["metadata"]["namespace"]
        else:
            near = selects(peer["namespaceSelector"], self._namespaces.get(namespace, {}))
        return near and selects(peer.get("podSelector"), _labels(pod))


def selects(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Whether a label selector matches; none, or an empty one, matches everything."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for expression in selector.get("matchExpressions") or []:
        key, values = expression["key"], expression.get("values") or []
        met = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not met.get(expression["operator"], False):
            return False
    return True


def _is_port(entry: Mapping[str, Any], port: int, target: Object) -> bool:
    if entry.get("protocol", "TCP") != "TCP":
        return False
    wanted = entry.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        declared = (each for container in target["spec"]["containers"] for each in container.get("ports") or [])
        return any(each.get("name") == wanted and each["containerPort"] == port for each in declared)
    return bool(wanted <= port <= entry.get("endPort", wanted))


def _labels(pod: Object) -> Labels:
    labels: Labels = pod["metadata"].get("labels") or {}
    return labels
