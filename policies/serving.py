"""Rules for what is served: the fit, the price, the arguments, the prefixes, and the data that an update must not lose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pulumi_policy import Severity

from mistral_on_l4.config.names import Kept
from mistral_on_l4.config.settings import BudgetSettings, SettingsError
from mistral_on_l4.manifests.kept_data import place_of
from mistral_on_l4.planner import PlanError, StackPlan
from mistral_on_l4.planner.hosting import room_of
from policies.pods import environment_of
from policies.pools import NodePool, pool_of
from policies.reading import UNKNOWN, at, items
from policies.rule import Resource, Stack, StackFinding, resource_rule, stack_rule
from policies.served import Served, ServedStack, gibibytes, planned, prefix_of


@resource_rule(
    "s3-prefixes-end-with-slash",
    why="S3 lists by plain prefix: `mistral-24b` also fetches everything below `mistral-24b-fp8/`, and the wrong weights load.",
    fix="end the prefix with '/' (services.NAME.prefix)",
    severity=Severity.HIGH,
)
def s3_prefixes_end_with_slash(resource: Resource) -> Iterator[str]:
    found = []
    if resource.kind == "InferenceService":
        predictor = at(resource.props, "spec", "predictor")
        for model in (at(predictor, "model"), predictor):
            found += [prefix_of({field: at(model, field)}) for field in ("storage", "storageUri")]
    found += [value for name, value in environment_of(resource) if name == "WEIGHTS_PREFIX"]
    for prefix in found:
        if isinstance(prefix, str) and not prefix.endswith("/"):
            yield f"{resource.label}: prefix {prefix!r} also matches '{prefix}-fp8/'"


@stack_rule(
    "no-quantization-of-quantized-checkpoints",
    why="vLLM refuses at start when --quantization differs from what the checkpoint was quantized with.",
    fix="leave --quantization out: vLLM reads the method from the checkpoint",
    severity=Severity.HIGH,
)
def no_quantization_of_quantized_checkpoints(stack: Stack) -> Iterator[StackFinding]:
    served_stack = ServedStack(stack)
    for served in served_stack.services:
        flag = served.flags.get("--quantization")
        if flag is None or served.model is None or served.variant is None:
            continue
        variants = {str(name): variant for name, variant in served_stack.catalogue.model(served.model).variants.items()}
        method = variants[served.variant].quantization.method if served.variant in variants else "none"
        if method not in ("none", flag):
            yield f"InferenceService {served.name}: --quantization {flag} on a {method} checkpoint", served.urn


@stack_rule(
    "services-fit-their-pool",
    why="A service that does not fit bills its GPU while it fails to load, or waits for ever for a node that will not come.",
    fix="take one of the remedies that `demo plan` prints, or change the service's pool, GPUs or context length",
    severity=Severity.CRITICAL,
)
def services_fit_their_pool(stack: Stack) -> Iterator[StackFinding]:
    served_stack = ServedStack(stack)
    pools = {pool.name: pool for pool in served_stack.pools if pool.name is not None}
    for served in served_stack.services:
        yield from ((f"InferenceService {served.name}: {text}", served.urn) for text in _misplaced(served, pools, served_stack))
    for pool in pools.values():
        inside = [served for served in served_stack.services if served.pool == pool.name]
        if inside and (text := _overfull(pool, inside, served_stack)):
            yield f"pool {pool.name}: {text}", pool.urn
    try:
        plan = planned(served_stack)
    except (PlanError, SettingsError) as error:
        yield f"the manifests cannot be planned: {_one_line(str(error))}", None
        return
    urns = {served.name: served.urn for served in served_stack.services}
    limits = {served.name: served.memory_limit_gib for served in served_stack.services}
    for service in plan.services if plan else ():
        needed = gibibytes(service.pod.requests["memory"]) if service.pod else None
        limit = limits.get(service.name)
        if needed is not None and limit is not None and limit < needed:
            text = f"InferenceService {service.name}: is limited to {limit:.0f} GiB of memory and needs {needed:.0f} to load"
            yield text, urns.get(service.name)
        if not service.loads:
            remedies = " | ".join(remedy.change for remedy in service.remedies)
            text = f"InferenceService {service.name} does not fit {service.gpus}x {service.gpu}: {service.reason}"
            yield text + (f" (remedies: {remedies})" if remedies else ""), urns.get(service.name)


def _misplaced(served: Served, pools: Mapping[str, NodePool], stack: ServedStack) -> Iterator[str]:
    """What keeps a pod from its node before any memory of a GPU is counted."""
    if served.gpus == 0:
        yield "asks for no GPU"
    elif served.gpus != served.tensor_parallel:
        yield f"asks for {served.gpus} GPU and splits the model over {served.tensor_parallel} (--tensor-parallel-size)"
    if served.pool is None:
        return  # gpu-pods-name-their-pool says so
    pool = pools.get(served.pool)
    if pool is None:
        yield f"names pool {served.pool}, which the stack does not make; it makes {', '.join(sorted(pools)) or 'none'}"
        return
    instance = stack.catalogue.instances.get(pool.instance_type)
    if instance is None:
        return
    if served.gpus > instance.gpus:
        yield f"asks for {served.gpus} GPU of a {pool.instance_type}, which has {instance.gpus}"
    # What the kubelet and the DaemonSets keep, no pod gets.
    room = room_of(instance, stack.catalogue.reserved[stack.traits.node_reserve])
    if served.memory_gib is not None and served.memory_gib > room.memory_gib:
        yield f"requests {served.memory_gib:.1f} GiB of memory of a {pool.instance_type}, which leaves {room.memory_gib:.1f}"
    if served.cpus is not None and served.cpus > room.cpu:
        yield f"requests {served.cpus:g} CPUs of a {pool.instance_type}, which leaves {room.cpu:.1f}"


def _overfull(pool: NodePool, inside: list[Served], stack: ServedStack) -> str | None:
    """GPU counts are powers of two, so filling the nodes from the largest service down finds a placement if there is one."""
    instance = stack.catalogue.instances.get(pool.instance_type)
    if instance is None:
        return None
    free = [instance.gpus] * pool.count
    pods = [
        gpus for gpus, replicas in sorted(((found.gpus, found.replicas) for found in inside), reverse=True) for _ in range(replicas)
    ]
    for asked in pods:
        node = next((index for index, left in enumerate(free) if left >= asked), None)
        if node is None:
            total = " + ".join(str(gpus) for gpus in pods)
            return f"{len(pods)} pods ask for {total} GPU of {pool.count}x {pool.instance_type} ({instance.gpus} GPU each)"
        free[node] -= asked
    return None


@stack_rule(
    "stack-within-budget",
    why="A demo that nobody priced runs over a weekend.",
    fix="use fewer or smaller nodes, or raise mistral-on-l4:budget.maxHourlyUsd and say why in the pull request",
    severity=Severity.HIGH,
    settings={
        "maxHourlyUsd": {
            "type": "number",
            "description": "Dollars an hour; without it, the stack's own budget.maxHourlyUsd",
            "exclusiveMinimum": 0,
        }
    },
)
def stack_within_budget(stack: Stack) -> Iterator[StackFinding]:
    served_stack = ServedStack(stack)
    try:
        plan = planned(served_stack)
    except (PlanError, SettingsError):
        return  # services-fit-their-pool says so
    if plan is None or plan.usd_per_hour is None:
        return
    extra = _unplanned_usd(served_stack)
    total = plan.usd_per_hour + extra
    given = stack.config.get("maxHourlyUsd")
    budget = served_stack.configured.budget if served_stack.configured else BudgetSettings()
    limit = float(given) if given is not None else budget.max_hourly_usd
    if total > limit:
        yield f"the stack costs ${total:.2f} an hour, more than ${limit:.2f} ({_dearest(plan, extra)})", None


def _dearest(plan: StackPlan, extra: float) -> str:
    """What costs most, with its price: GPU nodes or not."""
    priced = [(line.usd_per_hour or 0.0, line.what) for line in (*plan.pools, *plan.fixed)]
    priced.append((extra, "nodes that no plan counts"))
    return ", ".join(f"{what} ${usd:.2f}" for usd, what in sorted(priced, reverse=True)[:3] if usd >= 0.005)


def _unplanned_usd(stack: ServedStack) -> float:
    """Dollars an hour of instances that no plan counts: GPU nodes outside the pools, system nodes beyond the planned ones."""
    catalogue = stack.catalogue
    region = stack.configured.region if stack.configured else "us-east-1"

    def price(kind: str) -> float:
        instance = catalogue.instances.get(kind)
        return (instance.usd_per_hour.get(region) or 0.0) if instance else 0.0

    unnamed = sum(pool.count * price(pool.instance_type) for pool in stack.pools if pool.name is None)
    groups = [pool for resource in stack.stack.resources if (pool := pool_of(resource)) is not None and not pool.is_gpu]
    system = sum(pool.count * price(pool.instance_type) for pool in groups)
    planned = catalogue.system_nodes.count * price(catalogue.system_nodes.instance)
    single = sum(price(str(at(found.props, "instanceType"))) for found in stack.stack.of("Instance") if found.is_aws)
    return unnamed + max(0.0, system - planned) + single


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


@stack_rule(
    "kept-data-stays",
    why="The registry's database and the bucket hold what no commit brings back, and an update that drops them deletes them.",
    fix="keep store and database in the stack; to move them, copy the data first, in an update of its own",
    severity=Severity.CRITICAL,
)
def kept_data_stays(stack: Stack) -> Iterator[StackFinding]:
    for resource in stack.of("InferenceService"):
        key = at(resource.props, "spec", "predictor", "model", "storage", "key")
        if key == "minio" and not _external_store(stack) and not _keeps(stack, "store"):
            yield f"{resource.label}: its weights lie in a MinIO that the stack no longer declares", resource.urn
            break
    for resource in stack.of("StatefulSet", "Deployment"):
        for volume in items(resource.props, "spec", "template", "spec", "volumes"):
            if at(volume, "name") == "data" and at(volume, "emptyDir") is not None:
                yield f"{resource.label}: keeps its data in an emptyDir, which goes with the pod", resource.urn
    for resource in stack.of("StatefulSet"):
        if at(resource.props, "spec", "replicas") == 0:
            yield f"{resource.label}: has no replica, so nobody can read its data", resource.urn
    if _registers(stack) and not _has_database(stack):
        yield "the registry has no database of its own: what was registered before is lost", None


def _external_store(stack: Stack) -> bool:
    """Whether the weights' jobs write to a store outside the cluster."""
    told = (entry for job in stack.of("Job") for entry in environment_of(job))
    return any(name == "AWS_ENDPOINT_URL" and isinstance(value, str) and ".svc" not in value for name, value in told)


def _keeps(stack: Stack, key: Kept) -> bool:
    """Whether the stack declares the claim with these data, and something that mounts it."""
    for claim in stack.of("PersistentVolumeClaim"):
        place = place_of(claim.token, claim.props)
        if place is not None and place.key == key:
            servers = [found for found in stack.of("StatefulSet", "Deployment") if found.meta.get("namespace") == place.namespace]
            return any(_mounts(server, place.name) for server in servers)
    return False


def _mounts(server: Resource, claim: str) -> bool:
    volumes = ("spec", "template", "spec", "volumes")
    names = [at(volume, "persistentVolumeClaim", "claimName") for volume in items(server.props, *volumes)]
    return claim in names or UNKNOWN in names or at(server.props, *volumes) is UNKNOWN


def _registers(stack: Stack) -> bool:
    return any(at(found.meta, "labels", "app.kubernetes.io/name") == "register-model" for found in stack.of("Job"))


def _has_database(stack: Stack) -> bool:
    """A claim of the registry's own, or a registry that its platform's operator keeps."""
    servers = [
        found for found in stack.of("Deployment") if at(found.meta, "labels", "app.kubernetes.io/component") == "model-registry"
    ]
    if not servers:
        return bool(stack.of("ModelRegistry"))
    return _keeps(stack, "registry")


@resource_rule(
    "nothing-bills-after-destroy",
    why="Volumes of a StatefulSet and of a retaining StorageClass outlive `pulumi destroy`, and bill until somebody finds them.",
    fix="set persistentVolumeClaimRetentionPolicy.whenDeleted and the StorageClass's reclaimPolicy to Delete",
    severity=Severity.MEDIUM,
)
def nothing_bills_after_destroy(resource: Resource) -> Iterator[str]:
    if not resource.is_kubernetes or "kubernetes:helm.sh/" in resource.urn:
        return
    when_deleted = at(resource.props, "spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted")
    claims = resource.kind == "StatefulSet" and items(resource.props, "spec", "volumeClaimTemplates")
    if claims and when_deleted in (None, "Retain"):
        yield f"{resource.label}: its volumes stay when it is deleted"
    if resource.kind == "StorageClass" and at(resource.props, "reclaimPolicy") == "Retain":
        yield f"{resource.label}: its volumes stay when their claims are deleted"


POLICIES = (
    s3_prefixes_end_with_slash,
    no_quantization_of_quantized_checkpoints,
    services_fit_their_pool,
    stack_within_budget,
    kept_data_stays,
    nothing_bills_after_destroy,
)
