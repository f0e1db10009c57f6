"""The model registry: Kubeflow's server behind the Service name that users of the seed know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_kubernetes as k8s

from components.kubernetes import Deployment, NetworkPolicy, PersistentVolumeClaim, Secret, Service, StatefulSet
from mistral_on_l4.config.settings import RegistrySettings
from mistral_on_l4.manifests import postgres, registry
from mistral_on_l4.manifests.jobs import from_secret, value
from mistral_on_l4.manifests.metadata import metadata

DATABASE_SECRET = "model-registry-db"


@dataclass(frozen=True)
class ModelRegistryArgs:
    """database: `file` keeps the data in a file on a volume (only the local stand-in can), `postgresql` in a StatefulSet."""

    settings: RegistrySettings
    namespace: str
    client_namespaces: tuple[str, ...]
    image: str
    database: Literal["file", "postgresql"]
    database_image: str
    database_password: pulumi.Output[str]
    storage_class: pulumi.Input[str]
    pull_secret: str | None = None


class ModelRegistry(pulumi.ComponentResource):
    """Answers `url`, the REST API's base inside the cluster, `identity`, which changes when its volume is a new, empty one, and
    `ready`, what a client waits for.
    """

    url: str
    identity: pulumi.Output[str]
    ready: list[pulumi.Resource]

    def __init__(
        self, name: str, args: ModelRegistryArgs, provider: k8s.Provider, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("mistral-on-l4:registry:ModelRegistry", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self, provider=provider)
        service_name = args.settings.name
        self.url = registry.url(service_name, args.namespace)
        if args.database == "postgresql":
            env, claim, database = self._postgresql()
        else:
            env, claim, database = self._file()
        meta, spec = registry.network_policy(service_name, args.namespace, args.client_namespaces)
        policy = NetworkPolicy(f"{name}-network-policy", metadata=meta, spec=spec, opts=self._child)
        meta, spec = registry.deployment(service_name, args.namespace, args.image, env, claim, args.pull_secret)
        server = Deployment(f"{name}-server", metadata=meta, spec=spec, opts=self._after(*database, policy))
        meta, spec = registry.service(service_name, args.namespace)
        service = Service(f"{name}-service", metadata=meta, spec=spec, opts=self._after(server))
        self.ready = [server, service]
        self.register_outputs({"url": self.url})

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=list(resources)))

    def _file(self) -> tuple[list[dict[str, object]], str, list[pulumi.Resource]]:
        claim = f"{self._args.settings.name}-data"
        meta, spec = registry.claim(claim, self._args.namespace, self._args.storage_class, self._args.settings.volume_size)
        # A claim of a WaitForFirstConsumer class binds only when its pod comes, which would wait for the claim: do not await it.
        volume = PersistentVolumeClaim(
            f"{self._name}-data", metadata={**meta, "annotations": {"pulumi.com/skipAwait": "true"}}, spec=spec, opts=self._child
        )
        self.identity = volume.metadata.apply(lambda found: str(found["uid"]))
        return [value("MODEL_REGISTRY_STAND_IN_DB", "/data/registry.sqlite")], claim, [volume]

    def _postgresql(self) -> tuple[list[dict[str, object]], None, list[pulumi.Resource]]:
        args, name = self._args, self._name
        host = f"{postgres.NAME}.{args.namespace}.svc"
        dsn = pulumi.Output.format(
            "postgresql://{0}:{1}@{2}:{3}/{4}?sslmode=disable",
            postgres.USER,
            args.database_password,
            host,
            postgres.PORT,
            postgres.DATABASE,
        )
        secret = Secret(
            f"{name}-database-secret",
            metadata=metadata(DATABASE_SECRET, args.namespace),
            string_data={"password": args.database_password, "dsn": dsn},
            opts=self._child,
        )
        meta, spec = postgres.service(args.namespace)
        service = Service(
            f"{name}-database-service",
            metadata={**meta, "annotations": {"pulumi.com/skipAwait": "true"}},
            spec=spec,
            opts=self._child,
        )
        meta, spec = postgres.network_policy(args.namespace)
        policy = NetworkPolicy(f"{name}-database-network-policy", metadata=meta, spec=spec, opts=self._child)
        meta, spec = postgres.stateful_set(
            args.namespace, args.database_image, DATABASE_SECRET, args.storage_class, args.settings.volume_size, args.pull_secret
        )
        database = StatefulSet(f"{name}-database", metadata=meta, spec=spec, opts=self._after(secret, service, policy))
        self.identity = database.metadata.apply(lambda found: str(found["uid"]))
        return [from_secret("MR_EMBEDMD_DATABASE_DSN", DATABASE_SECRET, "dsn")], None, [database]
