"""Operators that are installed by a Subscription: Node Feature Discovery, NVIDIA's GPU operator, OpenShift AI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mistral_on_l4.config.names import STACK_LABEL
from mistral_on_l4.manifests.metadata import MANAGER_LABELS, SKIP_AWAIT, manifest, metadata
from mistral_on_l4.manifests.openshift.names import OPERATOR_GROUP_API, SUBSCRIPTION_API

MARKETPLACE = "openshift-marketplace"


@dataclass(frozen=True)
class Operator:
    """title: for people; package: of the catalogue, and name of the Subscription; whole_cluster: it watches all namespaces; group:
    name of the OperatorGroup, if not the namespace's.
    """

    title: str
    namespace: str
    package: str
    channel: str
    source: str
    whole_cluster: bool = False
    group: str = ""


NFD = Operator("Node Feature Discovery", "openshift-nfd", "nfd", "stable", "redhat-operators")
GPU = Operator(
    "NVIDIA's GPU operator", "nvidia-gpu-operator", "gpu-operator-certified", "v25.10", "certified-operators", group="gpu-operator"
)
RHOAI = Operator("OpenShift AI", "redhat-ods-operator", "rhods-operator", "fast-3.x", "redhat-operators", whole_cluster=True)


def namespace(operator: Operator, stack: str) -> dict[str, Any]:
    """Monitored by the cluster's own Prometheus. Which pods it admits is the operator's: a driver needs the node itself."""
    labels = {**MANAGER_LABELS, STACK_LABEL: stack, "openshift.io/cluster-monitoring": "true"}
    labels |= {"pod-security.kubernetes.io/enforce": "privileged" if operator.package == GPU.package else "baseline"}
    return manifest("v1", "Namespace", {"name": operator.namespace, "labels": labels})


def group(operator: Operator) -> dict[str, Any]:
    spec = {} if operator.whole_cluster else {"targetNamespaces": [operator.namespace]}
    meta = metadata(operator.group or operator.namespace, operator.namespace)
    return manifest(OPERATOR_GROUP_API, "OperatorGroup", meta, spec=spec)


def subscription(operator: Operator) -> dict[str, Any]:
    """jobs/await_operator.py waits for what it installs."""
    spec = {
        "name": operator.package,
        "channel": operator.channel,
        "source": operator.source,
        "sourceNamespace": MARKETPLACE,
        "installPlanApproval": "Automatic",
    }
    meta = metadata(operator.package, operator.namespace, annotations=SKIP_AWAIT)
    return manifest(SUBSCRIPTION_API, "Subscription", meta, spec=spec)


def await_rules() -> list[dict[str, Any]]:
    """What the account may do that waits for an operator, in its namespace."""
    resources = ["subscriptions", "clusterserviceversions", "installplans"]
    return [{"apiGroups": ["operators.coreos.com"], "resources": resources, "verbs": ["get"]}]
