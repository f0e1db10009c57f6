"""vLLM behind KServe: the runtime that services share, and one component per InferenceService."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.batch.v1 import Job
from pulumi_kubernetes.core.v1 import Secret, Service
from pulumi_kubernetes.networking.v1 import NetworkPolicy

from components.last_words import explained
from components.objects import body, custom
from components.script_jobs import JobPodArgs, ScriptJobs, ScriptJobsArgs
from mistral_on_l4.config.names import CLIENT_LABEL
from mistral_on_l4.manifests import serving
from mistral_on_l4.manifests.jobs import Program, PythonJob, from_secret, job_name, python_job, value
from mistral_on_l4.manifests.metadata import KEYS_ANNOTATION, REVISION_ANNOTATION, fingerprint, metadata
from mistral_on_l4.manifests.openshift.data_science import connection_metadata
from mistral_on_l4.manifests.scripts import sources

CHECKER = "service-checker"
_CHECKER_RULES = (
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
)
# Until the check's own clock starts: its pod is placed and its image pulled.
_POD_SECONDS = 300
# So that Pulumi hears from the Job why it failed, and does not give up at the same moment.
_SPARE_SECONDS = 30


@dataclass(frozen=True)
class ServingArgs:
    """What all services of a stack share.

    storage_config: JSON of the credentials that KServe's storage initializer takes, or None where the platform writes that
    Secret itself, from `connection`: the store as one of the platform's connections; storage_key: name of these credentials;
    client_service: which Service clients in the cluster call; runtime_marks: labels and annotations of the runtime; job_pod: of
    the Job that checks a service after each change; takes_over: service -> URN of the one in whose place it comes.
    """

    namespace: str
    engine_image: str
    shm_size: str
    services: tuple[str, ...]
    storage_config: pulumi.Output[str] | None
    api_key: pulumi.Output[str] | None
    job_pod: JobPodArgs
    storage_key: str = "minio"
    connection: Mapping[str, pulumi.Input[str]] | None = None
    client_service: Literal["predictor", "internal"] = "predictor"
    runtime_marks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    takes_over: Mapping[str, str] = field(default_factory=dict)


class Serving(pulumi.ComponentResource):
    """ServingRuntime, store credentials, API key and the NetworkPolicy: everything a service needs beside itself.

    ready: what a service waits for; runtime: the ServingRuntime's manifest; checker: what a service's check runs; takes_over,
    client_service: as given.
    """

    ready: list[pulumi.Resource]
    runtime: Mapping[str, Any]
    checker: ScriptJobs
    takes_over: Mapping[str, str]
    client_service: Literal["predictor", "internal"]

    def __init__(self, name: str, args: ServingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:serving:Serving", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.takes_over, self.client_service = args.takes_over, args.client_service
        self.runtime = serving.serving_runtime(
            args.namespace, args.engine_image, args.shm_size, args.job_pod.user_ids, args.runtime_marks
        )
        policy = serving.network_policy(args.services, args.namespace)
        self.ready = [
            CustomResource(f"{name}-runtime", **custom(self.runtime), opts=child),
            NetworkPolicy(f"{name}-network-policy", **body(policy), opts=child),
        ]
        for role, secret, key, text in (
            ("storage-config", "storage-config", args.storage_key, args.storage_config),
            ("api-key", serving.API_KEY_SECRET, "api-key", args.api_key),
        ):
            if text is not None:
                meta = metadata(secret, args.namespace)
                self.ready.append(Secret(f"{name}-{role}", metadata=meta, string_data={key: text}, opts=child))
        if args.connection is not None:
            meta = connection_metadata(args.storage_key, args.namespace)
            self.ready.append(Secret(f"{name}-connection", metadata=meta, string_data=args.connection, opts=child))
        self.checker = ScriptJobs(
            f"{name}-checker",
            ScriptJobsArgs(
                sources=sources("check_service"),
                config_map="check-service",
                namespace=args.namespace,
                account=CHECKER,
                rules=_CHECKER_RULES,
                pod=args.job_pod,
            ),
            child,
        )
        self.register_outputs({})


@dataclass(frozen=True)
class InferenceServiceArgs:
    """spec: the service as the plan wants it; shared: what it has in common with the others of its stack."""

    spec: serving.ServiceSpec
    shared: Serving


class InferenceService(pulumi.ComponentResource):
    """One service. `url` is its address inside the cluster; `ready` is reached when it serves its newest revision."""

    url: pulumi.Output[str]
    ready: pulumi.CustomResource

    def __init__(self, name: str, args: InferenceServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """opts.depends_on: weights complete, registration, GPU nodes that exist."""
        super().__init__("mistral-on-l4:serving:InferenceService", name, None, opts)
        spec = args.spec
        manifest = serving.inference_service(spec, args.shared.runtime)
        fixed = serving.revision_of(manifest)
        revision = _sealed(fixed, spec)
        manifest["metadata"]["annotations"][REVISION_ANNOTATION] = revision
        old = args.shared.takes_over.get(spec.name)
        timeout = f"{spec.ready_seconds}s"
        service = CustomResource(
            f"{name}-service",
            **custom(manifest),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=args.shared.ready,
                custom_timeouts=pulumi.CustomTimeouts(create=timeout, update=timeout),
                # Two of them, the old and the new, would wait for each other's GPUs.
                delete_before_replace=True,
                aliases=[old] if old else None,
                hooks=explained(self),
            ),
        )
        address = serving.client_service_name(spec.name, args.shared.client_service)
        self.url = pulumi.Output.from_input(f"http://{address}.{spec.namespace}.svc")
        reached: list[pulumi.Resource] = []
        if args.shared.client_service == "internal":
            clients = serving.client_service(spec.name, spec.namespace)
            reached = [Service(f"{name}-clients", **body(clients), opts=pulumi.ResourceOptions(parent=self))]
        check = _check(spec, str(fixed), revision, self.url, args.shared.checker.program)
        self.ready = Job(
            f"{name}-check",
            **body(python_job(check)),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[service, *reached, *args.shared.checker.ready],
                custom_timeouts=pulumi.CustomTimeouts(create=f"{check.deadline_seconds + _SPARE_SECONDS}s"),
                delete_before_replace=True,
                hooks=explained(self),
            ),
        )
        self.register_outputs({"url": self.url})


def _sealed(fixed: str, spec: serving.ServiceSpec) -> pulumi.Output[str]:
    """The revision with the links, which KServe copies to the pods and only `pulumi up` knows.

    Not with the key's mark: keys are drawn where no state keeps them, and every preview would have another revision.
    """
    links = {**spec.link_labels, **spec.link_annotations}
    return pulumi.Output.all(**links).apply(lambda known: fingerprint(fixed, known))


def _check(spec: serving.ServiceSpec, fixed: str, revision: Any, url: pulumi.Output[str], program: Program) -> PythonJob:
    """The Job that ends well when the service serves this revision. fixed: the part of it that a preview knows, for the name."""
    env = [
        value("SERVICE_NAME", spec.name),
        value("SERVICE_NAMESPACE", spec.namespace),
        value("SERVICE_REVISION", revision),
        value("SERVICE_URL", url),
        value("DEADLINE_SECONDS", str(spec.ready_seconds)),
    ]
    if spec.key_mark is not None:
        env.append(from_secret("API_KEY", serving.API_KEY_SECRET, "api-key"))
    return PythonJob(
        name=job_name("check", spec.name, fingerprint(program.config_map, spec.name, fixed)),
        component="check-service",
        program=program,
        env=env,
        deadline_seconds=spec.ready_seconds + _POD_SECONDS,
        memory="128Mi",
        retries=0,
        # A new key leaves the revision as it is, and has to be tried all the same.
        annotations={} if spec.key_mark is None else {KEYS_ANNOTATION: spec.key_mark},
        pod_labels={CLIENT_LABEL: "true"},
    )
