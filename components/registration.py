"""A service's entry in the model registry, made by a Job that can run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_kubernetes.batch.v1 import Job
from pulumi_kubernetes.core.v1 import ConfigMap, Secret

from components.last_words import explained
from components.model_registry import ModelRegistry
from components.object_store import ObjectStore
from components.objects import body
from components.script_jobs import JobPodArgs, ScriptJobs, ScriptJobsArgs
from mistral_on_l4.config.names import READER_SECRET
from mistral_on_l4.manifests.jobs import PythonJob, from_field, from_secret, job_name, python_job, value
from mistral_on_l4.manifests.metadata import fingerprint, metadata
from mistral_on_l4.manifests.scripts import sources

REGISTRAR = "model-registrar"
DEADLINE_SECONDS = 900
# The Jobs read the weights' manifest, and write one ConfigMap that goes with its Job.
_RULES = (
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
)


@dataclass(frozen=True)
class RegistrarArgs:
    """What all registration Jobs of a stack share. store_keys: access key and secret key of the store's reader."""

    namespace: str
    pod: JobPodArgs
    store: ObjectStore
    store_keys: tuple[pulumi.Input[str], pulumi.Input[str]]
    registry: ModelRegistry
    registry_name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    ca_secret: str | None = None


class Registrar(pulumi.ComponentResource):
    """Script, service account, rights and store keys of the registration Jobs. `ready`: what they wait for."""

    args: RegistrarArgs
    jobs: ScriptJobs
    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: RegistrarArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:registry:Registrar", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.args = args
        self.jobs = ScriptJobs(
            name,
            ScriptJobsArgs(
                sources=sources("register_model"),
                config_map="register-model",
                namespace=args.namespace,
                account=REGISTRAR,
                rules=_RULES,
                pod=args.pod,
                ca_secret=args.ca_secret,
            ),
            child,
        )
        reader_key, reader_secret = args.store_keys
        keys = Secret(
            f"{name}-store-keys",
            metadata=metadata(READER_SECRET, args.namespace),
            string_data={"AWS_ACCESS_KEY_ID": reader_key, "AWS_SECRET_ACCESS_KEY": reader_secret},
            opts=child,
        )
        self.ready = [*self.jobs.ready, keys, *args.registry.ready]
        self.register_outputs({})


@dataclass(frozen=True)
class RegistrationArgs:
    """entry: what jobs/register_model.py puts into the registry ({"model", "version", "artifact"}); prefix: of the weights."""

    service: str
    entry: Mapping[str, Any]
    prefix: str
    registrar: Registrar


class Registration(pulumi.ComponentResource):
    """Ids of a service's entry: `ids` holds registeredModelId, modelVersionId and modelArtifactId, known once the Job is done."""

    ids: pulumi.Output[Mapping[str, str]]
    complete: pulumi.CustomResource

    def __init__(self, name: str, args: RegistrationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:registry:Registration", name, None, opts)
        registrar, program = args.registrar.args, args.registrar.jobs.program
        store = registrar.store
        mark = fingerprint(program.config_map, dict(args.entry), args.prefix, store.bucket, registrar.registry.url)
        name_of_job = job_name("register", args.service, mark)
        result = f"registration-{args.service}"
        job = PythonJob(
            name=name_of_job,
            component="register-model",
            program=program,
            env=_environment(args, name_of_job, result),
            deadline_seconds=DEADLINE_SECONDS,
            memory="256Mi",
            # A registry on a new volume has no entries: its identity is another, the template changes and the Job runs again.
            annotations={"mistral-on-l4/registry": registrar.registry.identity, "mistral-on-l4/store": store.identity},
        )
        self.complete = Job(
            f"{name}-job",
            **body(python_job(job)),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=args.registrar.ready,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{DEADLINE_SECONDS}s"),
                delete_before_replace=True,
                hooks=explained(self),
            ),
        )
        # The id is an Output of the Job: with a known id the read would run, and fail, in the first preview.
        ids = ConfigMap.get(
            f"{name}-ids",
            self.complete.id.apply(lambda _: f"{registrar.namespace}/{result}"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.ids = ids.data.apply(lambda data: dict(data or {}))
        self.register_outputs({"ids": self.ids})


def _environment(args: RegistrationArgs, name_of_job: str, result: str) -> Sequence[Mapping[str, Any]]:
    registrar, store = args.registrar.args, args.registrar.args.store
    return [
        value("REGISTRY_URL", registrar.registry.url),
        value("REGISTRY_NAME", registrar.registry_name),
        value("REGISTRATION", pulumi.Output.json_dumps(dict(args.entry))),
        value("RESULT_CONFIGMAP", result),
        value("JOB_NAME", name_of_job),
        from_field("JOB_UID", "metadata.labels['batch.kubernetes.io/controller-uid']"),
        value("WEIGHTS_BUCKET", store.bucket),
        value("WEIGHTS_PREFIX", args.prefix),
        value("AWS_ENDPOINT_URL", store.endpoint),
        value("AWS_DEFAULT_REGION", store.region),
        from_secret("AWS_ACCESS_KEY_ID", READER_SECRET, "AWS_ACCESS_KEY_ID"),
        from_secret("AWS_SECRET_ACCESS_KEY", READER_SECRET, "AWS_SECRET_ACCESS_KEY"),
        *(value(key, text) for key, text in sorted(registrar.environment.items())),
    ]
