"""Where the stand-in's account touches this machine: a cluster's endpoint is the embedded API server, its nodes are simulated."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

from embedded.home import CAPACITY_ANNOTATION, SIMULATED_LABEL, LocalHome, NoCluster
from embedded.plugins.aws.ledger import AwsError, Entry
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.live import condition

GROUP_LABEL = "eks.amazonaws.com/nodegroup"
_EFFECTS = {"NO_SCHEDULE": "NoSchedule", "NO_EXECUTE": "NoExecute", "PREFER_NO_SCHEDULE": "PreferNoSchedule"}
_READY_SECONDS = 120.0


class Bridge(Protocol):
    """What a resource type may ask of the world outside the account."""

    def endpoint(self) -> tuple[str, str]:
        """URL and base64 of the certificate authority of the API server that stands in for EKS's."""

    def join(self, group: Entry, inputs: Mapping[str, Any]) -> None:
        """Makes the nodes of a group, and returns when they are ready."""

    def part(self, group: Entry) -> None:
        """Takes the nodes of a group out of the cluster."""


class EmbeddedBridge:
    """The bridge to the embedded cluster of a local home."""

    def __init__(self, home: LocalHome, region: str) -> None:
        self._home, self._region = home, region

    def endpoint(self) -> tuple[str, str]:
        try:
            url = self._home.cluster().api_server_url
            authority = (self._home.pki / "ca.crt").read_bytes()
        except (NoCluster, FileNotFoundError):
            raise AwsError(
                "EKS: CreateCluster",
                "StandIn",
                f"no embedded cluster in {self._home.root} can stand in for EKS's control plane: `demo rehearse` starts one",
            ) from None
        return url, base64.b64encode(authority).decode()

    def join(self, group: Entry, inputs: Mapping[str, Any]) -> None:
        client, (instance_type,) = self._client(), inputs["instanceTypes"]
        zones = group.data["zones"]
        names = [f"{group.name}-{index}" for index in range(group.data["desired"])]
        for index, name in enumerate(names):
            labels = {
                "mistral-on-l4/simulated": "true",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name,
                "node.kubernetes.io/instance-type": instance_type,
                "topology.kubernetes.io/region": self._region,
                "topology.kubernetes.io/zone": zones[index % len(zones)],
                "eks.amazonaws.com/capacityType": inputs.get("capacityType", "ON_DEMAND"),
                GROUP_LABEL: group.name,
                SIMULATED_LABEL: "true",
                **(inputs.get("labels") or {}),
            }
            taints = [
                {"key": t["key"], "value": t.get("value", ""), "effect": _EFFECTS[t["effect"]]} for t in inputs.get("taints") or []
            ]
            node = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "labels": labels,
                    "annotations": {CAPACITY_ANNOTATION: json.dumps(_capacity(instance_type))},
                },
                "spec": {"taints": taints},
            }
            try:
                client.create(node)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
        self._wait_ready(client, names)

    def part(self, group: Entry) -> None:
        client = self._client()
        for node in client.list("v1", "Node", label_selector=f"{GROUP_LABEL}={group.name}")["items"]:
            client.delete("v1", "Node", node["metadata"]["name"])

    def _client(self) -> KubeClient:
        return KubeClient.from_kubeconfig(self._home.kubeconfig)

    @staticmethod
    def _wait_ready(client: KubeClient, names: list[str]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        waiting = set(names)
        while waiting:
            waiting = {name for name in waiting if condition(client.get("v1", "Node", name), "Ready") != "True"}
            if waiting and time.monotonic() > deadline:
                raise AwsError(
                    "EKS: CreateNodegroup",
                    "NodeCreationFailure",
                    f"the simulated nodes {', '.join(sorted(waiting))} did not get ready in {_READY_SECONDS:.0f} s: does the node "
                    "agent run?",
                )
            time.sleep(0.2)


def _capacity(instance_type: str) -> dict[str, str]:
    from mistral_on_l4.planner.catalogue import load_catalogue

    instance = load_catalogue().instances[instance_type]
    capacity = {
        "cpu": str(instance.vcpus),
        "memory": f"{instance.memory_gib:.0f}Gi",
        "ephemeral-storage": f"{instance.nvme_gb or 40:.0f}G",
        "pods": str(instance.max_pods),
    }
    return capacity | ({"nvidia.com/gpu": str(instance.gpus)} if instance.gpus else {})
