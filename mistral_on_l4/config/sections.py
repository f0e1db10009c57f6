"""The stack's configuration as a frozen model: one for every platform. How it is read is in settings.py."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator
from pydantic.alias_generators import to_camel

from mistral_on_l4.config.fields import Block, Bucket, Date, Label, Prefix, Quantity, Role, ServiceName, Span, span
from mistral_on_l4.config.local_engine import LocalEngine
from mistral_on_l4.config.names import Kept
from mistral_on_l4.config.traits import TRAITS, PlatformName, PlatformTraits

Provision = Literal["install", "existing"]
# As many nodes as a pool may have.
MAX_NODES = 64


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Variant(StrEnum):
    """Precision of a checkpoint: what its linear layers are stored in."""

    BF16 = "bf16"
    FP8 = "fp8"
    W4A16 = "w4a16"


class ServiceSettings(_Section):
    """One InferenceService and the checkpoint it serves."""

    name: ServiceName
    enabled: bool = True
    model: str = "mistral-small-24b-instruct-2501"
    variant: Variant
    # S3 prefix of the checkpoint's files in the bucket.
    prefix: Prefix
    # Commit or branch on the hub; a branch is resolved once and recorded in the manifest.
    revision: str = "main"
    # Repository on the hub, when it is not the one that the catalogue names for (model, variant).
    repository: str | None = None
    pool: Label
    # GPUs of one replica: vLLM splits the model over them.
    tensor_parallel_size: Literal[1, 2, 4, 8] = 1
    max_model_len: int = Field(default=8192, ge=256)
    max_num_seqs: int | None = Field(default=None, ge=1, le=1024)
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    gpu_memory_utilization: float = Field(default=0.90, gt=0.1, le=0.98)
    # GiB of weights per GPU that stay in the node's memory; "auto" lets the planner choose the smallest that loads.
    cpu_offload: Literal["off", "auto"] | Annotated[float, Field(gt=0, le=512)] = "off"
    # Passed to vLLM as written, after the planner's own.
    extra_args: tuple[str, ...] = ()


class PoolSettings(_Section):
    """A group of identical GPU nodes."""

    name: Label
    instance_type: str
    count: int = Field(default=1, ge=0, le=MAX_NODES)
    capacity_type: Literal["ON_DEMAND", "SPOT"] = "ON_DEMAND"
    # Of a SPOT pool: further types with the same GPUs, of which AWS takes the one that is least likely to be taken back.
    also_instance_types: tuple[str, ...] = ()

    @property
    def instance_types(self) -> tuple[str, ...]:
        """All of them; the plan is made for the first."""
        return (self.instance_type, *self.also_instance_types)

    @model_validator(mode="after")
    def _further_types_are_of_spot_pools(self) -> Self:
        if self.also_instance_types and self.capacity_type != "SPOT":
            raise ValueError("'alsoInstanceTypes' is for capacityType SPOT: on demand the plan's type alone is started")
        if len(set(self.instance_types)) < len(self.instance_types):
            raise ValueError(f"'alsoInstanceTypes' names a type twice: {', '.join(self.instance_types)}")
        return self


class PoolsSettings(_Section):
    """The GPU nodes."""

    # with-seed: nodes start while weights move (ready sooner); after-seed: they start, and bill, when the weights are there.
    start: Literal["with-seed", "after-seed"] = "with-seed"
    # In the file a map by name, merged over the defaults (merging.py).
    groups: tuple[PoolSettings, ...]


class NamespaceSettings(_Section):
    """Kubernetes namespaces that the stack makes its own."""

    services: Label = "private-ai"
    object_store: Label = "minio-storage"
    registry: Label = "rhoai-model-registries"


class ObjectStoreSettings(_Section):
    """Where the weights live. `external` is any S3 that already exists; its keys come as Pulumi secrets."""

    kind: Literal["minio", "external"] = "minio"
    bucket: Bucket = "rhoai-artifacts"
    region: str = "us-east-1"
    # Only for `external`: with its scheme.
    endpoint: str | None = None
    volume_size: Quantity = "200Gi"
    # gp3 throughput of the volume; above 125 it costs extra. The node's own EBS bandwidth may be the lower limit.
    volume_throughput_mibps: int = Field(default=500, ge=125, le=2000)

    @model_validator(mode="after")
    def _endpoint_belongs_to_external(self) -> Self:
        if self.kind == "external" and not self.endpoint:
            raise ValueError("kind 'external' needs 'endpoint', such as https://s3.us-east-1.amazonaws.com")
        if self.kind == "minio" and self.endpoint:
            raise ValueError("'endpoint' is only for kind 'external': MinIO's is made by the stack")
        if self.endpoint and not re.match(r"https?://[^/]+$", self.endpoint):
            raise ValueError(f"endpoint {self.endpoint!r} must be a scheme and a host, such as https://s3.example.com")
        return self


class RegistrySettings(_Section):
    """The model registry; its internal Service is called `<name>-internal`."""

    name: Label = "private-ai-registry"
    volume_size: Quantity = "5Gi"
    owner: str = "platform-team"


class HubSettings(_Section):
    """Where checkpoints come from. The token for gated models is the Pulumi secret `hubToken`."""

    # None: https://huggingface.co, or the local hub on platform `local`.
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/]")


class AccessSettings(_Section):
    """Who may talk to the services."""

    # token: vLLM asks for a key; none: it does not, which is refused together with an exposure.
    auth: Literal["token", "none"] = "token"
    exposure: Literal["none", "internal-load-balancer", "route"] = "none"

    @model_validator(mode="after")
    def _exposed_means_guarded(self) -> Self:
        if self.auth == "none" and self.exposure != "none":
            raise ValueError("auth 'none' with an exposure would let anybody in: set auth to 'token' or exposure to 'none'")
        return self


class BudgetSettings(_Section):
    """The policy pack refuses a stack that costs more than this."""

    max_hourly_usd: float = Field(default=12.0, gt=0)


class ImagesSettings(_Section):
    """Where container images are pulled from."""

    # Registry that stands in front of all others, such as 123456789012.dkr.ecr.us-east-1.amazonaws.com/mirror.
    mirror: str | None = None
    # Name of an existing pull Secret in every namespace of the stack.
    pull_secret: Label | None = None
    # Image reference by role (engine, minio, mc, jobs, registry, postgres), instead of the pinned one.
    overrides: dict[Role, str] = Field(default_factory=dict)


class LocalSettings(_Section):
    """The local stack. Read on `local`."""

    # simulator replays the plan's speed; vllm is vLLM itself on this machine's CPU, with a small model that really answers.
    engine: LocalEngine = "simulator"


class ClusterSettings(_Section):
    """The Kubernetes cluster: made by the stack, or an existing one by name. Read on `eks`."""

    name: Label | None = None
    existing: bool = False
    version: str = Field(default="1.36", pattern=r"^\d+\.\d+$")
    # Release of the GPU node image, such as 1.36.1-20260714; None: EKS's newest when a pool is made.
    gpu_release_version: str | None = Field(default=None, pattern=r"^\d+\.\d+\.\d+-\d{8}$")
    # Who may reach the public endpoint; () keeps it private.
    public_access_cidrs: tuple[Block, ...] = ()
    # IAM principals that administer the cluster beside its creator.
    admin_principal_arns: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _existing_has_a_name(self) -> Self:
        if self.existing and not self.name:
            raise ValueError("'existing: true' needs the cluster's 'name'")
        return self


class OperatorSettings(_Section):
    """Who brings each piece of an OpenShift cluster that the stack builds on.

    install: the stack does, and destroy takes it away; existing: it is there, and stays as it is.
    """

    nfd: Provision = "existing"
    gpu: Provision = "existing"
    rhoai: Provision = "existing"
    hardware_profiles: Provision = "install"
    monitoring: Provision = "existing"


class OpenshiftSettings(_Section):
    """An OpenShift cluster on AWS with OpenShift AI. Read on `openshift`."""

    # Of the kubeconfig; None: its current one, as `oc login` sets it.
    context: str | None = None
    # Release of OpenShift AI, as its ClusterServiceVersion begins.
    rhoai_version: Literal["3.0"] = "3.0"
    operators: OperatorSettings = OperatorSettings()
    # The worker MachineSet that GPU pools are derived from; None: the first one, by name, whose machines are ready.
    worker_machine_set: Label | None = None
    # The OpenShift LocalQueue of a services namespace that Kueue manages.
    queue: Label | None = None


class NetworkSettings(_Section):
    """The VPC: made by the stack, or an existing one by id. Read on `eks`."""

    cidr: str = "10.42.0.0/16"
    existing_vpc_id: str | None = None
    existing_subnet_ids: tuple[str, ...] = ()
    nat_gateways: Literal["one", "one-per-zone"] = "one"

    @model_validator(mode="after")
    def _subnets_belong_to_an_existing_vpc(self) -> Self:
        if bool(self.existing_vpc_id) != bool(self.existing_subnet_ids):
            raise ValueError("'existingVpcId' and 'existingSubnetIds' go together: name both or neither")
        return self


class ProxySettings(_Section):
    """HTTP proxy for jobs that reach the hub."""

    http: str | None = None
    https: str | None = None
    no_proxy: tuple[str, ...] = ()

    @field_validator("http", "https")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        if url is not None and "@" in url:
            # It would stand in clear in the Jobs' manifests and in the stack's state.
            raise ValueError("a proxy's address must hold no user and password: let the proxy admit the cluster by its address")
        return url


class TagSettings(_Section):
    """Tags on everything that bills. `expires` is a date: `demo sweep` and the policies read it."""

    owner: str = "unknown"
    expires: Date | None = None


@dataclass(frozen=True)
class Notices:
    """What the reader of a file hands to the model beside its values."""

    deprecations: tuple[str, ...] = ()


class Settings(_Section):
    """A whole stack."""

    platform: PlatformName
    region: str = "us-east-1"
    namespaces: NamespaceSettings = NamespaceSettings()
    pools: PoolsSettings
    # In the file a map by name, merged over the defaults (merging.py).
    services: tuple[ServiceSettings, ...]
    object_store: ObjectStoreSettings = ObjectStoreSettings()
    registry: RegistrySettings = RegistrySettings()
    hub: HubSettings = HubSettings()
    access: AccessSettings = AccessSettings()
    budget: BudgetSettings = BudgetSettings()
    images: ImagesSettings = ImagesSettings()
    local: LocalSettings = LocalSettings()
    cluster: ClusterSettings = ClusterSettings()
    network: NetworkSettings = NetworkSettings()
    openshift: OpenshiftSettings = OpenshiftSettings()
    proxy: ProxySettings = ProxySettings()
    tags: TagSettings = TagSettings()
    # How long the stack is meant to be up, such as 4h, 90m or 2d: `demo expire` ends it then. Without it nothing does.
    ttl: Span | None = None
    # What an update may lose this once: without it a change that would lose the data of a volume is refused.
    allow_data_loss: tuple[Kept, ...] = ()
    # PEM of a certificate authority that the Jobs trust beside the public ones: of a proxy that opens TLS, or of an external store.
    extra_ca: str | None = None
    _deprecations: tuple[str, ...] = PrivateAttr(default=())

    def model_post_init(self, context: Any) -> None:
        """context: what the reader of a file noticed about it, if there was a file."""
        if isinstance(context, Notices):
            self._deprecations = context.deprecations

    @property
    def deprecations(self) -> tuple[str, ...]:
        """One line for each thing that the file says in a way which the next release does not read."""
        return self._deprecations

    @property
    def ttl_span(self) -> timedelta | None:
        return None if self.ttl is None else span(self.ttl)

    @property
    def enabled_services(self) -> tuple[ServiceSettings, ...]:
        return tuple(service for service in self.services if service.enabled)

    @property
    def traits(self) -> PlatformTraits:
        return TRAITS[self.platform]

    def pool(self, name: str) -> PoolSettings:
        return next(pool for pool in self.pools.groups if pool.name == name)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        _unique("services", (service.name for service in self.services))
        _unique("pools.groups", (pool.name for pool in self.pools.groups))
        spaces = self.namespaces
        _unique("namespaces", (spaces.services, spaces.object_store, spaces.registry))
        return self

    @model_validator(mode="after")
    def _exposure_is_built(self) -> Self:
        exposure, traits = self.access.exposure, self.traits
        if exposure not in traits.exposures:
            raise ValueError(f"access.exposure {exposure!r} is not built for platform {self.platform.value!r}: {traits.reached_by}")
        return self

    @model_validator(mode="after")
    def _local_engine_is_local(self) -> Self:
        if self.local.engine != "simulator" and not self.traits.embedded:
            platform = self.platform.value
            raise ValueError(f"local.engine {self.local.engine!r} is only for platform 'local': on {platform} vLLM itself serves")
        return self

    @model_validator(mode="after")
    def _services_have_a_pool(self) -> Self:
        pools = {pool.name for pool in self.pools.groups}
        lost: dict[str, list[str]] = defaultdict(list)
        for service in self.enabled_services:
            if service.pool not in pools:
                lost[service.pool].append(service.name)
        if lost:
            who = "; ".join(
                f"service {names[0]!r} names pool {pool!r}"
                if len(names) == 1
                else f"services {', '.join(map(repr, names))} name pool {pool!r}"
                for pool, names in lost.items()
            )
            known = f"the pools are {', '.join(sorted(pools))}" if pools else "pools.groups holds no pool"
            some = next(iter(lost.values()))[0]
            raise ValueError(f"{who}; {known}: set services.{some}.pool to one that there is, or services.{some}.enabled to false")
        return self

    @model_validator(mode="after")
    def _a_prefix_holds_one_checkpoint(self) -> Self:
        held: dict[str, ServiceSettings] = {}
        for service in self.services:
            other = held.setdefault(service.prefix, service)
            if _checkpoint(other) != _checkpoint(service):
                raise ValueError(
                    f"services {other.name!r} and {service.name!r} put different checkpoints under the prefix {service.prefix!r}: "
                    "give each checkpoint its own"
                )
        prefixes = sorted(held)
        for outer, inner in pairwise(prefixes):
            if inner.startswith(outer):
                raise ValueError(f"prefix {inner!r} lies inside {outer!r}: a download of the outer one would fetch both")
        return self


def _checkpoint(service: ServiceSettings) -> tuple[str, str, str | None, str]:
    return service.model, service.variant, service.repository, service.revision


def _unique(where: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{where}: the name {name!r} is used {count} times; names must be unique")
