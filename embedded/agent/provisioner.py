"""PersistentVolumes for claims of the local storage class: one folder each below the home's volumes."""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path

from embedded.agent import quantities, sandbox
from embedded.agent.events import Recorder
from embedded.home import STORAGE_CLASS, STORAGE_PROVISIONER, LocalHome
from mistral_on_l4.cluster.client import ApiError, KubeClient, Object

_log = logging.getLogger(__name__)
_SELECTED = "volume.kubernetes.io/selected-node"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_RETRY_SECONDS = 5.0


def wants_volume(claim: Object) -> bool:
    """Whether a claim waits for this provisioner: its pod has been given a node, and it has no volume."""
    metadata, spec = claim["metadata"], claim["spec"]
    return (
        spec.get("storageClassName") == STORAGE_CLASS
        and not spec.get("volumeName")
        and bool((metadata.get("annotations") or {}).get(_SELECTED))
        and not metadata.get("deletionTimestamp")
    )


def wants_room(claim: Object) -> bool:
    """Whether a bound claim of ours asks for more than it has. Its size is a number and no limit: there is nothing to enlarge."""
    spec, status = claim["spec"], claim.get("status") or {}
    if spec.get("storageClassName") != STORAGE_CLASS or status.get("phase") != "Bound":
        return False
    asked, has = spec["resources"]["requests"]["storage"], (status.get("capacity") or {}).get("storage") or "0"
    return quantities.parse(asked) > quantities.parse(has)


def volume_for(claim: Object, folder: Path) -> Object:
    """The PersistentVolume of a claim. No node affinity: all simulated nodes share this machine's disk, and outlive none of it."""
    metadata, spec = claim["metadata"], claim["spec"]
    reference = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": folder.name, "annotations": {_PROVISIONED_BY: STORAGE_PROVISIONER}},
        "spec": {
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": reference,
            "hostPath": {"path": str(folder), "type": "Directory"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "volumeMode": spec.get("volumeMode") or "Filesystem",
        },
    }


class Provisioner:
    """Makes and removes volumes on a thread of its own."""

    def __init__(self, api: KubeClient, recorder: Recorder, home: LocalHome) -> None:
        self._api, self._recorder, self._home = api, recorder, home
        self._queue: queue.SimpleQueue[tuple[str, Object]] = queue.SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._run, name="provisioner", daemon=True).start()

    def claim_changed(self, what: str, claim: Object) -> None:
        if what != "DELETED" and wants_volume(claim):
            self._queue.put(("claim", claim))
        elif what != "DELETED" and wants_room(claim):
            self._queue.put(("room", claim))

    def volume_changed(self, what: str, volume: Object) -> None:
        ours = (volume["metadata"].get("annotations") or {}).get(_PROVISIONED_BY) == STORAGE_PROVISIONER
        released = (volume.get("status") or {}).get("phase") in ("Released", "Failed")
        if ours and what != "DELETED" and released and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            self._queue.put(("volume", volume))

    def _run(self) -> None:
        while True:
            kind, item = self._queue.get()
            try:
                {"claim": self._make, "room": self._enlarge, "volume": self._remove}[kind](item)
            except (ApiError, OSError) as error:
                _log.warning("%s %s: %s", kind, item["metadata"]["name"], error)
                if kind != "volume":
                    what = "provision volume" if kind == "claim" else "enlarge volume"
                    self._recorder.warning(item, "ProvisioningFailed", f"failed to {what}: {error}")
                if not isinstance(error, ApiError) or error.status in (0, 429) or error.status >= 500:
                    timer = threading.Timer(_RETRY_SECONDS, self._queue.put, ((kind, item),))
                    timer.daemon = True
                    timer.start()
            except Exception:
                _log.exception("%s %s", kind, item["metadata"]["name"])

    def _make(self, claim: Object) -> None:
        folder = self._home.volumes / f"pvc-{claim['metadata']['uid']}"
        folder.mkdir(mode=0o777, parents=True, exist_ok=True)
        folder.chmod(0o777)  # the folder above it is its owner's alone
        try:
            self._api.create(volume_for(claim, folder))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return
        self._recorder.normal(claim, "ProvisioningSucceeded", f"Successfully provisioned volume {folder.name}")

    def _enlarge(self, claim: Object) -> None:
        """As the resizer beside a storage driver does: the volume first, then the claim's status."""
        name, size = claim["metadata"]["name"], {"storage": claim["spec"]["resources"]["requests"]["storage"]}
        self._api.patch("v1", "PersistentVolume", claim["spec"]["volumeName"], None, {"spec": {"capacity": size}})
        status = {"status": {"capacity": size}}
        self._api.patch("v1", "PersistentVolumeClaim", name, claim["metadata"]["namespace"], status, subresource="status")
        self._recorder.normal(claim, "VolumeResizeSuccessful", f"Resized volume {claim['spec']['volumeName']} to {size['storage']}")

    def _remove(self, volume: Object) -> None:
        path = Path(volume["spec"].get("hostPath", {}).get("path", ""))
        # Never a folder elsewhere, whatever the object says.
        if path.parent == self._home.volumes and path.exists():
            sandbox.remove(path)
        try:
            self._api.delete("v1", "PersistentVolume", volume["metadata"]["name"], propagation="Background")
        except ApiError as error:
            if error.status != 404:
                raise
