"""Rules for what must agree across objects: names that are referred to, weights that are seeded, time and room that suffice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pulumi_policy import Severity

from mistral_on_l4.config.settings import SettingsError
from mistral_on_l4.manifests.kept_data import place_of
from mistral_on_l4.planner import PlanError
from policies.pods import Pod, environment_of, pod_of
from policies.reading import UNKNOWN, at, items, mapping
from policies.rule import Resource, Stack, StackFinding, stack_rule
from policies.served import ServedStack, gibibytes, planned, prefix_of

_GIB = 2**30
# (kind, field of a volume, its key), and (kind, field of an environment's entry).
_VOLUMES = (
    ("Secret", "secret", "secretName"),
    ("ConfigMap", "configMap", "name"),
    ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
)
_ENTRIES = (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef"))
# An address inside the cluster: http://NAME.NAMESPACE.svc, with or without a port or the cluster's domain.
_INSIDE = re.compile(r"https?://([a-z0-9-]+)\.([a-z0-9-]+)\.svc\b")


@stack_rule(
    "references-exist",
    why="A pod that names a Secret, an entry of one, a class or an account which nobody makes hangs until `up` gives up.",
    fix="declare the object in the same namespace, or correct the name; what others make goes into this policy's 'elsewhere'",
    severity=Severity.HIGH,
    settings={
        "elsewhere": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Regular expressions of Kind/name that are made outside the stack",
            "default": ["ServiceAccount/default", r"ConfigMap/(kube-root-ca|openshift-service-ca)\.crt", "StorageClass/gp2"],
        }
    },
)
def references_exist(stack: Stack) -> Iterator[StackFinding]:
    known, entries = set(_declared(stack)), dict(_entries(stack))
    makes_classes = bool(stack.of("StorageClass"))
    for resource in stack.resources:
        if "kubernetes:helm.sh/" in resource.urn or not resource.is_kubernetes:
            continue
        pod = pod_of(resource)
        namespace = resource.meta.get("namespace")
        for kind, reference in dict.fromkeys((*_references(resource, pod), *_bound(resource), *_classes(resource, makes_classes))):
            elsewhere = any(re.fullmatch(str(pattern), f"{kind}/{reference}") for pattern in stack.config["elsewhere"])
            # A Service and an account may be named with their namespace; everything else lies beside the pod.
            name, _, other = reference.partition(".") if kind in ("Service", "ServiceAccount") else (reference, "", "")
            where = None if kind == "StorageClass" else other or namespace
            if not elsewhere and (kind, where, name) not in known:
                place = f" in {where}" if where else ""
                yield f"{resource.label}: names {kind} {name}, which the stack does not make{place}", resource.urn
        for kind, name, entry in dict.fromkeys(_named_entries(resource, pod)):
            held = entries.get((kind, namespace, name))
            if held is not None and entry not in held:
                yield (
                    f"{resource.label}: wants {entry} of {kind} {name}, which holds {', '.join(sorted(held)) or 'nothing'}",
                    resource.urn,
                )


def _declared(stack: Stack) -> Iterator[tuple[str, Any, Any]]:
    for resource in stack.resources:
        if not resource.is_kubernetes:
            continue
        namespace = resource.meta.get("namespace")
        yield resource.kind, namespace, resource.meta.get("name")
        # cert-manager writes what it issues into a Secret; cert-manager's or OpenShift's bundles land in ConfigMaps.
        if resource.kind == "Certificate":
            yield "Secret", namespace, at(resource.props, "spec", "secretName")
        for claim in items(resource.props, "spec", "volumeClaimTemplates"):
            yield "PersistentVolumeClaim", namespace, at(claim, "metadata", "name")


def _entries(stack: Stack) -> Iterator[tuple[tuple[str, Any, Any], set[str]]]:
    """The keys of each Secret and ConfigMap whose keys are all known; what controllers write into others is not ours to know."""
    for resource in stack.of("Secret", "ConfigMap"):
        sections = [at(resource.props, field) for field in ("data", "stringData", "binaryData")]
        given = [section for section in sections if section is not None]
        if given and all(isinstance(section, Mapping) for section in given):
            key = (resource.kind, resource.meta.get("namespace"), resource.meta.get("name"))
            yield key, {str(entry) for section in given for entry in section}


def _references(resource: Resource, pod: Pod | None) -> Iterator[tuple[str, str]]:
    if pod is None:
        return
    account = at(pod.spec, "serviceAccountName")
    if isinstance(account, str):
        yield "ServiceAccount", account
    for volume in items(pod.spec, "volumes"):
        for kind, field, key in _VOLUMES:
            name = at(volume, field, key)
            if isinstance(name, str) and at(volume, field, "optional") is not True:
                yield kind, name
    for container in pod.containers:
        for entry in items(container.spec, "env"):
            for kind, field in _ENTRIES:
                name = at(entry, "valueFrom", field, "name")
                if isinstance(name, str) and at(entry, "valueFrom", field, "optional") is not True:
                    yield kind, name
        for entry in items(container.spec, "env"):
            address = at(entry, "value")
            # KServe makes the Services of InferenceServices.
            if isinstance(address, str) and (found := _INSIDE.match(address)) and not found[1].endswith("-predictor"):
                yield "Service", f"{found[1]}.{found[2]}"
    if resource.kind == "InferenceService":
        runtime = at(pod.spec, "model", "runtime")
        if isinstance(runtime, str):
            yield "ServingRuntime", runtime


def _bound(resource: Resource) -> Iterator[tuple[str, str]]:
    """What a RoleBinding joins: without either, the Job that relies on it is forbidden what it asks for."""
    if resource.kind != "RoleBinding":
        return
    role = at(resource.props, "roleRef", "name")
    if at(resource.props, "roleRef", "kind") == "Role" and isinstance(role, str):
        yield "Role", role
    for subject in items(resource.props, "subjects"):
        name, namespace = at(subject, "name"), at(subject, "namespace")
        if at(subject, "kind") == "ServiceAccount" and isinstance(name, str) and namespace is not UNKNOWN:
            yield "ServiceAccount", f"{name}.{namespace}" if namespace else name


def _classes(resource: Resource, judged: bool) -> Iterator[tuple[str, str]]:
    """StorageClasses of claims, where the stack makes such classes at all."""
    claims = [resource.props] if resource.kind == "PersistentVolumeClaim" else items(resource.props, "spec", "volumeClaimTemplates")
    for claim in claims if judged else ():
        name = at(claim, "spec", "storageClassName")
        if isinstance(name, str) and name:
            yield "StorageClass", name


def _named_entries(resource: Resource, pod: Pod | None) -> Iterator[tuple[str, str, str]]:
    """(kind, name, entry) of what a pod takes out of Secrets and ConfigMaps one by one."""
    if pod is None:
        return
    wanted: list[tuple[str, Any, Any, Any]] = []
    for container in pod.containers:
        for entry in items(container.spec, "env"):
            for kind, field in _ENTRIES:
                reference = at(entry, "valueFrom", field)
                wanted.append((kind, at(reference, "name"), at(reference, "key"), at(reference, "optional")))
    for volume in items(pod.spec, "volumes"):
        for kind, field, key in _VOLUMES:
            for item in items(volume, field, "items"):
                wanted.append((kind, at(volume, field, key), at(item, "key"), at(volume, field, "optional")))
    if resource.kind == "InferenceService":
        # KServe looks a store up in this Secret (its chart's storageSpecSecretName).
        wanted.append(("Secret", "storage-config", at(pod.spec, "model", "storage", "key"), None))
    for kind, name, entry, optional in wanted:
        if isinstance(name, str) and isinstance(entry, str) and optional is not True:
            yield kind, name, entry


@stack_rule(
    "services-load-what-is-seeded",
    why="A service whose prefix no Job fills starts on an empty folder, after its GPU has been paid for.",
    fix="give the service the prefix, bucket and store that its checkpoint's seed Job writes to",
    severity=Severity.HIGH,
)
def services_load_what_is_seeded(stack: Stack) -> Iterator[StackFinding]:
    jobs = [dict(environment_of(job)) for job in stack.of("Job")]
    seeds = {env["WEIGHTS_PREFIX"]: env for env in jobs if "WEIGHTS_REPOSITORY" in env and "WEIGHTS_PREFIX" in env}
    buckets = {env.get("WEIGHTS_BUCKET") for env in seeds.values()} - {None, UNKNOWN}
    if UNKNOWN in seeds:
        return
    for service in stack.of("InferenceService"):
        model = at(service.props, "spec", "predictor", "model")
        prefix, uri = prefix_of(model), at(model, "storageUri")
        if prefix is not None and prefix not in seeds:
            yield f"{service.label}: no Job seeds {prefix!r} (seeded: {', '.join(map(str, seeds)) or 'nothing'})", service.urn
        elif prefix is None and isinstance(uri, str):
            yield f"{service.label}: loads {uri}, which no Job of the stack seeds", service.urn
    if len(buckets) > 1:
        yield f"the weights are seeded into different buckets: {', '.join(sorted(map(str, buckets)))}", None
    for job, env in zip(stack.of("Job"), jobs, strict=True):
        prefix, bucket = env.get("WEIGHTS_PREFIX"), env.get("WEIGHTS_BUCKET")
        if isinstance(prefix, str) and prefix not in seeds:
            yield f"{job.label}: reads {prefix!r}, which no Job seeds", job.urn
        elif isinstance(bucket, str) and buckets and bucket not in buckets:
            yield f"{job.label}: reads bucket {bucket}, and the weights are in {', '.join(sorted(map(str, buckets)))}", job.urn


@stack_rule(
    "services-have-time-to-load",
    why="A startup probe that gives up before the weights are loaded, or a seed Job's deadline before they are there, starts over.",
    fix="give startupProbe (failureThreshold x periodSeconds) and activeDeadlineSeconds at least the plan's time, better twice",
    severity=Severity.HIGH,
)
def services_have_time_to_load(stack: Stack) -> Iterator[StackFinding]:
    served = ServedStack(stack)
    try:
        plan = planned(served)
    except (PlanError, SettingsError):
        return  # services-fit-their-pool says so
    if plan is None:
        return
    minutes = {service.name: service.readiness.load for service in plan.services}
    seeds = {service.name: service.readiness.seed for service in plan.services}
    for found in served.services:
        for job in stack.of("Job"):
            told, deadline = dict(environment_of(job)), at(job.props, "spec", "activeDeadlineSeconds")
            mine = "WEIGHTS_REPOSITORY" in told and found.prefix is not None and told.get("WEIGHTS_PREFIX") == found.prefix
            needed = 60 * seeds.get(found.name, 0)
            if mine and isinstance(deadline, int) and deadline < needed:
                yield f"{job.label}: has {deadline} s to seed and is predicted to need {needed:.0f} s", job.urn
    for service in stack.of("InferenceService"):
        probe = at(service.props, "spec", "predictor", "model", "startupProbe")
        predicted = minutes.get(str(service.meta.get("name")))
        if predicted is None or probe in (None, UNKNOWN):
            continue
        failures, period, delay = (at(probe, key) for key in ("failureThreshold", "periodSeconds", "initialDelaySeconds"))
        if UNKNOWN in (failures, period, delay):
            continue
        # Kubernetes' own defaults for what is not given.
        seconds = int(failures or 3) * int(period or 10) + int(delay or 0)
        if seconds < 60 * predicted:
            yield f"{service.label}: has {seconds} s to load and is predicted to need {60 * predicted:.0f} s", service.urn


@stack_rule(
    "store-holds-its-checkpoints",
    why="A volume that is too small fills up in the last shard, after an hour of copying.",
    fix="raise mistral-on-l4:objectStore.volumeSize above the sum of the checkpoints, with a tenth to spare",
    severity=Severity.HIGH,
)
def store_holds_its_checkpoints(stack: Stack) -> Iterator[StackFinding]:
    served = ServedStack(stack)
    if served.traits.embedded:
        return  # its hub hands out checkpoints of a few megabytes
    for claim in stack.of("PersistentVolumeClaim"):
        place = place_of(claim.token, claim.props)
        room = gibibytes(place.size) if place is not None and place.key == "store" else None
        needed = served.checkpoint_bytes / _GIB
        if room is not None and room < needed * 1.05:
            yield f"{claim.label}: {room:.0f} GiB for checkpoints of {needed:.0f} GiB", claim.urn


@stack_rule(
    "selectors-select-something",
    why="A Service or NetworkPolicy whose selector matches no pod answers nobody and guards nothing, without any error.",
    fix="use the labels of the pods that it is meant for",
    severity=Severity.MEDIUM,
)
def selectors_select_something(stack: Stack) -> Iterator[StackFinding]:
    pods = [
        (resource.meta.get("namespace"), mapping(resource.props, "spec", "template", "metadata", "labels"))
        for resource in stack.of("Deployment", "StatefulSet", "DaemonSet", "Job")
    ]
    pods += [(resource.meta.get("namespace"), labels) for resource in stack.resources for labels in _made_by_others(resource)]
    for service in stack.of("Service"):
        if "kubernetes:helm.sh/" in service.urn or not service.is_kubernetes:
            continue
        selector, namespace = mapping(service.props, "spec", "selector"), service.meta.get("namespace")
        if selector and not any(space == namespace and selector.items() <= labels.items() for space, labels in pods):
            yield f"{service.label}: its selector matches no pod of the stack", service.urn


def _made_by_others(resource: Resource) -> Iterator[Mapping[str, Any]]:
    """Labels of pods that an object makes an operator make: KServe's, and those of OpenShift AI's model registries."""
    if resource.kind == "InferenceService":
        yield {"serving.kserve.io/inferenceservice": resource.meta.get("name"), "component": "predictor"}
    elif resource.kind == "ModelRegistry":
        yield {"app": resource.meta.get("name"), "component": "model-registry"}


POLICIES = (
    references_exist,
    services_load_what_is_seeded,
    services_have_time_to_load,
    store_holds_its_checkpoints,
    selectors_select_something,
)
