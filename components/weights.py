"""One checkpoint's files in the bucket, put there by a Job that streams them from the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_kubernetes as k8s

from components.kubernetes import ConfigMap, Job, Role, RoleBinding, Secret, ServiceAccount
from components.object_store import ObjectStore
from mistral_on_l4.config.names import WRITER_SECRET
from mistral_on_l4.manifests.jobs import PythonJob, from_secret, job_name, python_job, value
from mistral_on_l4.manifests.metadata import fingerprint, metadata

SEEDER = "weights-seeder"
HUB_TOKEN_SECRET = "hub-token"
# Seeding 47 GB at 50 MB/s takes 16 minutes; a slow hub may need several times that.
DEADLINE_SECONDS = 4 * 3600


@dataclass(frozen=True)
class SeederArgs:
    """What every seed Job of a stack shares.

    scripts: file name -> text, mounted at /scripts; hub_token: for gated models, or None; environment: what reaching the hub takes.
    """

    namespace: str
    image: str
    scripts: Mapping[str, str]
    entry: str
    hub_endpoint: str
    hub_token: pulumi.Output[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ca_secret: str | None = None
    pull_secret: str | None = None


class WeightsSeeder(pulumi.ComponentResource):
    """Script, service account and rights that the seed Jobs share: they hold a Lease, so that a prefix has one writer."""

    args: SeederArgs
    store: ObjectStore
    scripts: str
    ready: list[pulumi.Resource]

    def __init__(
        self,
        name: str,
        args: SeederArgs,
        store: ObjectStore,
        provider: k8s.Provider,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("mistral-on-l4:weights:WeightsSeeder", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, provider=provider)
        self.args, self.store, self.provider = args, store, provider
        self.scripts = f"seed-weights-{fingerprint(dict(args.scripts))}"
        config = ConfigMap(
            f"{name}-scripts", metadata=metadata(self.scripts, args.namespace), data=dict(args.scripts), immutable=True, opts=child
        )
        account = ServiceAccount(f"{name}-account", metadata=metadata(SEEDER, args.namespace), opts=child)
        role = Role(
            f"{name}-role",
            metadata=metadata(SEEDER, args.namespace),
            rules=[{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "delete"]}],
            opts=child,
        )
        binding = RoleBinding(
            f"{name}-binding",
            metadata=metadata(SEEDER, args.namespace),
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SEEDER},
            subjects=[{"kind": "ServiceAccount", "name": SEEDER, "namespace": args.namespace}],
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[role, account])),
        )
        self.ready = [config, account, binding]
        if args.hub_token is not None:
            token = Secret(
                f"{name}-hub-token",
                metadata=metadata(HUB_TOKEN_SECRET, args.namespace),
                string_data={"token": args.hub_token},
                opts=child,
            )
            self.ready.append(token)
        self.register_outputs({})


class Weights(pulumi.ComponentResource):
    """A checkpoint in the bucket. `complete` is the Job: whoever depends on it finds a finished, verified manifest."""

    complete: pulumi.Resource

    def __init__(
        self,
        name: str,
        repository: str,
        revision: str,
        prefix: str,
        seeder: WeightsSeeder,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """repository, revision: on the hub; prefix: in the bucket, ending with "/"."""
        super().__init__("mistral-on-l4:weights:Weights", name, None, opts)
        args, store = seeder.args, seeder.store
        what = fingerprint(seeder.scripts, repository, revision, store.bucket, prefix, args.hub_endpoint)
        env = [
            value("HF_ENDPOINT", args.hub_endpoint),
            value("HF_HUB_DISABLE_XET", "1"),
            value("HF_HUB_DISABLE_TELEMETRY", "1"),
            value("WEIGHTS_REPOSITORY", repository),
            value("WEIGHTS_REVISION", revision),
            value("WEIGHTS_BUCKET", store.bucket),
            value("WEIGHTS_PREFIX", prefix),
            value("AWS_ENDPOINT_URL", store.endpoint),
            value("AWS_DEFAULT_REGION", store.region),
            from_secret("AWS_ACCESS_KEY_ID", WRITER_SECRET, "AWS_ACCESS_KEY_ID"),
            from_secret("AWS_SECRET_ACCESS_KEY", WRITER_SECRET, "AWS_SECRET_ACCESS_KEY"),
            *(value(key, text) for key, text in sorted(args.environment.items())),
        ]
        if args.hub_token is not None:
            env.append(from_secret("HF_TOKEN", HUB_TOKEN_SECRET, "token"))
        if args.ca_secret:
            env.append(value("AWS_CA_BUNDLE", "/etc/store-ca/ca.crt"))
        job = PythonJob(
            name=job_name("seed", prefix, what),
            namespace=args.namespace,
            component="seed-weights",
            image=args.image,
            script=args.entry,
            scripts=seeder.scripts,
            service_account=SEEDER,
            env=env,
            deadline_seconds=DEADLINE_SECONDS,
            memory="1536Mi",
            # A new, empty volume has another identity: the template changes and the Job runs again.
            annotations={"mistral-on-l4/store": store.identity},
            ca_secret=args.ca_secret,
            pull_secret=args.pull_secret,
        )
        meta, spec = python_job(job)
        self.complete = Job(
            f"{name}-seed",
            metadata=meta,
            spec=spec,
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=seeder.provider,
                depends_on=[*seeder.ready, *store.ready],
                custom_timeouts=pulumi.CustomTimeouts(create=f"{DEADLINE_SECONDS}s", update=f"{DEADLINE_SECONDS}s"),
            ),
        )
        self.register_outputs({})
