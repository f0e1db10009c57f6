"""Rules for what OpenShift and OpenShift AI refuse, overwrite or bill, on a stack that lives there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pulumi_policy import Severity

from mistral_on_l4.config.names import STACK_TAG
from mistral_on_l4.manifests.openshift import names
from policies.pods import pod_of
from policies.pools import MACHINE_SET
from policies.reading import UNKNOWN, at, items, mapping
from policies.rule import Resource, Stack, StackFinding, resource_rule, stack_rule
from policies.served import ServedStack, is_vllm

_IDS = ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups")
_CONNECTION_TYPE = "opendatahub.io/connection-type"


@stack_rule(
    "openshift-assigns-user-ids",
    why="OpenShift gives each namespace a range of user ids, and its restricted SCC refuses every pod that names one of its own.",
    fix="leave runAsUser, runAsGroup and fsGroup out (user_ids 'assigned')",
    severity=Severity.HIGH,
)
def openshift_assigns_user_ids(stack: Stack) -> Iterator[StackFinding]:
    if not _on_openshift(stack):
        return
    for resource in stack.resources:
        pod = pod_of(resource)
        if pod is None:
            continue
        contexts: list[tuple[str, Any]] = [("its pod", at(pod.spec, "securityContext"))]
        contexts += [(f"container {container.name}", at(container.spec, "securityContext")) for container in pod.containers]
        for who, context in contexts:
            if fixed := [field for field in _IDS if at(context, field) is not None]:
                yield f"{resource.label}: {who} fixes {', '.join(fixed)}", resource.urn


@stack_rule(
    "openshift-ai-knows-its-services",
    why="OpenShift AI rejects, hides or overwrites services without a hardware profile, a connection and the mode that it knows.",
    fix="take labels and annotations from manifests/openshift/data_science.py, and the store's credentials from a connection",
    severity=Severity.HIGH,
)
def openshift_ai_knows_its_services(stack: Stack) -> Iterator[StackFinding]:
    if not _on_openshift(stack):
        return
    served = ServedStack(stack)
    connections = {str(secret.meta.get("name")) for secret in stack.of("Secret") if _is_connection(secret)}
    profiles = {str(profile.meta.get("name")) for profile in stack.of("HardwareProfile")}
    for service in (found for found in stack.of("InferenceService") if is_vllm(found)):
        yield from ((f"{service.label}: {text}", service.urn) for text in _service(service, served, connections, profiles))
    for secret in stack.of("Secret"):
        if secret.meta.get("name") == "storage-config":
            yield f"{secret.label}: OpenShift AI writes this Secret from its connections, and reverts anybody else's", secret.urn


def _service(service: Resource, served: ServedStack, connections: set[str], profiles: set[str]) -> Iterator[str]:
    annotations, labels = mapping(service.meta, "annotations"), mapping(service.meta, "labels")
    mode = annotations.get("serving.kserve.io/deploymentMode")
    if mode not in (served.traits.deployment_mode, UNKNOWN):
        yield f"deploymentMode is {mode}, and the installed KServe calls it {served.traits.deployment_mode}"
    key = at(service.props, "spec", "predictor", "model", "storage", "key")
    if key is not UNKNOWN and key not in connections:
        yield f"takes its store's credentials from {key!r}, which is no connection of the stack"
    if annotations.get(names.CONNECTIONS_ANNOTATION) not in (key, UNKNOWN):
        yield f"loads through {key!r}, which the webhook changes to connection {annotations.get(names.CONNECTIONS_ANNOTATION)!r}"
    profile = annotations.get(names.PROFILE_ANNOTATION)
    if profile is None:
        yield "names no hardware profile"
    elif profiles and profile is not UNKNOWN and profile not in profiles:
        yield f"names hardware profile {profile}, and there are {', '.join(sorted(profiles))}: its webhook rejects it"
    if labels.get("opendatahub.io/dashboard") not in ("true", UNKNOWN):
        yield "is hidden from the dashboard (label opendatahub.io/dashboard)"
    if labels.get(names.EXPOSED_LABEL) == "exposed" and annotations.get(names.ROUTE_TIMEOUT_ANNOTATION) is None:
        yield f"answers longer than its Route's 30 seconds (annotation {names.ROUTE_TIMEOUT_ANNOTATION})"


def _is_connection(secret: Resource) -> bool:
    labels, annotations = mapping(secret.meta, "labels"), mapping(secret.meta, "annotations")
    managed = labels.get("opendatahub.io/managed") == "true" and labels.get("opendatahub.io/dashboard") == "true"
    return managed and annotations.get(_CONNECTION_TYPE) == "s3"


@resource_rule(
    "machine-sets-are-accountable",
    why="A MachineSet makes instances that nobody can trace, or whose disks anybody can read from a snapshot.",
    fix="derive it from a worker MachineSet (manifests/openshift/machine_sets.py), which keeps what the cluster needs",
    severity=Severity.HIGH,
)
def machine_sets_are_accountable(resource: Resource) -> Iterator[str]:
    if resource.token != MACHINE_SET:
        return
    provider = at(resource.props, "spec", "template", "spec", "providerSpec", "value")
    if provider is UNKNOWN:
        return
    tags = {str(at(tag, "name")): at(tag, "value") for tag in items(provider, "tags")}
    if tags.get(STACK_TAG) is None:
        yield f"{resource.label}: its instances lack the tag {STACK_TAG}, by which `demo sweep` finds them"
    if not any(name.startswith("kubernetes.io/cluster/") for name in tags):
        yield f"{resource.label}: its instances lack the cluster's own tag, without which they never join it"
    for disk in items(provider, "blockDevices"):
        if at(disk, "ebs", "encrypted") is not True:
            yield f"{resource.label}: its disks are not encrypted"
    labels = mapping(resource.props, "spec", "selector", "matchLabels")
    machines = mapping(resource.props, "spec", "template", "metadata", "labels")
    if not labels or any(machines.get(key) != value for key, value in labels.items()):
        yield f"{resource.label}: its selector is not on its machines, so that it makes new ones without end"
    for field in ("ami", "subnet", "iamInstanceProfile", "userDataSecret", "securityGroups"):
        if at(provider, field) is None:
            yield f"{resource.label}: its machines have no {field}, and never become nodes"
    cluster = next((name.rpartition("/")[2] for name in tags if name.startswith("kubernetes.io/cluster/")), None)
    if cluster and labels.get("machine.openshift.io/cluster-api-cluster") not in (cluster, UNKNOWN):
        yield f"{resource.label}: is labelled for another cluster than {cluster}"


def _on_openshift(stack: Stack) -> bool:
    return ServedStack(stack).traits.given_cluster


POLICIES = (openshift_assigns_user_ids, openshift_ai_knows_its_services, machine_sets_are_accountable)
