"""Rules for everything that becomes a pod: resources, probes, users, privileges, placement on GPUs, Jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pulumi_policy import Severity

from mistral_on_l4.config.names import POOL_LABEL
from policies.pods import GPU, LONG_RUNNING, Container, Pod, effective, gpus, is_runtime, known, pod_of
from policies.pools import pool_of
from policies.reading import UNKNOWN, at, items, mapping
from policies.rule import Resource, resource_rule

_TRUE = (True, "true")
_GPU_TYPES = {
    "gpuInstanceTypes": {
        "type": "string",
        "description": "Regular expression of the instance types that carry a GPU",
        "default": r"^(g|gr|p)[0-9]",
    }
}


def ours(resource: Resource) -> Pod | None:
    """The pod of an object that this project writes. Objects of the projects' own Helm charts are theirs: DCGM's exporter needs
    SYS_ADMIN, a device plugin needs the host's sockets. They are pinned by chart version instead.
    """
    return None if "kubernetes:helm.sh/" in resource.urn else pod_of(resource)


@resource_rule(
    "containers-have-requests-and-limits",
    why="A container without requests is evicted first; one without a memory limit takes its node with it.",
    fix="set resources.requests.cpu, resources.requests.memory and resources.limits.memory",
    severity=Severity.MEDIUM,
)
def containers_have_requests_and_limits(resource: Resource) -> Iterator[str]:
    pod = ours(resource)
    # A runtime is shared: each service brings its own resources.
    if pod is None or is_runtime(resource):
        return
    for container in pod.containers:
        for kind, what in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
            if at(container.spec, "resources", kind, what) is None:
                yield f"{resource.label}: container {container.name} has no {kind}.{what}"


@resource_rule(
    "long-running-pods-have-probes",
    why="Without a readiness probe traffic reaches a server that still loads; without liveness a hung one stays for ever.",
    fix="add readinessProbe and livenessProbe, and a startupProbe where loading takes minutes, on a path that needs no token",
    severity=Severity.MEDIUM,
)
def long_running_pods_have_probes(resource: Resource) -> Iterator[str]:
    pod = ours(resource)
    if pod is None or resource.kind not in LONG_RUNNING:
        return
    wanted = ["readinessProbe", "livenessProbe"]
    if resource.kind == "InferenceService":
        # KServe's own default is a TCP probe that passes as soon as the port is open, long before the weights are loaded.
        wanted.insert(0, "startupProbe")
    for container in pod.containers:
        if resource.kind == "DaemonSet" and not items(container.spec, "ports"):
            continue  # it answers nobody: an image puller, a log shipper
        if missing := [probe for probe in wanted if not container.init and at(container.spec, probe) is None]:
            yield f"{resource.label}: container {container.name} has no {', '.join(missing)}"


@resource_rule(
    "containers-run-as-non-root",
    why="A process that is root in its container is root on the node after one kernel bug.",
    fix="set runAsNonRoot: true and a runAsUser above 0",
    severity=Severity.HIGH,
)
def containers_run_as_non_root(resource: Resource) -> Iterator[str]:
    pod = ours(resource)
    if pod is None:
        return
    if resource.kind == "InferenceService" and at(pod.spec, "securityContext", "runAsNonRoot") is None:
        yield f"{resource.label}: its pod does not set runAsNonRoot"
    for container in pod.containers:
        non_root, user = effective(pod, container, "runAsNonRoot"), effective(pod, container, "runAsUser")
        if user in (0, "0"):
            yield f"{resource.label}: container {container.name} runs as user 0"
        elif non_root is False or (non_root is None and container.whole):
            yield f"{resource.label}: container {container.name} may run as root"


@resource_rule(
    "containers-have-no-privileges",
    why="Privileges, added capabilities and the host's namespaces or folders let a container out of its box.",
    fix="set allowPrivilegeEscalation: false and capabilities.drop: [ALL]; remove privileged, added capabilities and host access",
    severity=Severity.CRITICAL,
)
def containers_have_no_privileges(resource: Resource) -> Iterator[str]:
    pod = ours(resource)
    if pod is None:
        return
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        if at(pod.spec, flag) in _TRUE:
            yield f"{resource.label}: its pod asks for {flag}"
    for volume in items(pod.spec, "volumes"):
        if at(volume, "hostPath") is not None:
            yield f"{resource.label}: volume {at(volume, 'name')} is a folder of the node"
    for container in pod.containers:
        yield from (f"{resource.label}: container {container.name} {text}" for text in _privileges(container))


def _privileges(container: Container) -> Iterator[str]:
    context = at(container.spec, "securityContext")
    if at(context, "privileged") in _TRUE:
        yield "is privileged"
    escalation = at(context, "allowPrivilegeEscalation")
    if escalation in _TRUE or (escalation is None and container.whole):
        yield "may gain privileges (allowPrivilegeEscalation is not false)"
    if added := [name for name in items(context, "capabilities", "add") if known(name)]:
        yield f"adds capabilities {', '.join(map(str, added))}"
    dropped = at(context, "capabilities", "drop")
    if known(dropped) and "ALL" not in items(dropped) and (container.whole or dropped is not None):
        yield "keeps capabilities (capabilities.drop is not [ALL])"


@resource_rule(
    "pods-have-a-seccomp-profile",
    why="Without a seccomp profile a container may call every system call of the kernel.",
    fix="set seccompProfile.type: RuntimeDefault on the pod",
    severity=Severity.HIGH,
)
def pods_have_a_seccomp_profile(resource: Resource) -> Iterator[str]:
    pod = ours(resource)
    if pod is None:
        return
    if resource.kind == "InferenceService" and at(pod.spec, "securityContext", "seccompProfile", "type") is None:
        yield f"{resource.label}: its pod sets no seccomp profile"
    for container in pod.containers:
        profile = at(container.spec, "securityContext", "seccompProfile", "type")
        if profile is None:
            profile = at(pod.spec, "securityContext", "seccompProfile", "type")
        if profile == "Unconfined" or (profile is None and container.whole):
            yield f"{resource.label}: container {container.name} runs without a seccomp profile"


@resource_rule(
    "gpu-pods-name-their-pool",
    why="GPU pods that may land anywhere take the nodes that another service was planned for, or wait for ever before a taint.",
    fix=f"set nodeSelector {POOL_LABEL} to a pool of the stack and tolerate the taint {GPU}",
    severity=Severity.HIGH,
)
def gpu_pods_name_their_pool(resource: Resource) -> Iterator[str]:
    pod = ours(resource)
    if pod is None or pod.gpus == 0:
        return
    if at(pod.spec, "nodeSelector", POOL_LABEL) is None:
        yield f"{resource.label}: asks for {pod.gpus} GPU without naming a pool"
    if at(pod.spec, "tolerations") is not UNKNOWN and not any(_tolerates_gpu(item) for item in items(pod.spec, "tolerations")):
        yield f"{resource.label}: does not tolerate the taint {GPU}, so no GPU node takes it"
    for container in pod.containers:
        requested, limit = at(container.spec, "resources", "requests", GPU), at(container.spec, "resources", "limits", GPU)
        if limit is None and requested is not None:
            yield f"{resource.label}: requests GPUs without a limit, which the device plugin does not give"
        elif requested is not None and known(requested) and known(limit) and str(requested) != str(limit):
            yield f"{resource.label}: requests {requested} GPUs and limits them to {limit}; Kubernetes wants both the same"


def _tolerates_gpu(toleration: Any) -> bool:
    if not isinstance(toleration, Mapping):
        return False
    everything = not toleration.get("key") and toleration.get("operator") == "Exists"
    return (everything or toleration.get("key") == GPU) and toleration.get("effect") in (None, "", "NoSchedule", UNKNOWN)


@resource_rule(
    "gpu-nodes-are-tainted",
    why="An untainted GPU node fills with pods that need none, at several dollars an hour.",
    fix=f"give GPU nodes the label {POOL_LABEL} and the taint {GPU} with effect NoSchedule",
    severity=Severity.HIGH,
    settings=_GPU_TYPES,
)
def gpu_nodes_are_tainted(resource: Resource) -> Iterator[str]:
    pool = pool_of(resource, resource.config["gpuInstanceTypes"])
    if pool is None or not pool.is_gpu:
        return
    if pool.name is None:
        yield f"{resource.label}: a GPU node ({pool.instance_type}) outside the known pools: it has no label {POOL_LABEL}"
    if not pool.tainted:
        yield f"{resource.label}: GPU nodes ({pool.instance_type}) without the taint {GPU}"


@resource_rule(
    "gpu-nodes-have-a-driver",
    why="A GPU node whose image has no NVIDIA driver never offers its GPU, and bills while the service waits for it.",
    fix="use amiType AL2023_x86_64_NVIDIA or BOTTLEROCKET_x86_64_NVIDIA (CUSTOM with an image of your own)",
    severity=Severity.HIGH,
    settings=_GPU_TYPES,
)
def gpu_nodes_have_a_driver(resource: Resource) -> Iterator[str]:
    pool = pool_of(resource, resource.config["gpuInstanceTypes"])
    image = at(resource.props, "amiType")
    if pool is None or not pool.is_gpu or not isinstance(image, str):
        return
    if image != "CUSTOM" and not re.search(r"NVIDIA|GPU", image):
        yield f"{resource.label}: GPU nodes ({pool.instance_type}) on image {image}, which has no driver"


@resource_rule(
    "gpu-services-can-start",
    why="Some settings are fine for other pods and keep a GPU pod from ever starting, at the GPU's price.",
    fix="use deploymentStrategy Recreate, no CPU autoscaler and a writable root filesystem on GPU containers",
    severity=Severity.HIGH,
)
def gpu_services_can_start(resource: Resource) -> Iterator[str]:
    pod = ours(resource)
    if pod is None:
        return
    serving = resource.kind == "InferenceService"
    if serving and pod.gpus:
        strategy = at(pod.spec, "deploymentStrategy", "type")
        if known(strategy) and strategy != "Recreate":
            yield f"{resource.label}: a rolling update needs a second {pod.gpus}-GPU node beside the first"
        scaler = at(resource.meta, "annotations", "serving.kserve.io/autoscalerClass")
        if scaler in (None, "hpa"):
            yield f"{resource.label}: KServe's default autoscaler by CPU starts GPU pods that nobody asked for"
    for container in pod.containers:
        read_only = at(container.spec, "securityContext", "readOnlyRootFilesystem")
        if read_only in _TRUE and (is_runtime(resource) or gpus(container.spec)):
            yield f"{resource.label}: container {container.name} has a read-only root filesystem, on which NVIDIA's hook fails"
    if is_runtime(resource) and at(pod.spec, "volumes") is not UNKNOWN and not _has_shared_memory(pod):
        yield f"{resource.label}: no memory volume at /dev/shm, so tensor-parallel workers end in a bus error"


def _has_shared_memory(pod: Pod) -> bool:
    memory = {at(volume, "name") for volume in items(pod.spec, "volumes") if at(volume, "emptyDir", "medium") == "Memory"}
    mounts = [mount for container in pod.containers for mount in items(container.spec, "volumeMounts")]
    return any(at(mount, "mountPath") == "/dev/shm" and at(mount, "name") in memory for mount in mounts)


@resource_rule(
    "jobs-have-deadlines-and-stay",
    why="A Job without a deadline can hang an update for ever, and one with a ttl vanishes, so that the next update runs it again.",
    fix="set spec.activeDeadlineSeconds and remove spec.ttlSecondsAfterFinished",
    severity=Severity.MEDIUM,
    settings={"maxSeconds": {"type": "integer", "description": "Longest deadline of a Job", "minimum": 60, "default": 6 * 3600}},
)
def jobs_have_deadlines_and_stay(resource: Resource) -> Iterator[str]:
    if ours(resource) is None or resource.kind not in ("Job", "CronJob"):
        return
    spec = mapping(resource.props, "spec") if resource.kind == "Job" else mapping(resource.props, "spec", "jobTemplate", "spec")
    deadline, longest = at(spec, "activeDeadlineSeconds"), int(resource.config["maxSeconds"])
    if deadline is None:
        yield f"{resource.label}: has no activeDeadlineSeconds"
    elif known(deadline) and int(deadline) > longest:
        yield f"{resource.label}: may run for {int(deadline)} s, more than the {longest} s that are allowed"
    if at(spec, "ttlSecondsAfterFinished") is not None:
        yield f"{resource.label}: vanishes after ttlSecondsAfterFinished"


@resource_rule(
    "rights-are-narrow",
    why="A Job's account that may do everything makes its token worth stealing.",
    fix="name the verbs and resources that the script uses, in a Role",
    severity=Severity.HIGH,
)
def rights_are_narrow(resource: Resource) -> Iterator[str]:
    if not resource.is_kubernetes or "kubernetes:helm.sh/" in resource.urn:
        return
    if resource.kind in ("Role", "ClusterRole"):
        for rule in items(resource.props, "rules"):
            verbs, things = items(rule, "verbs"), items(rule, "resources")
            if "*" in (*verbs, *things):
                yield f"{resource.label}: allows {'/'.join(map(str, verbs))} on {'/'.join(map(str, things))}"
    if resource.kind in ("RoleBinding", "ClusterRoleBinding") and at(resource.props, "roleRef", "name") in (
        "cluster-admin",
        "admin",
    ):
        yield f"{resource.label}: binds {at(resource.props, 'roleRef', 'name')}"


@resource_rule(
    "namespaces-enforce-pod-security",
    why="The namespace's own label is what stops a pod that nobody reviewed.",
    fix="label the namespace pod-security.kubernetes.io/enforce: restricted (baseline for InferenceServices)",
    severity=Severity.MEDIUM,
)
def namespaces_enforce_pod_security(resource: Resource) -> Iterator[str]:
    # Namespaces of Helm charts and operators hold what needs the node itself: a device plugin, an exporter, a driver.
    theirs = (":Charts$", "helm.sh/", ":InstalledOperator$")
    if not resource.is_kubernetes or resource.kind != "Namespace" or any(part in resource.urn for part in theirs):
        return
    level = at(resource.meta, "labels", "pod-security.kubernetes.io/enforce")
    if level is None:
        yield f"{resource.label}: does not say which pods it admits"
    elif level == "privileged":
        yield f"{resource.label}: admits privileged pods"


POLICIES = (
    containers_have_requests_and_limits,
    long_running_pods_have_probes,
    containers_run_as_non_root,
    containers_have_no_privileges,
    pods_have_a_seccomp_profile,
    gpu_pods_name_their_pool,
    gpu_nodes_are_tainted,
    gpu_nodes_have_a_driver,
    gpu_services_can_start,
    jobs_have_deadlines_and_stay,
    rights_are_narrow,
    namespaces_enforce_pod_security,
)
