"""GPU pools of a running stack on OpenShift: to zero, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mistral_on_l4.config.names import POOL_LABEL
from mistral_on_l4.manifests.openshift import names
from mistral_on_l4.openshift.reading import Object, Reader
from mistral_on_l4.openshift.site import Site


class Patcher(Reader, Protocol):
    """KubeClient, as far as it is needed."""

    def patch(self, api_version: str, kind: str, name: str, namespace: str | None, body: Mapping[str, object]) -> Object:
        """A merge patch. Raises ApiError."""


class NoPool(Exception):
    """A pool that cannot be resized; one line."""


def resize(site: Site, client: Patcher, wanted: Mapping[str, int]) -> dict[str, int]:
    """Sets the replicas of every pool's MachineSet; returns MachineSet -> replicas. Raises NoPool, ApiError."""
    ours = {
        (item["metadata"].get("labels") or {}).get(POOL_LABEL): item["metadata"]["name"]
        for item in site.machine_sets
        if site.is_ours(item)
    }
    if missing := sorted(pool for pool, count in wanted.items() if pool not in ours and (count or not ours)):
        raise NoPool(f"the cluster has no MachineSet of stack {site.stack} for pool {', '.join(missing)}: `pulumi up` makes it")
    done = {}
    for pool, count in wanted.items():
        if pool in ours:
            body = {"spec": {"replicas": count}}
            client.patch(names.MACHINE_API, "MachineSet", ours[pool], names.MACHINE_NAMESPACE, body)
            done[ours[pool]] = count
    return done
