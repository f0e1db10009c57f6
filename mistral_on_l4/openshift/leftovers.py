"""What a stack left in an OpenShift cluster after its destroy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.config.names import POOL_LABEL, PROJECT
from mistral_on_l4.manifests.openshift import gpu_software, names
from mistral_on_l4.manifests.serving import API_VERSION
from mistral_on_l4.openshift.reading import all_of, found
from mistral_on_l4.openshift.site import Site

_PART_OF = "app.kubernetes.io/part-of"
_MACHINE_SET_LABEL = "machine.openshift.io/cluster-api-machineset"
# Kinds whose objects carry the stack's label; those that bill come first.
_LABELLED = (
    (names.MACHINE_API, "MachineSet"),
    ("v1", "Namespace"),
    (names.GPU_API, "ClusterPolicy"),
    (names.DATA_SCIENCE_CLUSTER_API, "DataScienceCluster"),
    (names.HARDWARE_PROFILE_API, "HardwareProfile"),
    (names.MODEL_REGISTRY_API, "ModelRegistry"),
)


@dataclass(frozen=True)
class Leftover:
    """bills: whether an instance or a disk of the account stands behind it."""

    kind: str
    name: str
    bills: bool
    about: str = ""


def sweep(site: Site) -> tuple[list[Leftover], list[str]]:
    """(what is left, what could not be looked at)."""
    left: list[Leftover] = []
    unseen: list[str] = []
    for look in (_labelled, _machines, _volumes, _services, _dashboard):
        try:
            left += look(site)
        except ApiError as error:
            unseen.append(str(error))
    return left, unseen


def _labelled(site: Site) -> Iterator[Leftover]:
    for api_version, kind in _LABELLED:
        for item in all_of(site.reader, api_version, kind):
            if site.is_ours(item):
                about = "being deleted" if item["metadata"].get("deletionTimestamp") else ""
                yield Leftover(kind, item["metadata"]["name"], kind == "MachineSet", about)


def _machines(site: Site) -> Iterator[Leftover]:
    """Machines outlive their MachineSet while their instances end, and nodes their Machines."""
    prefix = f"{site.infrastructure}-"
    pools = {f"{prefix}{pool.name}-" for pool in site.settings.pools.groups}
    for machine in all_of(site.reader, names.MACHINE_API, "Machine", names.MACHINE_NAMESPACE):
        owner = str((machine["metadata"].get("labels") or {}).get(_MACHINE_SET_LABEL))
        if owner.startswith(tuple(pools)):
            phase = str((machine.get("status") or {}).get("phase") or "")
            yield Leftover("Machine", machine["metadata"]["name"], True, phase)
    known = {pool.name for pool in site.settings.pools.groups}
    for node in all_of(site.reader, "v1", "Node"):
        if (node["metadata"].get("labels") or {}).get(POOL_LABEL) in known:
            yield Leftover("Node", node["metadata"]["name"], True)


def _volumes(site: Site) -> Iterator[Leftover]:
    spaces = site.settings.namespaces
    ours = {spaces.services, spaces.object_store, spaces.registry}
    for volume in all_of(site.reader, "v1", "PersistentVolume"):
        claim = (volume.get("spec") or {}).get("claimRef") or {}
        phase = (volume.get("status") or {}).get("phase")
        if claim.get("namespace") in ours and phase in ("Released", "Failed"):
            yield Leftover("PersistentVolume", volume["metadata"]["name"], True, f"of {claim['namespace']}/{claim.get('name')}")


def _services(site: Site) -> Iterator[Leftover]:
    wanted = {service.name for service in site.settings.services}
    for service in all_of(site.reader, API_VERSION, "InferenceService", site.settings.namespaces.services):
        meta = service["metadata"]
        if meta["name"] in wanted and (meta.get("labels") or {}).get(_PART_OF) == PROJECT:
            held = ", ".join(meta.get("finalizers") or [])
            yield Leftover("InferenceService", meta["name"], True, f"held by {held}" if meta.get("deletionTimestamp") else "")


def _dashboard(site: Site) -> Iterator[Leftover]:
    there = found(site.reader, "v1", "ConfigMap", gpu_software.DASHBOARD, gpu_software.DASHBOARD_NAMESPACE)
    if there is not None and (there["metadata"].get("labels") or {}).get(_PART_OF) == PROJECT:
        yield Leftover("ConfigMap", gpu_software.DASHBOARD, False)
