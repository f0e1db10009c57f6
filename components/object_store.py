"""The S3 store that holds the weights: MinIO made by the stack, or any S3 that exists."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components.kubernetes import ConfigMap, Job, NetworkPolicy, Secret, Service, StatefulSet
from mistral_on_l4.config.names import READER_SECRET, WRITER_SECRET
from mistral_on_l4.config.settings import ObjectStoreSettings
from mistral_on_l4.manifests import object_store as manifests
from mistral_on_l4.manifests.metadata import fingerprint, metadata
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
    """namespace: of MinIO and of the jobs that write; client_namespaces: from where weights are read."""

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


class ObjectStore(pulumi.ComponentResource):
    """Answers where weights live and with which keys.

    endpoint: URL with its scheme; bucket; region; identity: changes when the volume is a new, empty one; ready: what a writer
    waits for.
    """

    endpoint: pulumi.Output[str]
    bucket: str
    region: str
    identity: pulumi.Output[str]
    ready: list[pulumi.Resource]

    def __init__(
        self, name: str, args: ObjectStoreArgs, provider: k8s.Provider, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("mistral-on-l4:storage:ObjectStore", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self, provider=provider)
        self.bucket, self.region = args.settings.bucket, args.settings.region
        writer = self._keys(WRITER_SECRET, args.keys.writer_key, args.keys.writer_secret)
        if args.settings.kind == "external":
            self.endpoint = pulumi.Output.from_input(args.settings.endpoint or "")
            self.identity = self.endpoint
            self.ready = [writer]
        else:
            scheme = "https" if args.tls_secret else "http"
            self.endpoint = pulumi.Output.from_input(f"{scheme}://{manifests.NAME}.{args.namespace}.svc:{manifests.PORT}")
            self.ready = [writer, self._minio(scheme, writer)]
        self.register_outputs({"endpoint": self.endpoint})

    def _keys(self, secret: str, key: pulumi.Input[str], value: pulumi.Input[str]) -> Secret:
        return Secret(
            f"{self._name}-{secret}",
            metadata=metadata(secret, self._args.namespace),
            string_data={"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": value},
            opts=self._child,
        )

    def _minio(self, scheme: str, writer: pulumi.Resource) -> pulumi.Resource:
        """Server, Service, bucket and users; returns the Job after which the store is ready."""
        args, name, child = self._args, self._name, self._child
        after = pulumi.ResourceOptions.merge
        root = Secret(
            f"{name}-root",
            metadata=metadata(manifests.ROOT_SECRET, args.namespace),
            string_data={
                "user": args.keys.root_user,
                "password": args.keys.root_password,
                "mc-host": pulumi.Output.format(
                    "{0}://{1}:{2}@{3}.{4}.svc:{5}",
                    scheme,
                    args.keys.root_user,
                    args.keys.root_password,
                    manifests.NAME,
                    args.namespace,
                    manifests.PORT,
                ),
            },
            opts=child,
        )
        reader = self._keys(READER_SECRET, args.keys.reader_key, args.keys.reader_secret)
        meta, spec = manifests.network_policy(args.namespace, args.client_namespaces)
        policy = NetworkPolicy(f"{name}-network-policy", metadata=meta, spec=spec, opts=child)
        meta, spec = manifests.service(args.namespace)
        # The Service waits for endpoints, so it is declared with the pods and neither waits for the other.
        service = Service(
            f"{name}-service", metadata={**meta, "annotations": {"pulumi.com/skipAwait": "true"}}, spec=spec, opts=child
        )
        meta, spec = manifests.stateful_set(
            args.namespace,
            args.server_image,
            args.storage_class,
            args.settings.volume_size,
            args.tls_secret,
            args.pull_secret,
            args.placement,
            args.keys.root_mark,
        )
        server = StatefulSet(
            f"{name}-server",
            metadata=meta,
            spec=spec,
            opts=after(child, pulumi.ResourceOptions(depends_on=[root, service, policy])),
        )
        self.identity = server.metadata.apply(lambda found: str(found["uid"]))
        data = manifests.setup_data(self.bucket)
        config = ConfigMap(f"{name}-setup-config", metadata=metadata(manifests.SETUP_CONFIG, args.namespace), data=data, opts=child)
        meta, spec = manifests.setup_job(
            f"minio-setup-{fingerprint(data, args.setup_image)}",
            args.namespace,
            args.setup_image,
            self.bucket,
            self.identity,
            args.keys.mark,
            args.tls_secret,
            args.pull_secret,
        )
        job: pulumi.Resource = Job(
            f"{name}-setup",
            metadata=meta,
            spec=spec,
            opts=after(child, pulumi.ResourceOptions(depends_on=[server, service, config, writer, reader, root])),
        )
        return job
