"""The S3 store that holds the weights: MinIO made by the stack, or any S3 that exists."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps.v1 import StatefulSet
from pulumi_kubernetes.batch.v1 import Job
from pulumi_kubernetes.core.v1 import ConfigMap, PersistentVolumeClaim, Secret, Service
from pulumi_kubernetes.networking.v1 import NetworkPolicy

from components.data_claims import data_claim
from components.last_words import explained
from components.objects import body
from mistral_on_l4.config.names import READER_SECRET, WRITER_SECRET
from mistral_on_l4.config.settings import ObjectStoreSettings
from mistral_on_l4.manifests import object_store as manifests
from mistral_on_l4.manifests.kept_data import Place
from mistral_on_l4.manifests.metadata import fingerprint, metadata
from mistral_on_l4.manifests.security import PodUserIds
from mistral_on_l4.manifests.serving import Placement


@dataclass(frozen=True)
class StoreKeys:
    """Credentials of the store's users. root_mark, mark: change with the root user's and with any, and tell nothing of them."""

    root_user: pulumi.Input[str]
    root_password: pulumi.Input[str]
    writer_key: pulumi.Input[str]
    writer_secret: pulumi.Input[str]
    reader_key: pulumi.Input[str]
    reader_secret: pulumi.Input[str]
    root_mark: pulumi.Input[str]
    mark: pulumi.Input[str]


@dataclass(frozen=True)
class ObjectStoreArgs:
    """namespace: of MinIO and of the jobs that write; client_namespaces: from where weights are read; recorded: where the last
    `pulumi up` left the data.
    """

    settings: ObjectStoreSettings
    namespace: str
    client_namespaces: tuple[str, ...]
    keys: StoreKeys
    server_image: str
    setup_image: str
    storage_class: pulumi.Input[str]
    placement: Placement | None = None
    tls_secret: str | None = None
    pull_secret: str | None = None
    user_ids: PodUserIds = "fixed"
    recorded: Place | None = None


class ObjectStore(pulumi.ComponentResource):
    """Where weights live.

    endpoint: URL with its scheme; bucket; region; identity: changes when the volume is a new, empty one; ready: what a writer
    waits for.
    """

    endpoint: pulumi.Output[str]
    bucket: str
    region: str
    identity: pulumi.Output[str]
    ready: list[pulumi.CustomResource]

    def __init__(self, name: str, args: ObjectStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:storage:ObjectStore", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self.bucket, self.region = args.settings.bucket, args.settings.region
        writer = self._keys(WRITER_SECRET, args.keys.writer_key, args.keys.writer_secret)
        if args.settings.kind == "external":
            self.endpoint = pulumi.Output.from_input(args.settings.endpoint or "")
            self.identity = self.endpoint
            self.ready = [writer]
        else:
            scheme = "https" if args.tls_secret else "http"
            self.endpoint = pulumi.Output.from_input(f"{scheme}://{manifests.NAME}.{args.namespace}.svc:{manifests.PORT}")
            claim = data_claim(
                f"{name}-data",
                "store",
                args.namespace,
                args.storage_class,
                args.settings.volume_size,
                args.recorded,
                self._child,
            )
            self.identity = claim.metadata.uid
            set_up = self._minio(scheme, claim, writer)
            self.ready = [writer, set_up]
        self.register_outputs({"endpoint": self.endpoint})

    def _keys(self, secret: str, key: pulumi.Input[str], value: pulumi.Input[str]) -> Secret:
        return Secret(
            f"{self._name}-{secret}",
            metadata=metadata(secret, self._args.namespace),
            string_data={"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": value},
            opts=self._child,
        )

    def _minio(self, scheme: str, claim: PersistentVolumeClaim, writer: pulumi.Resource) -> pulumi.CustomResource:
        """The Job after which the server has its bucket and its users."""
        args, name, child = self._args, self._name, self._child
        host = f"{manifests.NAME}.{args.namespace}.svc"
        root = Secret(
            f"{name}-root",
            metadata=metadata(manifests.ROOT_SECRET, args.namespace),
            string_data={
                "user": args.keys.root_user,
                "password": args.keys.root_password,
                "mc-host": pulumi.Output.format(
                    "{0}://{1}:{2}@{3}:{4}", scheme, args.keys.root_user, args.keys.root_password, host, manifests.PORT
                ),
            },
            opts=child,
        )
        policy = manifests.network_policy(args.namespace, args.client_namespaces)
        admitted = NetworkPolicy(f"{name}-network-policy", **body(policy), opts=child)
        service = Service(f"{name}-service", **body(manifests.service(args.namespace)), opts=child)
        manifest = manifests.stateful_set(
            args.namespace,
            args.server_image,
            claim.metadata.name,
            args.tls_secret,
            args.pull_secret,
            args.placement,
            args.keys.root_mark,
            args.user_ids,
        )
        server = StatefulSet(f"{name}-server", **body(manifest), opts=self._after(root, service, admitted))
        return self._setup(server, service, writer, root)

    def _setup(self, server: StatefulSet, *after: pulumi.Resource) -> pulumi.CustomResource:
        args, name = self._args, self._name
        reader = self._keys(READER_SECRET, args.keys.reader_key, args.keys.reader_secret)
        data = manifests.setup_data(self.bucket)
        config = ConfigMap(
            f"{name}-setup-config", metadata=metadata(manifests.SETUP_CONFIG, args.namespace), data=data, opts=self._child
        )
        manifest = manifests.setup_job(
            f"minio-setup-{fingerprint(data, args.setup_image)}",
            args.namespace,
            args.setup_image,
            self.bucket,
            self.identity,
            args.keys.mark,
            args.tls_secret,
            args.pull_secret,
            args.user_ids,
        )
        first = pulumi.ResourceOptions.merge(
            self._after(server, config, reader, *after), pulumi.ResourceOptions(delete_before_replace=True)
        )
        job: pulumi.CustomResource = Job(f"{name}-setup", **body(manifest), opts=first)
        return job

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=list(resources), hooks=explained(self)))
