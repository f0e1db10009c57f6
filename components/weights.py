"""One checkpoint's files in the bucket, put there by a Job that streams them from the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_kubernetes.batch.v1 import Job
from pulumi_kubernetes.core.v1 import Secret

from components.last_words import explained
from components.object_store import ObjectStore
from components.objects import body
from components.script_jobs import JobPodArgs, ScriptJobs, ScriptJobsArgs
from mistral_on_l4.config.names import WRITER_SECRET
from mistral_on_l4.manifests.jobs import PythonJob, from_secret, job_name, python_job, value
from mistral_on_l4.manifests.metadata import fingerprint, metadata
from mistral_on_l4.manifests.scripts import sources

SEEDER = "weights-seeder"
HUB_TOKEN_SECRET = "hub-token"
# Seeding 47 GB at 50 MB/s takes 16 minutes; a slow hub may need several times that.
DEADLINE_SECONDS = 4 * 3600
# The Jobs hold a Lease, so that a prefix has one writer.
_RULES = ({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "delete"]},)


@dataclass(frozen=True)
class SeederArgs:
    """What every seed Job of a stack shares. hub_token: for gated models, or None; environment: what reaching the hub takes."""

    namespace: str
    store: ObjectStore
    pod: JobPodArgs
    hub_endpoint: str
    hub_token: pulumi.Output[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ca_secret: str | None = None


class WeightsSeeder(pulumi.ComponentResource):
    """Script, service account, rights and hub token of the seed Jobs. `ready`: what they wait for."""

    args: SeederArgs
    jobs: ScriptJobs
    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: SeederArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:weights:WeightsSeeder", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.args = args
        self.jobs = ScriptJobs(
            name,
            ScriptJobsArgs(
                sources=sources("seed_weights"),
                config_map="seed-weights",
                namespace=args.namespace,
                account=SEEDER,
                rules=_RULES,
                pod=args.pod,
                ca_secret=args.ca_secret,
            ),
            child,
        )
        self.ready = [*self.jobs.ready, *args.store.ready]
        if args.hub_token is not None:
            token = Secret(
                f"{name}-hub-token",
                metadata=metadata(HUB_TOKEN_SECRET, args.namespace),
                string_data={"token": args.hub_token},
                opts=child,
            )
            self.ready.append(token)
        self.register_outputs({})


@dataclass(frozen=True)
class WeightsArgs:
    """A repository of the hub at a revision, and its place in the bucket: a prefix that ends with "/"."""

    repository: str
    revision: str
    prefix: str
    seeder: WeightsSeeder


class Weights(pulumi.ComponentResource):
    """A checkpoint in the bucket. `complete` is the Job: what depends on it finds a finished, verified manifest."""

    complete: pulumi.Resource

    def __init__(self, name: str, args: WeightsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:weights:Weights", name, None, opts)
        program, seeder, store = args.seeder.jobs.program, args.seeder.args, args.seeder.args.store
        mark = fingerprint(program.config_map, args.repository, args.revision, store.bucket, args.prefix, seeder.hub_endpoint)
        job = PythonJob(
            name=job_name("seed", args.prefix, mark),
            component="seed-weights",
            program=program,
            env=_environment(args),
            deadline_seconds=DEADLINE_SECONDS,
            memory="1536Mi",
            # A new, empty volume has another identity: the template changes and the Job runs again.
            annotations={"mistral-on-l4/store": store.identity},
        )
        self.complete = Job(
            f"{name}-seed",
            **body(python_job(job)),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=args.seeder.ready,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{DEADLINE_SECONDS}s", update=f"{DEADLINE_SECONDS}s"),
                delete_before_replace=True,
                hooks=explained(self),
            ),
        )
        self.register_outputs({})


def _environment(args: WeightsArgs) -> Sequence[Mapping[str, Any]]:
    seeder, store = args.seeder.args, args.seeder.args.store
    env = [
        value("HF_ENDPOINT", seeder.hub_endpoint),
        value("HF_HUB_DISABLE_XET", "1"),
        value("HF_HUB_DISABLE_TELEMETRY", "1"),
        value("WEIGHTS_REPOSITORY", args.repository),
        value("WEIGHTS_REVISION", args.revision),
        value("WEIGHTS_BUCKET", store.bucket),
        value("WEIGHTS_PREFIX", args.prefix),
        value("AWS_ENDPOINT_URL", store.endpoint),
        value("AWS_DEFAULT_REGION", store.region),
        from_secret("AWS_ACCESS_KEY_ID", WRITER_SECRET, "AWS_ACCESS_KEY_ID"),
        from_secret("AWS_SECRET_ACCESS_KEY", WRITER_SECRET, "AWS_SECRET_ACCESS_KEY"),
        *(value(key, text) for key, text in sorted(seeder.environment.items())),
    ]
    if seeder.hub_token is not None:
        env.append(from_secret("HF_TOKEN", HUB_TOKEN_SECRET, "token"))
    return env
