"""The model registry: Kubeflow's server behind the Service name that users of the seed know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.apps.v1 import Deployment, StatefulSet
from pulumi_kubernetes.core.v1 import PersistentVolumeClaim, Secret, Service
from pulumi_kubernetes.networking.v1 import NetworkPolicy

from components.data_claims import data_claim
from components.last_words import explained
from components.objects import body, custom
from mistral_on_l4.config.settings import RegistrySettings
from mistral_on_l4.manifests import postgres, registry
from mistral_on_l4.manifests.jobs import from_secret, value
from mistral_on_l4.manifests.kept_data import Place
from mistral_on_l4.manifests.metadata import metadata
from mistral_on_l4.manifests.openshift.data_science import model_registry, registry_selector
from mistral_on_l4.manifests.security import PodUserIds

DATABASE_SECRET = "model-registry-db"


@dataclass(frozen=True)
class ModelRegistryArgs:
    """database: `file` keeps the data in a file on a volume (only the local stand-in can), `postgresql` in a StatefulSet; server:
    who runs it, the stack itself or an operator that is asked for it; stack: whose label such a request carries; recorded: where
    the last `pulumi up` left the data.
    """

    settings: RegistrySettings
    namespace: str
    client_namespaces: tuple[str, ...]
    image: str
    database: Literal["file", "postgresql"]
    database_image: str
    database_password: pulumi.Output[str]
    storage_class: pulumi.Input[str]
    pull_secret: str | None = None
    user_ids: PodUserIds = "fixed"
    server: Literal["stack", "operator"] = "stack"
    stack: str = ""
    recorded: Place | None = None


@dataclass(frozen=True)
class _Database:
    """Where the server keeps its data: its environment, the claim that it mounts (None with a server of its own), and what comes
    first.
    """

    env: list[dict[str, Any]]
    claim: pulumi.Output[str] | None
    ready: pulumi.Resource


class ModelRegistry(pulumi.ComponentResource):
    """url: the REST API's base inside the cluster; identity: changes when the volume is a new, empty one; ready: what a client
    waits for.
    """

    url: str
    identity: pulumi.Output[str]
    ready: list[pulumi.CustomResource]

    def __init__(self, name: str, args: ModelRegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:registry:ModelRegistry", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        service_name = args.settings.name
        self.url = registry.url(service_name, args.namespace)
        volume = data_claim(
            f"{name}-data",
            "registry",
            args.namespace,
            args.storage_class,
            args.settings.volume_size,
            args.recorded,
            self._child,
        )
        self.identity = volume.metadata.uid
        database = self._postgresql(volume) if args.database == "postgresql" else self._file(volume)
        selector = registry_selector(service_name) if args.server == "operator" else None
        admitted = registry.network_policy(service_name, args.namespace, args.client_namespaces, selector)
        policy = NetworkPolicy(f"{name}-network-policy", **body(admitted), opts=self._child)
        server = (self._requested if args.server == "operator" else self._server)(database, policy)
        address = registry.service(service_name, args.namespace, selector)
        service = Service(f"{name}-service", **body(address), opts=self._after(server))
        self.ready = [server, service]
        self.register_outputs({"url": self.url})

    def _server(self, database: _Database, policy: NetworkPolicy) -> pulumi.CustomResource:
        args = self._args
        deployment = registry.deployment(
            args.settings.name, args.namespace, args.image, database.env, database.claim, args.pull_secret, args.user_ids
        )
        # Under another name it would stand beside the old one, and both would write to one volume.
        first = pulumi.ResourceOptions.merge(
            self._after(database.ready, policy), pulumi.ResourceOptions(delete_before_replace=True)
        )
        server: pulumi.CustomResource = Deployment(f"{self._name}-server", **body(deployment), opts=first)
        return server

    def _requested(self, database: _Database, policy: NetworkPolicy) -> pulumi.CustomResource:
        """The operator's own pods serve, behind its proxy; clients of the stack reach their port by a Service of the stack's."""
        args = self._args
        wanted = model_registry(args.settings.name, args.namespace, args.stack, DATABASE_SECRET)
        server: pulumi.CustomResource = CustomResource(
            f"{self._name}-server", **custom(wanted), opts=self._after(database.ready, policy)
        )
        return server

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=list(resources), hooks=explained(self)))

    def _file(self, volume: PersistentVolumeClaim) -> _Database:
        return _Database([value("MODEL_REGISTRY_STAND_IN_DB", "/data/registry.sqlite")], volume.metadata.name, volume)

    def _postgresql(self, volume: PersistentVolumeClaim) -> _Database:
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
        service = Service(f"{name}-database-service", **body(postgres.service(args.namespace)), opts=self._child)
        clients = registry_selector(args.settings.name) if args.server == "operator" else None
        admitted = postgres.network_policy(args.namespace, clients)
        policy = NetworkPolicy(f"{name}-database-network-policy", **body(admitted), opts=self._child)
        manifest = postgres.stateful_set(
            args.namespace,
            args.database_image,
            DATABASE_SECRET,
            volume.metadata.name,
            args.pull_secret,
            args.user_ids,
        )
        database = StatefulSet(f"{name}-database", **body(manifest), opts=self._after(secret, service, policy))
        return _Database([from_secret("MR_EMBEDMD_DATABASE_DSN", DATABASE_SECRET, "dsn")], None, database)
