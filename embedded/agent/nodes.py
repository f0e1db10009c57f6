"""Simulated nodes: what a kubelet keeps true of its Node object, for all of them, and the node everything without a GPU runs on."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import threading
import time
from typing import Any

from embedded.agent import quantities
from embedded.agent.containers import timestamp
from embedded.agent.events import Recorder
from embedded.home import CAPACITY_ANNOTATION, SIMULATED_LABEL, ClusterInfo, LocalHome
from mistral_on_l4.cluster.client import ApiError, KubeClient, Object

_log = logging.getLogger(__name__)
LOCAL_NODE = "local-0"
_LEASES = "kube-node-lease"
# kubelet's: the node controller taints a node whose lease is older than 40 s.
HEARTBEAT_SECONDS = 10.0
_LEASE_SECONDS = 40
_DEFAULT_PODS = "110"
_CONDITIONS = {
    "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID"),
    "Ready": ("True", "KubeletReady"),
}


def machine_capacity(home: LocalHome) -> dict[str, str]:
    """Capacity of this machine, as quantities."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory_bytes // 1024}Ki",
        "pods": _DEFAULT_PODS,
        "ephemeral-storage": f"{shutil.disk_usage(home.root).total // 1024}Ki",
    }


def local_node() -> Object:
    """The node for pods that ask for no GPU; its capacity is this machine's."""
    labels = {
        SIMULATED_LABEL: "true",
        "kubernetes.io/hostname": LOCAL_NODE,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": LOCAL_NODE, "labels": labels}, "spec": {}}


def capacity(node: Object, machine: dict[str, str]) -> dict[str, str]:
    """What the node's annotation declares, on top of what every node has; without one, this machine's. Raises ValueError."""
    text = (node["metadata"].get("annotations") or {}).get(CAPACITY_ANNOTATION)
    if text is None:
        return dict(machine)
    try:
        declared = json.loads(text)
    except ValueError:
        raise ValueError(f"annotation {CAPACITY_ANNOTATION} is not JSON: {text[:100]!r}") from None
    if not isinstance(declared, dict):
        raise ValueError(f"annotation {CAPACITY_ANNOTATION} must be an object of quantities, not {text[:100]!r}")
    for amount in declared.values():
        quantities.parse(amount)
    return {"pods": _DEFAULT_PODS, "ephemeral-storage": machine["ephemeral-storage"]} | {k: str(v) for k, v in declared.items()}


class NodeKeeper:
    """Keeps the statuses and leases of known nodes up to date, on its own thread; `update` and `forget` may be called from any."""

    def __init__(self, api: KubeClient, recorder: Recorder, home: LocalHome, cluster: ClusterInfo) -> None:
        self._api, self._recorder, self._cluster = api, recorder, cluster
        self._machine = machine_capacity(home)
        self._nodes: dict[str, Object] = {}
        self._capacities: dict[str, dict[str, str]] = {}
        self._wake = threading.Event()
        self._stopped = False
        self._boot_id = _read("/proc/sys/kernel/random/boot_id")
        self._machine_id = _read("/etc/machine-id") or self._boot_id

    def start(self) -> None:
        threading.Thread(target=self._run, name="nodes", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    def ensure_local_node(self) -> None:
        """Makes the local node if it is missing. Raises ApiError."""
        try:
            self._api.create(local_node())
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    def _restore_local_node(self) -> None:
        if LOCAL_NODE not in self._nodes:
            try:
                self.ensure_local_node()
            except ApiError as error:
                _log.info("node %s: %s", LOCAL_NODE, error)

    def update(self, node: Object) -> None:
        name = node["metadata"]["name"]
        known = self._nodes.get(name)
        self._nodes[name] = node
        annotation = (node["metadata"].get("annotations") or {}).get(CAPACITY_ANNOTATION)
        before = ((known or {}).get("metadata", {}).get("annotations") or {}).get(CAPACITY_ANNOTATION)
        if known is None or known["metadata"]["uid"] != node["metadata"]["uid"] or annotation != before:
            self._capacities.pop(name, None)
            self._wake.set()

    def forget(self, name: str) -> None:
        self._nodes.pop(name, None)
        self._capacities.pop(name, None)

    def _run(self) -> None:
        next_beat = 0.0
        while not self._stopped:
            beat = time.monotonic() >= next_beat
            if beat:
                next_beat = time.monotonic() + HEARTBEAT_SECONDS
                self._restore_local_node()
            for name, node in list(self._nodes.items()):
                try:
                    if name not in self._capacities:
                        self._write(node)
                        self._renew(node)
                    elif beat:
                        self._renew(node)
                        if not _is_ready(node):
                            self._write(node)  # the node controller gave it up while the agent was away
                except ApiError as error:
                    _log.info("node %s: %s", name, error)
                except Exception:
                    _log.exception("node %s", name)
            self._wake.wait(max(0.1, next_beat - time.monotonic()))
            self._wake.clear()

    def _write(self, node: Object) -> None:
        name = node["metadata"]["name"]
        try:
            amounts = capacity(node, self._machine)
        except ValueError as problem:
            self._recorder.warning(node, "InvalidCapacity", str(problem))
            _log.warning("node %s: %s", name, problem)
            amounts = {"pods": "0", "cpu": "0", "memory": "0"}
        body = {"metadata": {"uid": node["metadata"]["uid"]}, "status": self._status(node, amounts)}
        self._api.patch("v1", "Node", name, None, body, subresource="status")
        self._capacities[name] = amounts

    def _status(self, node: Object, amounts: dict[str, str]) -> Object:
        now = timestamp(time.time())
        old = {each["type"]: each for each in (node.get("status") or {}).get("conditions") or []}
        conditions: list[dict[str, Any]] = []
        for kind, (state, reason) in _CONDITIONS.items():
            moved = now
            if kind in old and old[kind]["status"] == state:
                moved = old[kind].get("lastTransitionTime") or now
            conditions.append(
                {
                    "type": kind,
                    "status": state,
                    "reason": reason,
                    "message": "simulated node: its pods are processes of this machine",
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": moved,
                }
            )
        system = os.uname()
        info = {
            "machineID": self._machine_id,
            "systemUUID": self._machine_id,
            "bootID": self._boot_id,
            "kernelVersion": system.release,
            "osImage": "simulated node",
            "containerRuntimeVersion": "mistral-on-l4://0.1.0",
            "kubeletVersion": "v1.36.3-local",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(system.machine, system.machine),
        }
        return {
            "capacity": amounts,
            "allocatable": amounts,
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": node["metadata"]["name"]},
            ],
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._cluster.ports.get("kubelet", 0)}},
            "nodeInfo": info,
        }

    def _renew(self, node: Object) -> None:
        name = node["metadata"]["name"]
        seconds, fraction = divmod(time.time(), 1)
        now = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(fraction * 1e6):06d}Z"
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": _LEASES, "ownerReferences": [owner]},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": now},
        }
        try:
            self._api.patch(
                "coordination.k8s.io/v1", "Lease", name, _LEASES, {"metadata": lease["metadata"], "spec": lease["spec"]}
            )
        except ApiError as error:
            if error.status != 404:
                raise
            self._api.create(lease, _LEASES)


def _is_ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _read(path: str) -> str:
    try:
        with open(path) as content:  # noqa: PTH123
            return content.read().strip()
    except OSError:
        return ""
