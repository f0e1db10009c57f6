"""What the state holds of the stack's last `pulumi up`: a preview knows it too, and without asking a cluster or an account."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pulumi

from mistral_on_l4.aws.account import cluster_name
from mistral_on_l4.config.names import GPU_RESOURCE, POOL_LABEL, Kept
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.config.traits import PlatformName
from mistral_on_l4.manifests.kept_data import Place, place_of
from mistral_on_l4.manifests.serving import API_VERSION
from mistral_on_l4.planner.succession import Running

_SERVICE = f"kubernetes:{API_VERSION}:InferenceService"
_CLUSTER, _NETWORK = "aws:eks/cluster:Cluster", "aws:ec2/vpc:Vpc"
_PROVIDER = "pulumi:providers:kubernetes"
# Seconds between two looks at a state that is just being written.
_PAUSES = (0.1, 0.3, 1.0, 2.0)


@dataclass(frozen=True)
class Recorded:
    """outputs: of every resource in the state, by its URN."""

    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of_this_stack(cls) -> Recorded:
        """Asks the engine. At the program's start: what it declares itself is not in there yet."""
        resources = _state().get("outputs") or {}
        return cls({urn: resource.get("outputs") or {} for urn, resource in resources.items()})

    @cached_property
    def places(self) -> Mapping[Kept, Place]:
        """Where data of the stack lie."""
        found = [place_of(_token(urn), outputs) for urn, outputs in self.outputs.items()]
        return {place.key: place for place in found if place is not None}

    @cached_property
    def services(self) -> tuple[Running, ...]:
        """The InferenceServices, with what they hold."""
        return tuple(_running(urn, outputs) for urn, outputs in self.outputs.items() if _token(urn) == _SERVICE)

    @property
    def cluster_identity(self) -> str:
        """What the last `up` called its cluster, "" before the first."""
        return next((known for found in self._of(_PROVIDER) if (known := str(found.get("clusterIdentifier") or ""))), "")

    def cluster_moves(self, settings: Settings) -> str | None:
        """Why everything in the cluster goes with these settings, in words; None if the cluster stays, or there is none yet."""
        known = self.cluster_identity
        if settings.platform is not PlatformName.EKS:
            return f"is on another platform than {settings.platform.value!r}" if known.startswith("arn:") else None
        if known and not known.startswith("arn:"):
            return "is on another platform than 'eks'"
        name = cluster_name(settings, pulumi.get_stack())
        place = f":eks:{settings.region}:"
        if known and (place not in known or f":cluster/{name}@" not in f"{known}@"):
            return f"is in another cluster than {name} in {settings.region}"
        if settings.cluster.existing and any(self._of(_CLUSTER)):
            return "is in a cluster of the stack's own, which goes when cluster.existing is true"
        networks = [found.get("cidrBlock") for found in self._of(_NETWORK)]
        if networks and (settings.network.existing_vpc_id or settings.network.cidr not in networks):
            return "is in a cluster whose network is made again, and the cluster with it"
        return None

    def _of(self, token: str) -> Iterable[Mapping[str, Any]]:
        return (outputs for urn, outputs in self.outputs.items() if _token(urn) == token)


def _state() -> Mapping[str, Any]:
    """The engine reads the state while it writes down what the program has declared so far.

    A backend of files has its attribute file empty for a moment then (gocloud.dev's fileblob writes it in place).
    """
    for pause in (*_PAUSES, None):
        try:
            found = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": pulumi.get_stack()}).value
            return found or {}
        except Exception as error:
            if pause is None or "failed to load checkpoint" not in str(error):
                raise
            time.sleep(pause)
    raise AssertionError


def _token(urn: str) -> str:
    parts = urn.split("::")
    return parts[2].rpartition("$")[2] if len(parts) > 3 else ""


def _running(urn: str, outputs: Mapping[str, Any]) -> Running:
    meta, predictor = outputs.get("metadata") or {}, (outputs.get("spec") or {}).get("predictor") or {}
    model = predictor.get("model") or {}
    limits = (model.get("resources") or {}).get("limits") or {}
    return Running(
        name=str(meta.get("name")),
        namespace=str(meta.get("namespace")),
        pool=str((predictor.get("nodeSelector") or {}).get(POOL_LABEL)),
        gpus=int(limits.get(GPU_RESOURCE) or 0),
        prefix=str((model.get("storage") or {}).get("path")),
        identity=urn,
    )
