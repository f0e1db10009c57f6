"""From configuration and plan to the arguments of the components: what `__main__.py` would otherwise have to spell out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret

from components.declaration import Declaration, Keeping
from components.exposure import Exposure, ExposureArgs
from components.hub_access import warn_of_unreadable
from components.inference_service import InferenceService, ServingArgs
from components.model_registry import ModelRegistry, ModelRegistryArgs
from components.namespaces import NamespacesArgs
from components.object_store import ObjectStore, ObjectStoreArgs, StoreKeys
from components.platforms.base import Platform
from components.recorded import Recorded
from components.registration import RegistrarArgs
from components.script_jobs import JobPodArgs
from components.secrets import StackSecrets, StackSecretsArgs
from components.weights import SeederArgs
from mistral_on_l4.cluster.local import local_shell
from mistral_on_l4.config.images import image
from mistral_on_l4.config.names import UNREADABLE_SECRET, Kept
from mistral_on_l4.config.settings import ServiceSettings, Settings, SettingsError, settings_of_config
from mistral_on_l4.manifests import object_store as store_manifests
from mistral_on_l4.manifests import registry as registry_manifests
from mistral_on_l4.manifests import serving as serving_manifests
from mistral_on_l4.manifests.kept_data import Place, refusals
from mistral_on_l4.manifests.registry_entry import registry_entry
from mistral_on_l4.manifests.serving import ServiceSpec
from mistral_on_l4.planner import PlanError, ServicePlan, StackPlan, plan_stack
from mistral_on_l4.planner.catalogue import load_catalogue
from mistral_on_l4.planner.succession import Running, successions

# Never given by people, and read by nobody but the registry's server.
_MARK_KEY = "database-password"
# Lengths in hexadecimal digits. Access keys are at most 20 characters long on MinIO.
SECRETS = {
    "root-user": 16,
    "root-password": 40,
    "writer-key": 20,
    "writer-secret": 40,
    "reader-key": 20,
    "reader-secret": 40,
    "database-password": 32,
    "api-key": 48,
}
# A first start with tensor parallelism compiles in every worker: three times the five minutes that one L4 was seen to take.
FIRST_COMPILE_SECONDS = 900
_ROOT = ("root-user", "root-password")
_STORE = (*_ROOT, "writer-key", "writer-secret", "reader-key", "reader-secret")


@dataclass(frozen=True)
class Checkpoint:
    """A repository's files at a revision, and where they go in the bucket."""

    name: str
    repository: str
    revision: str
    prefix: str


class StackInputs:
    """Settings and plan of the stack that Pulumi runs; refuses, before any resource, what cannot work."""

    def __init__(self) -> None:
        self.settings = _settings()
        self._keeping = Keeping()
        _refuse_in_local_shell(self.settings)
        self.catalogue = load_catalogue()
        try:
            self.plan: StackPlan = plan_stack(self.settings, stack=pulumi.get_stack())
        except PlanError as error:
            raise pulumi.RunError(str(error)) from None
        if self.plan.misfits:
            raise pulumi.RunError("\n".join(self.plan.misfits))
        self.recorded = Recorded.of_this_stack()
        self._refuse_lost_data({})
        self._successions = self._succeeding()
        config = pulumi.Config()
        self.hub_token = config.get_secret("hubToken")
        given: dict[str, pulumi.Output[str] | None] = {"api-key": config.get_secret("apiKey")}
        if self.settings.object_store.kind == "external":
            given |= _external_store_keys(config)
        self.secrets = StackSecrets("secrets", StackSecretsArgs(SECRETS, given))

    # -- what the components take --------------------------------------------------------------------------------------

    def namespaces(self, platform: Platform) -> NamespacesArgs:
        return NamespacesArgs(self.settings.namespaces, platform.adopted_namespaces, platform.shared_marks.namespace)

    def object_store(self, platform: Platform) -> ObjectStoreArgs:
        spaces, secret = self.settings.namespaces, self.secrets
        self._refuse_lost_data({"store": platform.store_storage_class})
        keys = StoreKeys(
            root_user=secret["root-user"],
            root_password=secret["root-password"],
            writer_key=secret["writer-key"],
            writer_secret=secret["writer-secret"],
            reader_key=secret["reader-key"],
            reader_secret=secret["reader-secret"],
            root_mark=secret.mark(*_ROOT, key=_MARK_KEY),
            mark=secret.mark(*_STORE, key=_MARK_KEY),
        )
        return ObjectStoreArgs(
            settings=self.settings.object_store,
            namespace=spaces.object_store,
            client_namespaces=(spaces.services, spaces.registry),
            keys=keys,
            server_image=self._image("minio"),
            setup_image=self._image("mc"),
            storage_class=platform.store_storage_class,
            placement=platform.store_placement,
            tls_secret=platform.store_tls_secret,
            pull_secret=self.settings.images.pull_secret,
            user_ids=self.settings.traits.pod_user_ids,
            recorded=self.recorded.places.get("store"),
        )

    def registry(self, platform: Platform) -> ModelRegistryArgs:
        self._refuse_lost_data({"registry": platform.storage_class})
        return ModelRegistryArgs(
            settings=self.settings.registry,
            namespace=self.settings.namespaces.registry,
            client_namespaces=(self.settings.namespaces.services,),
            image=self._image("registry"),
            database=self.settings.traits.registry_database,
            database_image=self._image("postgres"),
            database_password=self.secrets["database-password"],
            storage_class=platform.storage_class,
            pull_secret=self.settings.images.pull_secret,
            user_ids=self.settings.traits.pod_user_ids,
            server=self.settings.traits.registry_server,
            stack=pulumi.get_stack(),
            recorded=self.recorded.places.get("registry"),
        )

    def seeder(self, platform: Platform, store: ObjectStore) -> SeederArgs:
        wanted = [(checkpoint.repository, checkpoint.revision) for checkpoint in self.checkpoints()]
        if not self.settings.traits.embedded and not platform.rehearsal:
            token: pulumi.Output[str | None] = pulumi.Output.from_input(self.hub_token)
            token.apply(lambda text: warn_of_unreadable(wanted, platform.hub_endpoint, text))
        proxy = self.settings.proxy
        named = {"HTTP_PROXY": proxy.http, "HTTPS_PROXY": proxy.https, "NO_PROXY": ",".join(("svc", *proxy.no_proxy))}
        proxies = {key: text for key, text in named.items() if text and (proxy.http or proxy.https)}
        return SeederArgs(
            namespace=self.settings.namespaces.object_store,
            store=store,
            pod=self._job_pod(),
            hub_endpoint=platform.hub_endpoint,
            hub_token=self.hub_token,
            environment={**proxies, **self._extra_authority()},
            ca_secret=platform.store_tls_secret,
        )

    def registrar(self, platform: Platform, store: ObjectStore, registry: ModelRegistry) -> RegistrarArgs:
        return RegistrarArgs(
            namespace=self.settings.namespaces.registry,
            pod=self._job_pod(),
            store=store,
            registry=registry,
            registry_name=self.settings.registry.name,
            store_keys=(self.secrets["reader-key"], self.secrets["reader-secret"]),
            environment=self._extra_authority(),
            ca_secret=platform.store_tls_secret,
        )

    def serving(self, platform: Platform, store: ObjectStore) -> ServingArgs:
        declared = self.settings.traits.declares_storage_config
        return ServingArgs(
            namespace=self.settings.namespaces.services,
            engine_image=self._image("engine", self.plan.services[0].image if self.plan.services else None),
            # The runtime is shared, so its /dev/shm is sized for the service that needs most; memory is only used when written.
            shm_size=max((service.pod.shm_size for service in self.plan.services if service.pod), key=_mebibytes, default="1Gi"),
            services=tuple(service.name for service in self.plan.services),
            storage_config=self._storage_config(store, platform.store_ca_config_map) if declared else None,
            api_key=self.secrets["api-key"] if self._asks_for_key else None,
            job_pod=self._job_pod(),
            storage_key=self.settings.traits.storage_key,
            connection=None if declared else self._connection(store),
            client_service=self.settings.traits.client_service,
            runtime_marks=platform.shared_marks.runtime,
            takes_over={name: old.identity for name, old in self._successions.items()},
        )

    def checkpoints(self) -> Iterator[Checkpoint]:
        """Every checkpoint once, in the order of the services, however many services share it."""
        seen: set[str] = set()
        for service in self.settings.enabled_services:
            if service.prefix not in seen:
                seen.add(service.prefix)
                repository = self.plan.service(service.name).checkpoint
                yield Checkpoint(service.prefix.rstrip("/"), repository, service.revision, service.prefix)

    def services(self) -> Iterator[tuple[ServiceSettings, ServicePlan]]:
        """Each with its plan, whose warnings are said here: what an `up` is refused for has been said by then."""
        for service in self.settings.enabled_services:
            plan = self.plan.service(service.name)
            for warning in plan.warnings:
                pulumi.log.warn(f"{service.name}: {warning}")
            yield service, plan

    def registry_entry(self, service: ServiceSettings, plan: ServicePlan) -> dict[str, Any]:
        return registry_entry(service, plan, self.settings, self.catalogue)

    def service_spec(
        self, service: ServiceSettings, plan: ServicePlan, ids: pulumi.Output[Mapping[str, str]], platform: Platform
    ) -> ServiceSpec:
        if plan.pod is None:
            raise pulumi.RunError(f"{service.name}: its pool has no instance type that the catalogue knows")
        link = {
            "modelregistry.opendatahub.io/name": self.settings.registry.name,
            "modelregistry.opendatahub.io/registered-model-id": ids["registeredModelId"],
            "modelregistry.opendatahub.io/model-version-id": ids["modelVersionId"],
        }
        labelled, marks = self.settings.traits.registry_link == "labels", platform.marks(service)
        one_user = plan.at(1)
        gpu = self.catalogue.gpu(plan.gpu)
        compiles = plan.gpus > 1 and not self.settings.traits.embedded
        startup = max(plan.startup_seconds, FIRST_COMPILE_SECONDS) if compiles else plan.startup_seconds
        return ServiceSpec(
            name=service.name,
            namespace=self.settings.namespaces.services,
            storage_path=service.prefix,
            weights=f"{plan.checkpoint}@{service.revision}",
            args=plan.args,
            requests=plan.pod.requests,
            limits=plan.pod.limits,
            placement=platform.placement(service.pool),
            startup_seconds=startup,
            # Image and download may take twice their time as well, and none of it counts against the startup probe.
            ready_seconds=max(plan.ready_seconds + startup - plan.startup_seconds, 300),
            predicted_ttft_ms=one_user.ttft_ms,
            predicted_tpot_ms=one_user.tpot_ms,
            deployment_mode=self.settings.traits.deployment_mode,
            peerless=plan.gpus > 1 and not gpu.nvlink,
            key_mark=self.secrets.mark("api-key", key=_MARK_KEY) if self._asks_for_key else None,
            storage_key=self.settings.traits.storage_key,
            platform_labels=marks.labels,
            platform_annotations=marks.annotations,
            link_labels=link if labelled else {},
            link_annotations={} if labelled else link,
            pull_secret=self.settings.images.pull_secret,
            user_ids=self.settings.traits.pod_user_ids,
        )

    def exposures(self, services: Mapping[str, InferenceService]) -> dict[str, ExposureArgs]:
        """By service, where the configuration wants one; the settings have refused what the platform has no way for."""
        if self.settings.access.exposure != "route":
            return {}
        namespace = self.settings.namespaces.services
        return {name: ExposureArgs("route", name, namespace, served.ready) for name, served in services.items()}

    # -- outputs -------------------------------------------------------------------------------------------------------

    def export(
        self,
        platform: Platform,
        store: ObjectStore,
        registry: ModelRegistry,
        services: Mapping[str, InferenceService],
        exposed: Mapping[str, Exposure],
    ) -> None:
        """The stack's outputs: what `demo` and people read after `up`.

        services, registryUrl, objectStore hold addresses inside the cluster; fromHere how the same are reached from outside it.
        """
        spaces = self.settings.namespaces
        port, kind = serving_manifests.SERVICE_PORT, self.settings.traits.client_service
        from_here: dict[str, pulumi.Input[str]] = {name: exposure.url for name, exposure in exposed.items()}
        for name in services.keys() - exposed.keys():
            address = serving_manifests.client_service_name(name, kind)
            from_here[name] = platform.from_here(address, spaces.services, port, [services[name].ready])
        name = registry_manifests.service_name(self.settings.registry.name)
        from_here["registry"] = platform.from_here(name, spaces.registry, registry_manifests.PORT, registry.ready)
        if self.settings.object_store.kind == "minio":
            from_here["objectStore"] = platform.from_here(
                store_manifests.NAME, spaces.object_store, store_manifests.PORT, store.ready
            )
        pulumi.export("platform", self.settings.platform.value)
        pulumi.export("rehearsal", platform.rehearsal)
        pulumi.export("namespace", self.settings.namespaces.services)
        pulumi.export("services", {name: served.url for name, served in services.items()})
        pulumi.export("fromHere", from_here)
        pulumi.export("registryUrl", registry.url)
        pulumi.export("objectStore", {"endpoint": store.endpoint, "bucket": store.bucket})
        price = self.plan.usd_per_hour
        pulumi.export("usdPerHour", None if price is None else round(price, 2))
        if self.settings.ttl_span is not None:
            hours = self.settings.ttl_span.total_seconds() / 3600
            # When that is, the cluster knows: `demo expire`.
            pulumi.export("timeToLive", self.settings.ttl)
            pulumi.export("usdByThen", None if price is None else round(price * hours, 2))
        if self._asks_for_key:
            pulumi.export("apiKey", self.secrets["api-key"])
        Declaration("declaration", self.settings, self.plan, self._keeping.names)

    # -- what an earlier `up` left -----------------------------------------------------------------------------------------

    def _refuse_lost_data(self, classes: Mapping[Kept, pulumi.Input[str]]) -> None:
        """Ends the run where this configuration would lose data without leave. classes: of the claims, where they are known."""
        settings, places = self.settings, self.recorded.places
        wanted: dict[Kept, Place] = {
            "registry": _wanted("registry", settings.namespaces.registry, settings.registry.volume_size, classes)
        }
        if settings.object_store.kind == "minio":
            wanted["store"] = _wanted("store", settings.namespaces.object_store, settings.object_store.volume_size, classes)
        moves = self.recorded.cluster_moves(settings)
        if lines := refusals(places.values(), wanted, settings.allow_data_loss, moves):
            raise pulumi.RunError("\n".join(lines))
        if not classes and settings.allow_data_loss and not refusals(places.values(), wanted, (), moves):
            allowed = ", ".join(settings.allow_data_loss)
            pulumi.log.warn(
                f"allowDataLoss [{allowed}] is set, and no data would be lost: remove it before it allows what nobody meant"
            )

    def _succeeding(self) -> Mapping[str, Running]:
        """Services that come in another's place, which goes first."""
        try:
            found = successions(self.recorded.services, self.settings, self.catalogue)
        except PlanError as error:
            raise pulumi.RunError(str(error)) from None
        for name, old in found.items():
            pulumi.log.warn(
                f"{name} takes the place of {old.name}, which goes first: pool {old.pool} has no room for both, and until then "
                "neither answers"
            )
        return found

    # -- parts ---------------------------------------------------------------------------------------------------------

    @property
    def _asks_for_key(self) -> bool:
        """Whether vLLM itself asks for the stack's key: not where the platform's proxy asks for a token of its own."""
        return self.settings.access.auth == "token" and self.settings.traits.guard == "engine"

    def _connection(self, store: ObjectStore) -> dict[str, pulumi.Input[str]]:
        """The store as OpenShift AI's connections hold one, with the scheme in its endpoint."""
        return {
            "AWS_ACCESS_KEY_ID": self.secrets["reader-key"],
            "AWS_SECRET_ACCESS_KEY": self.secrets["reader-secret"],
            "AWS_S3_ENDPOINT": store.endpoint,
            "AWS_S3_BUCKET": store.bucket,
            "AWS_DEFAULT_REGION": self.settings.object_store.region,
        }

    def _image(self, role: str, pinned: str | None = None) -> str:
        return image(role, self.settings.images, pinned)

    def _job_pod(self) -> JobPodArgs:
        return JobPodArgs(self._image("jobs"), self.settings.images.pull_secret, self.settings.traits.pod_user_ids)

    def _extra_authority(self) -> dict[str, str]:
        """For jobs/trust.py."""
        return {"EXTRA_CA_PEM": self.settings.extra_ca} if self.settings.extra_ca else {}

    def _storage_config(self, store: ObjectStore, ca_config_map: str | None) -> pulumi.Output[str]:
        """KServe's storage initializer decodes this into a map of strings, so every value is one."""
        return pulumi.Output.secret(
            pulumi.Output.json_dumps(
                {
                    "type": "s3",
                    "access_key_id": self.secrets["reader-key"],
                    "secret_access_key": self.secrets["reader-secret"],
                    "endpoint_url": store.endpoint,
                    "bucket": store.bucket,
                    "region": self.settings.object_store.region,
                    **({"cabundle_configmap": ca_config_map} if ca_config_map else {}),
                }
            )
        )


def _wanted(key: Kept, namespace: str, size: str, classes: Mapping[Kept, pulumi.Input[str]]) -> Place:
    storage_class = classes.get(key)
    return Place(key, namespace, storage_class if isinstance(storage_class, str) else None, size)


def _external_store_keys(config: pulumi.Config) -> dict[str, pulumi.Output[str]]:
    """Keys of an S3 that exists, as Pulumi secrets; one pair serves for both unless a reader's pair is given as well."""
    writer = config.get_secret("storeAccessKeyId"), config.get_secret("storeSecretAccessKey")
    if writer[0] is None or writer[1] is None:
        raise pulumi.RunError(
            "objectStore.kind is 'external', so the keys of that store are needed: pulumi config set --secret storeAccessKeyId, "
            "and the same with storeSecretAccessKey"
        )
    reader = config.get_secret("storeReaderAccessKeyId") or writer[0], config.get_secret("storeReaderSecretAccessKey") or writer[1]
    return {"writer-key": writer[0], "writer-secret": writer[1], "reader-key": reader[0], "reader-secret": reader[1]}


def _settings() -> Settings:
    """The stack's configuration as Pulumi hands it over; a mistake ends the run with one line each."""
    # The SDK's Config reads key by key; unknown keys can only be found in the whole.
    config = {**json.loads(os.environ.get("PULUMI_CONFIG") or "{}"), **CONFIG.get()}
    source = f"Pulumi.{pulumi.get_stack()}.yaml"
    try:
        # Pulumi says which keys it keeps encrypted; a preview without the passphrase says so with its placeholder.
        encrypted = {key for key, text in config.items() if is_config_secret(key) or text == UNREADABLE_SECRET}
        settings = settings_of_config(config, source, encrypted)
    except SettingsError as error:
        raise pulumi.RunError(str(error)) from None
    for text in settings.deprecations:
        pulumi.log.warn(f"{source}: {text}")
    if not settings.enabled_services:
        raise pulumi.RunError(f"{source}: services: none is enabled, and a stack serves at least one")
    return settings


def _refuse_in_local_shell(settings: Settings) -> None:
    """A stack of an account would be kept in the local stack's home, made by stand-ins, and go with the home."""
    home = local_shell()
    if home is not None and not settings.traits.embedded and not pulumi.runtime.is_dry_run():
        stack = pulumi.get_stack()
        raise pulumi.RunError(
            f"this shell belongs to the local stack in {home}, and stack {stack} runs on {settings.platform.value}: use a shell "
            f"without its exports (`make env`), or `demo rehearse -s {stack}`"
        )


def _mebibytes(quantity: str) -> int:
    factor = {"Mi": 1, "Gi": 1024}[quantity[-2:]]
    return int(quantity[:-2]) * factor
