"""Rules for what must agree across objects: names that are referred to, weights that are seeded, time and room that suffice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pulumi_policy import Severity

from mistral_on_l4.planner import PlanError
from mistral_on_l4.settings import SettingsError
from policies.pods import Pod, environment_of, pod_of
from policies.reading import UNKNOWN, at, items, mapping
from policies.rule import Resource, Stack, StackFinding, stack_rule
from policies.served import ServedStack, gibibytes, planned

_GIB = 2**30
# An address inside the cluster: http://NAME.NAMESPACE.svc, with or without a port or the cluster's domain.
_INSIDE = re.compile(r"https?://([a-z0-9-]+)\.([a-z0-9-]+)\.svc\b")


@stack_rule(
    "references-exist",
    why="A pod that names a Secret, ConfigMap, claim or account which nobody makes hangs in ContainerCreating, and so does `up`.",
    fix="declare the object in the same namespace, or correct the name; what others make goes into this policy's 'elsewhere'",
    severity=Severity.HIGH,
    settings={
        "elsewhere": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Regular expressions of Kind/name that are made outside the stack",
            "default": ["ServiceAccount/default", r"ConfigMap/(kube-root-ca|openshift-service-ca)\.crt"],
        }
    },
)
def references_exist(stack: Stack) -> Iterator[StackFinding]:
    known = set(_declared(stack))
    for resource in stack.resources:
        pod = None if "kubernetes:helm.sh/" in resource.urn else pod_of(resource)
        if pod is None:
            continue
        namespace = resource.meta.get("namespace")
        for kind, reference in dict.fromkeys(_references(resource, pod)):
            elsewhere = any(re.fullmatch(str(pattern), f"{kind}/{reference}") for pattern in stack.config["elsewhere"])
            # A Service is named with its namespace; everything else lies beside the pod.
            name, _, other = reference.partition(".") if kind == "Service" else (reference, "", "")
            where = other or namespace
            if not elsewhere and (kind, where, name) not in known:
                yield f"{resource.label}: names {kind} {name}, which the stack does not make in {where}", resource.urn


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


def _references(resource: Resource, pod: Pod) -> Iterator[tuple[str, str]]:
    account = at(pod.spec, "serviceAccountName")
    if isinstance(account, str):
        yield "ServiceAccount", account
    for volume in items(pod.spec, "volumes"):
        for kind, field, key in (
            ("Secret", "secret", "secretName"),
            ("ConfigMap", "configMap", "name"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):
            name = at(volume, field, key)
            if isinstance(name, str) and at(volume, field, "optional") is not True:
                yield kind, name
    for container in pod.containers:
        for entry in items(container.spec, "env"):
            for kind, field in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
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
        prefix = at(service.props, "spec", "predictor", "model", "storage", "path")
        if isinstance(prefix, str) and prefix not in seeds:
            yield f"{service.label}: no Job seeds {prefix!r} (seeded: {', '.join(map(str, seeds)) or 'nothing'})", service.urn
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
    why="A startup probe that gives up before the weights are loaded restarts the pod, which begins again, for ever.",
    fix="give the startupProbe (failureThreshold x periodSeconds) at least the plan's load time, better twice that",
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
    if served.platform == "local":
        return  # its hub hands out checkpoints of a few megabytes
    for store in stack.of("StatefulSet"):
        if at(store.meta, "labels", "app.kubernetes.io/component") != "object-store":
            continue
        for claim in items(store.props, "spec", "volumeClaimTemplates"):
            room = gibibytes(at(claim, "spec", "resources", "requests", "storage"))
            needed = served.checkpoint_bytes / _GIB
            if room is not None and room < needed * 1.05:
                yield f"{store.label}: {room:.0f} GiB for checkpoints of {needed:.0f} GiB", store.urn


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
    for service in stack.of("Service"):
        if "kubernetes:helm.sh/" in service.urn or not service.is_kubernetes:
            continue
        selector, namespace = mapping(service.props, "spec", "selector"), service.meta.get("namespace")
        if selector and not any(space == namespace and selector.items() <= labels.items() for space, labels in pods):
            yield f"{service.label}: its selector matches no pod of the stack", service.urn


POLICIES = (
    references_exist,
    services_load_what_is_seeded,
    services_have_time_to_load,
    store_holds_its_checkpoints,
    selectors_select_something,
)
