"""The stack's configuration: read, checked and frozen before anything is declared.

One model for every platform. Keys are camelCase in Pulumi.<stack>.yaml under the project's namespace (`mistral-on-l4:`), so
`pulumi config set --path 'mistral-on-l4:budget.maxHourlyUsd' 6` works. Secrets are not here: `Config.get_object` would hand
them out in clear, so they are read one by one where they are used.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.traits import TRAITS, PlatformName, PlatformTraits

IMAGE_ROLES = ("engine", "minio", "mc", "jobs", "registry", "postgres")

# Read one by one as Pulumi secrets, never as part of the settings.
SECRET_KEYS = frozenset(
    {"apiKey", "hubToken", "storeAccessKeyId", "storeSecretAccessKey", "storeReaderAccessKeyId", "storeReaderSecretAccessKey"}
)

# RFC 1123 label, at most 63: what Kubernetes accepts as the name of a namespace, a Service or a label value.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# KServe appends "-predictor" and Kubernetes a ReplicaSet and pod suffix to the service's name, within the 63 of a label.
_MAX_SERVICE_NAME = 63 - len("-predictor")


class SettingsError(Exception):
    """The configuration cannot be used. `problems` holds one line each: where, what is wrong, what would work."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


def _label(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a Kubernetes name: use lower-case letters, digits and '-', starting and ending with a letter or "
            "digit, at most 63 characters"
        )
    return value


def _service_name(value: str) -> str:
    _label(value)
    if not value[0].isalpha():
        raise ValueError(f"{value!r} must start with a letter: KServe makes a Service of that name")
    if len(value) > _MAX_SERVICE_NAME:
        raise ValueError(f"{value!r} has {len(value)} characters: at most {_MAX_SERVICE_NAME}, since KServe appends '-predictor'")
    return value


def _prefix(value: str) -> str:
    if not value.endswith("/"):
        raise ValueError(
            f"{value!r} must end with '/': S3 lists by plain prefix, so {value!r} would also match '{value}-fp8/...'; "
            f"write {value + '/'!r}"
        )
    if value.startswith("/") or "//" in value:
        raise ValueError(f"{value!r} must not start with '/' or hold '//'")
    return value


def _bucket(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError(f"{value!r} is not a bucket name: 3 to 63 lower-case letters, digits, '.' and '-'")
    return value


def _quantity(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*(Mi|Gi|Ti)", value):
        raise ValueError(f"{value!r} is not a size: write a whole number with Mi, Gi or Ti, such as '200Gi'")
    return value


def _block(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"{error}: write a block of addresses, such as 203.0.113.7/32") from None


def _date(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is no date ({error}): write YYYY-MM-DD") from None
    return value


def _role(value: str) -> str:
    if value not in IMAGE_ROLES:
        raise ValueError(f"no image has the role {value!r}: the roles are {', '.join(IMAGE_ROLES)}")
    return value


Label = Annotated[str, AfterValidator(_label)]
ServiceName = Annotated[str, AfterValidator(_service_name)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Bucket = Annotated[str, AfterValidator(_bucket)]
Quantity = Annotated[str, AfterValidator(_quantity)]
Block = Annotated[str, AfterValidator(_block)]
Role = Annotated[str, AfterValidator(_role)]


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
    count: int = Field(default=1, ge=0, le=64)
    capacity_type: Literal["ON_DEMAND", "SPOT"] = "ON_DEMAND"


DEFAULT_POOLS = (
    PoolSettings(name="l4-1gpu", instance_type="g6.2xlarge"),
    PoolSettings(name="l4-4gpu", instance_type="g6.12xlarge"),
)
DEFAULT_SERVICES = (
    ServiceSettings(
        name="mistral-24b-full",
        variant=Variant.BF16,
        prefix="mistral-24b/",
        pool="l4-4gpu",
        tensor_parallel_size=4,
    ),
    # 23.21 GiB of weights against 22.03 GiB visible: it loads only with part of them in the node's memory.
    ServiceSettings(
        name="mistral-24b-fp8",
        variant=Variant.FP8,
        prefix="mistral-24b-fp8/",
        pool="l4-1gpu",
        max_num_seqs=16,
        kv_cache_dtype="fp8",
        cpu_offload="auto",
    ),
    ServiceSettings(
        name="mistral-24b-w4a16",
        enabled=False,
        variant=Variant.W4A16,
        prefix="mistral-24b-w4a16/",
        pool="l4-1gpu",
        kv_cache_dtype="fp8",
    ),
)


class PoolsSettings(_Section):
    """The GPU nodes."""

    # with-seed: nodes start while weights move (ready sooner); after-seed: they start, and bill, when the weights are there.
    start: Literal["with-seed", "after-seed"] = "with-seed"
    groups: tuple[PoolSettings, ...] = DEFAULT_POOLS


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
    expires: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_date)] | None = None


class Settings(_Section):
    """A whole stack."""

    platform: PlatformName
    region: str = "us-east-1"
    namespaces: NamespaceSettings = NamespaceSettings()
    pools: PoolsSettings = PoolsSettings()
    services: tuple[ServiceSettings, ...] = DEFAULT_SERVICES
    object_store: ObjectStoreSettings = ObjectStoreSettings()
    registry: RegistrySettings = RegistrySettings()
    hub: HubSettings = HubSettings()
    access: AccessSettings = AccessSettings()
    budget: BudgetSettings = BudgetSettings()
    images: ImagesSettings = ImagesSettings()
    cluster: ClusterSettings = ClusterSettings()
    network: NetworkSettings = NetworkSettings()
    proxy: ProxySettings = ProxySettings()
    tags: TagSettings = TagSettings()
    # PEM of a certificate authority that the Jobs trust beside the public ones: of a proxy that opens TLS, or of an external store.
    extra_ca: str | None = None

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
    def _services_have_a_pool(self) -> Self:
        pools = {pool.name for pool in self.pools.groups}
        for service in self.services:
            if service.pool not in pools:
                known = ", ".join(sorted(pools)) or "none: pools.groups is empty"
                raise ValueError(f"service {service.name!r} names pool {service.pool!r}; the pools are {known}")
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


def settings_from(values: Mapping[str, Any], source: str) -> Settings:
    """Builds settings from config keys without their namespace, such as {"platform": "local", "services": [...]}.

    A value may be the decoded object or, as Pulumi hands it to a program, its JSON text. `source` names the file in errors.
    Raises SettingsError.
    """
    plain = {key: _decoded(value) for key, value in values.items() if key not in SECRET_KEYS}
    if hidden := [key for key, value in plain.items() if isinstance(value, dict) and set(value) == {"secure"}]:
        raise SettingsError(source, [f"{key}: is set as a secret, but only {', '.join(sorted(SECRET_KEYS))} are" for key in hidden])
    try:
        return Settings.model_validate(plain)
    except ValidationError as error:
        raise SettingsError(source, [_problem(detail) for detail in error.errors()]) from None


def settings_of_config(config: Mapping[str, Any], source: str) -> Settings:
    """Settings from Pulumi configuration as it is: keys with their namespaces, JSON text or decoded values.

    Raises SettingsError.
    """
    values = {str(key).partition(":")[2]: value for key, value in config.items() if str(key).startswith(f"{PROJECT}:")}
    if "region" not in values and "aws:region" in config:
        values["region"] = config["aws:region"]
    return settings_from(values, source)


def load_stack_file(stack: str, directory: Path | None = None) -> Settings:
    """Reads Pulumi.<stack>.yaml without Pulumi. Raises SettingsError, also when there is no such file."""
    folder = directory or Path.cwd()
    name = f"Pulumi.{stack}.yaml"
    try:
        text = (folder / name).read_text()
    except FileNotFoundError:
        known = sorted(path.name.split(".")[1] for path in folder.glob("Pulumi.*.yaml"))
        raise SettingsError(name, [f"no such stack file here; the stacks are: {', '.join(known) or 'none'}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise SettingsError(name, [f"cannot be read: {reason}"]) from None
    try:
        document = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise SettingsError(name, [f"is not YAML: {str(error).splitlines()[0]}"]) from None
    config = (document.get("config") or {}) if isinstance(document, dict) else document
    if not isinstance(config, dict):
        raise SettingsError(name, [f"holds no keys under 'config:', but {str(config)[:40]!r}"])
    return settings_of_config(config, name)


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _keys_beside(location: Sequence[int | str]) -> list[str]:
    """The keys that the configuration knows at the place of an unknown one, as the file spells them."""
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        for field in model.model_fields.values():
            if part == field.alias:
                model = next(found for found in (field.annotation, *get_args(field.annotation)) if _is_section(found))
    return sorted(str(field.alias) for field in model.model_fields.values())


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def stack_file_schema() -> dict[str, Any]:
    """JSON schema of Pulumi.<stack>.yaml, for editors: every key of the project, described, with its default."""
    schema = Settings.model_json_schema(by_alias=True)
    keys = {f"{PROJECT}:{name}": value for name, value in schema.pop("properties").items()}
    keys |= {f"{PROJECT}:{name}": {"description": "A Pulumi secret: `pulumi config set --secret`."} for name in sorted(SECRET_KEYS)}
    config = {"type": "object", "properties": keys, "patternProperties": {f"^(?!{PROJECT}:)": {}}, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A stack of mistral-on-l4",
        "type": "object",
        "properties": {"config": config},
        "$defs": schema.pop("$defs"),
    }


# What a value must look like in the file, for pydantic's words of Python's types.
_SHAPES = {"tuple_type": "a list", "model_type": "a section of keys", "dict_type": "a section of keys"}


def _problem(detail: Any) -> str:
    """One line of pydantic's error for a person: the key as written in the file, then what to do."""
    where = ""
    for part in detail["loc"]:
        # Branches of a union appear in pydantic's path; they are not keys of the file.
        if isinstance(part, str) and (
            part.startswith(("literal[", "function-", "constrained-")) or part in ("float", "str", "[key]")
        ):
            continue
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    kind, message = detail["type"], detail["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = _keys_beside(detail["loc"])
        near = get_close_matches(str(detail["loc"][-1]), known, n=1)
        message = f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; known are {', '.join(known)}"
    elif kind == "missing":
        message = "is missing"
    elif kind in _SHAPES:
        message = f"should be {_SHAPES[kind]}, got {detail['input']!r}"
    elif kind not in ("value_error",):
        message = f"{message[0].lower()}{message[1:]}, got {detail['input']!r}"
    return f"{where}: {message}" if where else message
