"""Why a stack cannot live in an OpenShift cluster as it is: one line each, for a preview, an `up` and the doctor alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.config.names import PROJECT, STACK_LABEL
from mistral_on_l4.manifests.openshift import gpu_software, names
from mistral_on_l4.manifests.openshift.data_science import profile_name, wanted_components
from mistral_on_l4.manifests.openshift.machine_sets import machine_set_name
from mistral_on_l4.manifests.openshift.operators import GPU, NFD, RHOAI
from mistral_on_l4.manifests.serving import API_VERSION
from mistral_on_l4.openshift.reading import all_of, found
from mistral_on_l4.openshift.site import Site, release_of
from mistral_on_l4.planner.catalogue.schema import Engine

OLDEST_RHOAI = (3, 0)
_PART_OF = "app.kubernetes.io/part-of"


@dataclass(frozen=True)
class Finding:
    """state: ok, warn (an `up` may work) or fail (it would not); fix: what to do, "" where nothing is to be done."""

    check: str
    state: Literal["ok", "warn", "fail"]
    says: str
    fix: str = ""

    @property
    def line(self) -> str:
        return f"{self.says}: {self.fix}" if self.fix else self.says


Check = Callable[[Site, Engine], Iterator[Finding]]


def inspect(site: Site, engine: Engine) -> list[Finding]:
    """Every check in order; a cluster that is not OpenShift on AWS is asked nothing more."""
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            findings += check(site, engine)
        except ApiError as error:
            fix = "log in as somebody who may read it" if error.status in (401, 403) else "log in again (`oc login`)"
            findings.append(Finding(name, "fail", f"the cluster does not say: {error}", fix))
        if name in ("cluster", "cloud") and findings[-1].state == "fail":
            break
    return findings


def _cluster(site: Site, _: Engine) -> Iterator[Finding]:
    if site.version is None:
        yield Finding(
            "cluster",
            "fail",
            "the cluster is not OpenShift (it has no ClusterVersion)",
            "log in to yours with `oc login`, or use platform eks",
        )
    else:
        yield Finding("cluster", "ok", f"OpenShift {site.version}, {site.infrastructure or 'without a name'}")


def _cloud(site: Site, _: Engine) -> Iterator[Finding]:
    if site.cloud != "AWS":
        yield Finding("cloud", "fail", f"the cluster runs on {site.cloud}, and GPU pools are MachineSets on AWS", "use one on AWS")
    elif site.region != site.settings.region:
        yield Finding(
            "cloud",
            "fail",
            f"the cluster is in {site.region}, and the stack's region is {site.settings.region}",
            f"`pulumi config set {PROJECT}:region {site.region}`",
        )
    else:
        yield Finding("cloud", "ok", f"AWS, {site.region}")


def _workers(site: Site, _: Engine) -> Iterator[Finding]:
    wanted = site.settings.openshift.worker_machine_set
    if site.worker is None:
        known = ", ".join(item["metadata"]["name"] for item in site.machine_sets) or "none"
        says = f"there is no MachineSet {wanted!r}" if wanted else "there is no worker MachineSet to derive GPU pools from"
        yield Finding(
            "machines",
            "fail",
            f"{says} in {names.MACHINE_NAMESPACE} (there are: {known})",
            f"name one in {PROJECT}:openshift.workerMachineSet, or make one",
        )
        return
    if not site.zone:
        yield Finding("machines", "fail", f"MachineSet {site.worker['metadata']['name']} names no zone", "name another one")
        return
    yield Finding("machines", "ok", f"GPU pools are derived from {site.worker['metadata']['name']}, in {site.zone}")
    there = {item["metadata"]["name"]: item for item in site.machine_sets}
    for pool in site.settings.pools.groups:
        name = machine_set_name(site.infrastructure, pool.name, site.zone)
        if len(name) > 63:
            yield Finding(
                "machines",
                "fail",
                f"MachineSet {name} would have a name of {len(name)} characters, more than 63",
                "shorten the pool's",
            )
        if name in there and not site.is_ours(there[name]):
            yield Finding("machines", "fail", f"MachineSet {name} is not this stack's", "give the pool another name")


def _operators(site: Site, engine: Engine) -> Iterator[Finding]:
    for key, (operator, how) in site.brings.items():
        subscribed, version = site.subscribed(operator), site.version_of(operator)
        setting = f"{PROJECT}:openshift.operators.{key}"
        if how == "existing" and version is None:
            yield Finding(key, "fail", f"{operator.title} is not installed", f"install it, or set {setting} to install")
        elif how == "install" and subscribed is not None and not _brought(site, subscribed):
            yield Finding(key, "fail", f"{operator.title} is installed already", f"set {setting} to existing")
        else:
            yield Finding(key, "ok", f"{operator.title} {version or 'is to be installed'}")
    yield from _rhoai_release(site)
    yield from _operands(site, engine)


def _brought(site: Site, subscribed: Mapping[str, Any]) -> bool:
    """Whether this stack made a Subscription: its namespace says whose it is."""
    namespace = site.namespace(str(subscribed["metadata"]["namespace"]))
    return namespace is not None and site.is_ours(namespace)


def _rhoai_release(site: Site) -> Iterator[Finding]:
    version, wanted = site.version_of(RHOAI), site.settings.openshift.rhoai_version
    release = release_of(version) if version else None
    if version is None:
        return
    if release is None or release < OLDEST_RHOAI:
        yield Finding(
            "rhoai",
            "fail",
            f"OpenShift AI {version} is older than 3.0",
            "this stack needs 3.0; the 2.x releases cannot be upgraded",
        )
    elif f"{release[0]}.{release[1]}" != wanted:
        yield Finding(
            "rhoai",
            "fail",
            f"OpenShift AI {version} is installed, and the stack is planned for {wanted} (its engine, driver and words for KServe)",
            "take a cluster with that release: others are not built yet",
        )


def _operands(site: Site, engine: Engine) -> Iterator[Finding]:
    brings = site.brings
    if brings["nfd"][1] == "existing" and site.version_of(NFD) and site.feature_discovery is None:
        yield Finding(
            "nfd", "fail", "there is no NodeFeatureDiscovery, so that no node says what it has", "make one in openshift-nfd"
        )
    policy = site.cluster_policy
    if brings["gpu"][1] == "existing" and site.version_of(GPU):
        if policy is None:
            yield Finding("gpu", "fail", "there is no ClusterPolicy, so that no node gets a driver", "make one")
        else:
            yield from _driver(policy, engine)
    if brings["gpu"][1] == "install" and policy is not None and not site.is_ours(policy):
        yield Finding(
            "gpu", "fail", f"ClusterPolicy {policy['metadata']['name']} is not this stack's", "set operators.gpu to existing"
        )


def _driver(policy: Mapping[str, Any], engine: Engine) -> Iterator[Finding]:
    image = engine.images["openshift"]
    low, high = image.driver
    said = str(((policy.get("spec") or {}).get("driver") or {}).get("version") or "")
    major = int(said.partition(".")[0]) if said.partition(".")[0].isdigit() else None
    fix = f"set spec.driver.version of ClusterPolicy {policy['metadata']['name']} to {PINNED_DRIVERS['3.0']}"
    if major is None:
        yield Finding(
            "driver", "warn", f"the ClusterPolicy pins no driver, and the engine needs {low} to {high} (CUDA {image.cuda})", fix
        )
    elif major < low or (high and major > high):
        yield Finding("driver", "fail", f"driver {said} and the engine's CUDA {image.cuda} do not go together (error 803)", fix)
    else:
        yield Finding("driver", "ok", f"driver {said}")


# By OpenShift AI's release: the newest driver that its engine's CUDA was seen to work with (rhoai3-demo, commit fa7093f4).
PINNED_DRIVERS: Mapping[str, str | None] = {"3.0": "570.195.03"}


def _components(site: Site, _: Engine) -> Iterator[Finding]:
    cluster = site.data_science_cluster
    if cluster is None or site.is_ours(cluster):
        return
    name = cluster["metadata"]["name"]
    has = (cluster.get("spec") or {}).get("components") or {}
    for component, wanted in wanted_components(site.settings.namespaces.registry).items():
        for field, value in wanted.items():
            there = (has.get(component) or {}).get(field)
            if there not in (None, value):
                patch = f'{{"spec":{{"components":{{"{component}":{{"{field}":"{value}"}}}}}}}}'
                fix = (
                    f"name it in {PROJECT}:namespaces.registry"
                    if field == "registriesNamespace"
                    else f"`oc patch datasciencecluster {name} --type merge -p '{patch}'`"
                )
                yield Finding("components", "fail", f"DataScienceCluster {name} has {component}.{field} {there}, not {value}", fix)
    phase = (cluster.get("status") or {}).get("phase")
    if phase != "Ready":
        yield Finding("components", "warn", f"DataScienceCluster {name} is {phase or 'without a phase'}", "look at its conditions")
    else:
        yield Finding("components", "ok", f"DataScienceCluster {name} is Ready")


def _namespaces(site: Site, _: Engine) -> Iterator[Finding]:
    spaces = site.settings.namespaces
    for name in (spaces.services, spaces.object_store, spaces.registry):
        there = site.namespace(name)
        if there is None:
            continue
        meta = there["metadata"]
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        owner = labels.get(STACK_LABEL)
        if owner not in (None, site.stack):
            yield Finding(
                "namespaces",
                "fail",
                f"namespace {name} belongs to stack {owner!r} of this cluster",
                f"destroy that one first, or give this stack names of its own ({PROJECT}:namespaces)",
            )
        if meta.get("deletionTimestamp"):
            yield Finding("namespaces", "fail", f"namespace {name} is being deleted", "wait until it is gone")
        if names.UID_RANGE_ANNOTATION not in annotations:
            yield Finding(
                "namespaces",
                "fail",
                f"namespace {name} has no range of user ids ({names.UID_RANGE_ANNOTATION}), so that no pod of it is admitted",
                "OpenShift gives it to a namespace that is made again",
            )
    services = site.namespace(spaces.services)
    labels = (services["metadata"].get("labels") or {}) if services else {}
    queued = [label for label in names.KUEUE_LABELS if labels.get(label) == "true"]
    if queued and not site.settings.openshift.queue:
        yield Finding(
            "namespaces",
            "fail",
            f"namespace {spaces.services} is managed by Kueue ({queued[0]}), which holds services without a queue",
            f"name a LocalQueue in {PROJECT}:openshift.queue, or take the label away",
        )
    adopted = ", ".join(sorted(name for name in site.adopted if site.namespace(name))) or "none"
    yield Finding("namespaces", "ok", f"there already, and kept: {adopted}")


def _names_taken(site: Site, _: Engine) -> Iterator[Finding]:
    spaces, registry = site.settings.namespaces, site.settings.registry.name
    wanted = {service.name for service in site.settings.enabled_services}
    for service in all_of(site.reader, API_VERSION, "InferenceService", spaces.services):
        name = service["metadata"]["name"]
        if name in wanted and (service["metadata"].get("labels") or {}).get(_PART_OF) != PROJECT:
            yield Finding(
                "names",
                "fail",
                f"InferenceService {name} in {spaces.services} is not this stack's",
                "remove it, or give the service another name",
            )
    there = found(site.reader, names.MODEL_REGISTRY_API, "ModelRegistry", registry, spaces.registry)
    if there is not None and not site.is_ours(there):
        yield Finding(
            "names", "fail", f"ModelRegistry {registry} in {spaces.registry} is not this stack's", f"set {PROJECT}:registry.name"
        )


def _profiles(site: Site, _: Engine) -> Iterator[Finding]:
    existing = site.settings.openshift.operators.hardware_profiles == "existing"
    for pool in site.settings.pools.groups:
        name = profile_name(pool.name)
        there = found(site.reader, names.HARDWARE_PROFILE_API, "HardwareProfile", name, names.APPLICATIONS_NAMESPACE)
        setting = f"{PROJECT}:openshift.operators.hardwareProfiles"
        if existing and there is None:
            yield Finding("profiles", "fail", f"there is no HardwareProfile {name}", f"set {setting} to install")
        elif not existing and there is not None and not site.is_ours(there):
            yield Finding("profiles", "fail", f"HardwareProfile {name} is not this stack's", f"set {setting} to existing")


def _storage(site: Site, _: Engine) -> Iterator[Finding]:
    if site.storage_class is None:
        yield Finding(
            "storage", "fail", "the cluster has no default StorageClass", f"annotate one with {names.DEFAULT_CLASS_ANNOTATION}"
        )
    else:
        yield Finding("storage", "ok", f"volumes are of class {site.storage_class}")


def _monitoring(site: Site, _: Engine) -> Iterator[Finding]:
    wanted = gpu_software.monitoring()["metadata"]
    there = found(site.reader, "v1", "ConfigMap", wanted["name"], wanted["namespace"])
    ours = there is not None and (there["metadata"].get("labels") or {}).get(_PART_OF) == PROJECT
    on = there is not None and _watches_users(str((there.get("data") or {}).get("config.yaml") or ""))
    setting = f"{PROJECT}:openshift.operators.monitoring"
    if site.settings.openshift.operators.monitoring == "install":
        if there is not None and not ours:
            fix = f"set {setting} to existing" if on else f"set enableUserWorkload: true in it yourself, and {setting} to existing"
            yield Finding("monitoring", "fail", f"ConfigMap {wanted['name']} is there already", fix)
    elif not on:
        yield Finding(
            "monitoring",
            "warn",
            "user workload monitoring is off, so that nobody collects the engine's metrics",
            f"set {setting} to install",
        )


def _watches_users(text: str) -> bool:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    return isinstance(document, dict) and document.get("enableUserWorkload") is True


CHECKS: Mapping[str, Check] = {
    "cluster": _cluster,
    "cloud": _cloud,
    "machines": _workers,
    "operators": _operators,
    "components": _components,
    "namespaces": _namespaces,
    "names": _names_taken,
    "profiles": _profiles,
    "storage": _storage,
    "monitoring": _monitoring,
}
