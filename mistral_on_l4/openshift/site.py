"""What an OpenShift cluster offers to a stack, read before anything is declared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mistral_on_l4.config.names import ADOPTED_LABEL, SIMULATED_LABEL, STACK_LABEL
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.manifests.openshift import names
from mistral_on_l4.manifests.openshift.machine_sets import zone_of
from mistral_on_l4.manifests.openshift.operators import GPU, NFD, RHOAI, Operator
from mistral_on_l4.openshift.reading import Object, Reader, all_of, found

_MACHINE_ROLE = "machine.openshift.io/cluster-api-machine-role"


@dataclass(frozen=True)
class Site:
    """A cluster through a reader. Every answer may raise ApiError."""

    reader: Reader
    settings: Settings
    stack: str
    _remembered: dict[str, Any] = field(default_factory=dict, compare=False)

    # -- the cluster ---------------------------------------------------------------------------------------------------

    @cached_property
    def version(self) -> str | None:
        """OpenShift's version, None where the cluster is not OpenShift."""
        known = found(self.reader, names.CONFIG_API, "ClusterVersion", "version")
        if known is None:
            return None
        return str(((known.get("status") or {}).get("desired") or {}).get("version") or "unknown")

    @cached_property
    def _infrastructure(self) -> Object:
        return found(self.reader, names.CONFIG_API, "Infrastructure", "cluster") or {}

    @property
    def infrastructure(self) -> str:
        """The cluster's name for itself, "" where it has none."""
        return str((self._infrastructure.get("status") or {}).get("infrastructureName") or "")

    @property
    def cloud(self) -> str:
        return str(self._platform.get("type") or "no cloud")

    @property
    def region(self) -> str:
        return str((self._platform.get("aws") or {}).get("region") or "")

    @property
    def simulated(self) -> bool:
        """Whether the cluster is a rehearsal's."""
        return SIMULATED_LABEL in ((self._infrastructure.get("metadata") or {}).get("labels") or {})

    @property
    def _platform(self) -> Mapping[str, Any]:
        return (self._infrastructure.get("status") or {}).get("platformStatus") or {}

    # -- machines ------------------------------------------------------------------------------------------------------

    @cached_property
    def machine_sets(self) -> list[Object]:
        return all_of(self.reader, names.MACHINE_API, "MachineSet", names.MACHINE_NAMESPACE)

    @cached_property
    def worker(self) -> Object | None:
        """The MachineSet that GPU pools are derived from: the one that the settings name, else the first with ready machines."""
        wanted = self.settings.openshift.worker_machine_set
        if wanted:
            return next((item for item in self.machine_sets if item["metadata"]["name"] == wanted), None)
        workers = [item for item in self.machine_sets if _is_worker(item)]
        return next((item for item in workers if (item.get("status") or {}).get("readyReplicas")), next(iter(workers), None))

    @property
    def zone(self) -> str:
        return zone_of(self.worker) if self.worker else ""

    # -- operators -----------------------------------------------------------------------------------------------------

    def installed(self, operator: Operator) -> Object | None:
        """The ClusterServiceVersion of an operator, read through its Subscription; None if it is not installed."""
        key = f"csv {operator.package}"
        if key not in self._remembered:
            self._remembered[key] = self._installed(operator)
        csv: Object | None = self._remembered[key]
        return csv

    def _installed(self, operator: Operator) -> Object | None:
        for subscription in all_of(self.reader, names.SUBSCRIPTION_API, "Subscription"):
            name = (subscription.get("status") or {}).get("installedCSV")
            if (subscription.get("spec") or {}).get("name") == operator.package and name:
                space = subscription["metadata"]["namespace"]
                return found(self.reader, names.SUBSCRIPTION_API, "ClusterServiceVersion", name, space)
        return None

    def subscribed(self, operator: Operator) -> Object | None:
        """The Subscription of an operator, in whichever namespace it is."""
        for subscription in all_of(self.reader, names.SUBSCRIPTION_API, "Subscription"):
            if (subscription.get("spec") or {}).get("name") == operator.package:
                return subscription
        return None

    def version_of(self, operator: Operator) -> str | None:
        """Such as 3.0.0, None if the operator is not installed."""
        csv = self.installed(operator)
        return None if csv is None else str((csv.get("spec") or {}).get("version") or "unknown")

    @cached_property
    def data_science_cluster(self) -> Object | None:
        """The one object of its kind; its name is the owner's choice."""
        return next(iter(all_of(self.reader, names.DATA_SCIENCE_CLUSTER_API, "DataScienceCluster")), None)

    @cached_property
    def cluster_policy(self) -> Object | None:
        return next(iter(all_of(self.reader, names.GPU_API, "ClusterPolicy")), None)

    @cached_property
    def feature_discovery(self) -> Object | None:
        return next(iter(all_of(self.reader, names.NFD_API, "NodeFeatureDiscovery")), None)

    @property
    def brings(self) -> Mapping[str, tuple[Operator, str]]:
        """Setting -> (operator, `install` or `existing`)."""
        wanted = self.settings.openshift.operators
        return {"nfd": (NFD, wanted.nfd), "gpu": (GPU, wanted.gpu), "rhoai": (RHOAI, wanted.rhoai)}

    # -- storage and namespaces ----------------------------------------------------------------------------------------

    @cached_property
    def storage_class(self) -> str | None:
        """The default StorageClass."""
        for item in all_of(self.reader, "storage.k8s.io/v1", "StorageClass"):
            if (item["metadata"].get("annotations") or {}).get(names.DEFAULT_CLASS_ANNOTATION) == "true":
                return str(item["metadata"]["name"])
        return None

    def namespace(self, name: str) -> Object | None:
        return found(self.reader, "v1", "Namespace", name)

    @cached_property
    def adopted(self) -> frozenset[str]:
        """Namespaces of the stack that were there before it, or come from the platform: they are labelled, and stay."""
        spaces = self.settings.namespaces
        given = {getattr(spaces, field) for field in self.settings.traits.given_namespaces}
        for name in (spaces.services, spaces.object_store, spaces.registry):
            if (there := self.namespace(name)) is not None:
                labels = there["metadata"].get("labels") or {}
                if labels.get(STACK_LABEL) != self.stack or ADOPTED_LABEL in labels:
                    given.add(name)
        return frozenset(given)

    def is_ours(self, item: Mapping[str, Any]) -> bool:
        return (item["metadata"].get("labels") or {}).get(STACK_LABEL) == self.stack


def release_of(version: str) -> tuple[int, int] | None:
    """(3, 0) of 3.0.0; None of what is no version."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def _is_worker(machine_set: Mapping[str, Any]) -> bool:
    """Whether it makes the cluster's ordinary workers: not GPU nodes of anybody's, nor infrastructure nodes."""
    template = machine_set["spec"]["template"]
    role = ((template.get("metadata") or {}).get("labels") or {}).get(_MACHINE_ROLE)
    return role == "worker" and not template["spec"].get("taints")
