"""The objects of an OpenShift cluster before a stack comes to it: assumed by previews without one, and a rehearsal's beginning.

Made up, and labelled so: a cluster on AWS with two worker MachineSets, OpenShift AI 3.0 where the settings say that it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mistral_on_l4.config.names import SIMULATED_LABEL
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.manifests.openshift import gpu_software, names
from mistral_on_l4.manifests.openshift.data_science import hardware_profile, wanted_components
from mistral_on_l4.manifests.openshift.operators import GPU, NFD, RHOAI, Operator
from mistral_on_l4.openshift.refusals import PINNED_DRIVERS

OPENSHIFT_VERSION = "4.20.4"
INFRASTRUCTURE = "demo-x7k2p"
DOMAIN = "apps.demo.example.com"
STORAGE_CLASS = "gp3-csi"
VERSIONS = {NFD.package: "4.20.0", GPU.package: "25.10.1", RHOAI.package: "3.0.0"}
_LABELS = {SIMULATED_LABEL: "true"}
# What every project of a cluster gets: ranges of user ids and groups of its own.
_FIRST_UID, _UIDS = 1000660000, 10000
SERVICE_ACCOUNT_GROUPS = "openshift.io/sa.scc.supplemental-groups"


def objects(settings: Settings) -> list[dict[str, Any]]:
    """Whole objects, with their status where somebody reads it; in the order in which they can be created."""
    return [*_namespaces(settings), *_cluster(settings), *_machine_sets(settings), *_operators(settings), *_operands(settings)]


def uid_range(number: int) -> dict[str, str]:
    """Annotations of the project that was made as the number-th."""
    ids = f"{_FIRST_UID + number * _UIDS}/{_UIDS}"
    return {names.UID_RANGE_ANNOTATION: ids, SERVICE_ACCOUNT_GROUPS: ids, "openshift.io/sa.scc.mcs": f"s0:c{number + 5},c{number}"}


def _namespaces(settings: Settings) -> Iterator[dict[str, Any]]:
    wanted = settings.openshift.operators
    spaces: dict[str, dict[str, str]] = {
        names.MACHINE_NAMESPACE: {},
        "openshift-monitoring": {"network.openshift.io/policy-group": "monitoring"},
        "openshift-ingress": {"network.openshift.io/policy-group": "ingress"},
        gpu_software.DASHBOARD_NAMESPACE: {},
    }
    for how, operator in ((wanted.nfd, NFD), (wanted.gpu, GPU), (wanted.rhoai, RHOAI)):
        if how == "existing":
            spaces[operator.namespace] = {}
    if wanted.rhoai == "existing":
        spaces |= {names.APPLICATIONS_NAMESPACE: {}, settings.namespaces.registry: {}}
    for number, (name, labels) in enumerate(spaces.items()):
        meta = {"name": name, "labels": {**_LABELS, **labels}, "annotations": uid_range(number)}
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def _cluster(settings: Settings) -> Iterator[dict[str, Any]]:
    def of_config(kind: str, name: str, **fields: Any) -> dict[str, Any]:
        return {"apiVersion": names.CONFIG_API, "kind": kind, "metadata": {"name": name, "labels": _LABELS}, **fields}

    yield of_config(
        "ClusterVersion", "version", spec={"channel": "stable-4.20"}, status={"desired": {"version": OPENSHIFT_VERSION}}
    )
    platform = {"type": "AWS", "aws": {"region": settings.region}}
    yield of_config(
        "Infrastructure",
        "cluster",
        spec={"platformSpec": {"type": "AWS"}},
        status={"infrastructureName": INFRASTRUCTURE, "platformStatus": platform},
    )
    yield of_config("Ingress", "cluster", spec={"domain": DOMAIN})
    yield {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "labels": _LABELS, "annotations": {names.DEFAULT_CLASS_ANNOTATION: "true"}},
        "provisioner": "ebs.csi.aws.com",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
    }


def _machine_sets(settings: Settings) -> Iterator[dict[str, Any]]:
    for zone in ("a", "b"):
        name = f"{INFRASTRUCTURE}-worker-{settings.region}{zone}"
        machines = {
            "machine.openshift.io/cluster-api-cluster": INFRASTRUCTURE,
            "machine.openshift.io/cluster-api-machineset": name,
        }
        roles = {
            "machine.openshift.io/cluster-api-machine-role": "worker",
            "machine.openshift.io/cluster-api-machine-type": "worker",
        }
        yield {
            "apiVersion": names.MACHINE_API,
            "kind": "MachineSet",
            "metadata": {"name": name, "namespace": names.MACHINE_NAMESPACE, "labels": {**machines, **_LABELS}},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": machines},
                "template": {
                    "metadata": {"labels": {**machines, **roles}},
                    "spec": {
                        "metadata": {},
                        "providerSpec": {"value": _provider(settings.region, zone)},
                    },
                },
            },
            "status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1},
        }


def _provider(region: str, zone: str) -> dict[str, Any]:
    """As openshift-install writes it."""
    return {
        "apiVersion": "machine.openshift.io/v1beta1",
        "kind": "AWSMachineProviderConfig",
        "metadata": {"creationTimestamp": None},
        "ami": {"id": "ami-0a1b2c3d4e5f60718"},
        "blockDevices": [{"ebs": {"encrypted": True, "iops": 2000, "volumeSize": 120, "volumeType": "gp3", "kmsKey": {"arn": ""}}}],
        "credentialsSecret": {"name": "aws-cloud-credentials"},
        "deviceIndex": 0,
        "iamInstanceProfile": {"id": f"{INFRASTRUCTURE}-worker-profile"},
        "instanceType": "m6i.2xlarge",
        "metadataServiceOptions": {},
        "placement": {"availabilityZone": f"{region}{zone}", "region": region},
        "securityGroups": [{"filters": [{"name": "tag:Name", "values": [f"{INFRASTRUCTURE}-{role}"]}]} for role in ("node", "lb")],
        "subnet": {"filters": [{"name": "tag:Name", "values": [f"{INFRASTRUCTURE}-subnet-private-{region}{zone}"]}]},
        "tags": [{"name": f"kubernetes.io/cluster/{INFRASTRUCTURE}", "value": "owned"}],
        "userDataSecret": {"name": "worker-user-data"},
    }


def _operators(settings: Settings) -> Iterator[dict[str, Any]]:
    wanted = settings.openshift.operators
    for how, operator in ((wanted.nfd, NFD), (wanted.gpu, GPU), (wanted.rhoai, RHOAI)):
        if how == "existing":
            yield from installed(operator)


def csv_of(operator: Operator) -> dict[str, Any]:
    version = VERSIONS[operator.package]
    return {
        "apiVersion": names.SUBSCRIPTION_API,
        "kind": "ClusterServiceVersion",
        "metadata": {"name": f"{operator.package}.v{version}", "namespace": operator.namespace, "labels": _LABELS},
        "spec": {"version": version, "displayName": operator.title},
        "status": {"phase": "Succeeded", "message": "install strategy completed with no errors"},
    }


def installed(operator: Operator) -> Iterator[dict[str, Any]]:
    """A Subscription that was there before, and what OLM made of it."""
    csv = csv_of(operator)
    yield {
        "apiVersion": names.SUBSCRIPTION_API,
        "kind": "Subscription",
        "metadata": {"name": operator.package, "namespace": operator.namespace, "labels": _LABELS},
        "spec": {
            "name": operator.package,
            "channel": operator.channel,
            "source": operator.source,
            "sourceNamespace": "openshift-marketplace",
        },
        "status": {"installedCSV": csv["metadata"]["name"], "currentCSV": csv["metadata"]["name"], "state": "AtLatestKnown"},
    }
    yield csv


def _operands(settings: Settings) -> Iterator[dict[str, Any]]:
    """What an owner has made of the operators that are there."""
    wanted = settings.openshift.operators
    if wanted.nfd == "existing":
        discovery = gpu_software.feature_discovery()
        discovery["metadata"]["labels"] = _LABELS
        yield discovery
    if wanted.gpu == "existing":
        policy = gpu_software.cluster_policy("", PINNED_DRIVERS["3.0"])
        policy["metadata"] |= {"labels": _LABELS, "annotations": {}}
        yield {**policy, "status": {"state": "ready"}}
    if wanted.rhoai == "existing":
        components = wanted_components(settings.namespaces.registry)
        # Its owner never said where registries lie, and the operator's default is the same.
        del components["modelregistry"]["registriesNamespace"]
        components |= {"dashboard": {"managementState": "Managed"}, "ray": {"managementState": "Removed"}}
        yield {
            "apiVersion": names.DATA_SCIENCE_CLUSTER_API,
            "kind": "DataScienceCluster",
            "metadata": {"name": names.DATA_SCIENCE_CLUSTER, "labels": _LABELS},
            "spec": {"components": components},
            "status": {"phase": "Ready"},
        }
    if wanted.hardware_profiles == "existing":
        from mistral_on_l4.manifests.openshift.data_science import PoolMachine

        for pool in settings.pools.groups:
            profile = hardware_profile(pool.name, "", PoolMachine(1, 8, 32))
            profile["metadata"]["labels"] = _LABELS
            yield profile
