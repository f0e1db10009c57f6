"""vLLM behind KServe: the runtime that services share, and one component per InferenceService."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components.kubernetes import ConfigMap, Job, KubernetesObject, NetworkPolicy, Role, RoleBinding, Secret, ServiceAccount
from mistral_on_l4.config.names import CLIENT_LABEL
from mistral_on_l4.manifests import serving
from mistral_on_l4.manifests.jobs import PythonJob, from_secret, job_name, python_job, value
from mistral_on_l4.manifests.metadata import KEYS_ANNOTATION, fingerprint, metadata

CHECKER = "service-checker"
# Until the check's own clock starts: its pod is placed and its image pulled.
_POD_SECONDS = 300
# So that Pulumi hears from the Job why it failed, and does not give up at the same moment.
_SPARE_SECONDS = 30


@dataclass(frozen=True)
class ServingArgs:
    """What all services of a stack share.

    storage_config: JSON of the credentials that KServe's storage initializer takes, or None where the platform writes that
    Secret itself; job_image, scripts, entry: of the Job that checks a service after each change.
    """

    namespace: str
    engine_image: str
    shm_size: str
    services: tuple[str, ...]
    storage_config: pulumi.Output[str] | None
    api_key: pulumi.Output[str] | None
    job_image: str
    scripts: Mapping[str, str]
    entry: str
    pull_secret: str | None = None


class Serving(pulumi.ComponentResource):
    """ServingRuntime, store credentials, API key and the NetworkPolicy: everything a service needs beside itself."""

    def __init__(
        self,
        name: str,
        args: ServingArgs,
        provider: k8s.Provider,
        depends_on: list[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """depends_on: what must be there first, such as the KServe controller whose webhooks check these objects."""
        super().__init__("mistral-on-l4:serving:Serving", name, None, opts)
        self.args, self.provider = args, provider
        child = pulumi.ResourceOptions(parent=self, provider=provider, depends_on=depends_on)
        meta, spec = serving.serving_runtime(args.namespace, args.engine_image, args.shm_size)
        runtime = KubernetesObject(
            f"{name}-runtime", api_version=serving.RUNTIME_API_VERSION, kind="ServingRuntime", metadata=meta, spec=spec, opts=child
        )
        meta, spec = serving.network_policy(args.services, args.namespace)
        policy = NetworkPolicy(f"{name}-network-policy", metadata=meta, spec=spec, opts=child)
        self.ready: list[pulumi.Resource] = [runtime, policy]
        if args.storage_config is not None:
            self.ready.append(
                Secret(
                    f"{name}-storage-config",
                    metadata=metadata("storage-config", args.namespace),
                    string_data={serving.STORAGE_KEY: args.storage_config},
                    opts=child,
                )
            )
        if args.api_key is not None:
            self.ready.append(
                Secret(
                    f"{name}-api-key",
                    metadata=metadata(serving.API_KEY_SECRET, args.namespace),
                    string_data={"api-key": args.api_key},
                    opts=child,
                )
            )
        self.scripts = f"check-service-{fingerprint(dict(args.scripts))}"
        self.checker_ready = self._checker(name, child)
        self.register_outputs({})

    def _checker(self, name: str, child: pulumi.ResourceOptions) -> list[pulumi.Resource]:
        namespace = self.args.namespace
        config = ConfigMap(
            f"{name}-checker-scripts",
            metadata=metadata(self.scripts, namespace),
            data=dict(self.args.scripts),
            immutable=True,
            opts=child,
        )
        account = ServiceAccount(f"{name}-checker-account", metadata=metadata(CHECKER, namespace), opts=child)
        role = Role(
            f"{name}-checker-role",
            metadata=metadata(CHECKER, namespace),
            rules=[
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
            ],
            opts=child,
        )
        binding = RoleBinding(
            f"{name}-checker-binding",
            metadata=metadata(CHECKER, namespace),
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": CHECKER},
            subjects=[{"kind": "ServiceAccount", "name": CHECKER, "namespace": namespace}],
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[role, account])),
        )
        return [config, account, binding]


class InferenceService(pulumi.ComponentResource):
    """One service. `url` is its address inside the cluster; `ready` is reached when it serves its newest revision."""

    url: pulumi.Output[str]
    ready: pulumi.Resource

    def __init__(
        self,
        name: str,
        spec: serving.ServiceSpec,
        shared: Serving,
        depends_on: list[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """depends_on: weights complete, registration, GPU nodes that exist."""
        super().__init__("mistral-on-l4:serving:InferenceService", name, None, opts)
        meta, body, revision = serving.inference_service(spec)
        timeout = f"{spec.ready_seconds}s"
        service = KubernetesObject(
            f"{name}-service",
            api_version=serving.API_VERSION,
            kind="InferenceService",
            metadata=meta,
            spec=body,
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=shared.provider,
                depends_on=[*shared.ready, *depends_on],
                custom_timeouts=pulumi.CustomTimeouts(create=timeout, update=timeout),
            ),
        )
        self.url = pulumi.Output.from_input(f"http://{spec.name}-predictor.{spec.namespace}.svc")
        self.ready = self._check(name, spec, revision, shared, service)
        self.register_outputs({"url": self.url})

    def _check(
        self, name: str, spec: serving.ServiceSpec, revision: str, shared: Serving, service: pulumi.Resource
    ) -> pulumi.Resource:
        env = [
            value("SERVICE_NAME", spec.name),
            value("SERVICE_NAMESPACE", spec.namespace),
            value("SERVICE_REVISION", revision),
            value("SERVICE_URL", self.url),
            value("DEADLINE_SECONDS", str(spec.ready_seconds)),
        ]
        if spec.key_mark is not None:
            env.append(from_secret("API_KEY", serving.API_KEY_SECRET, "api-key"))
        job = PythonJob(
            name=job_name("check", spec.name, fingerprint(shared.scripts, spec.name, revision)),
            namespace=spec.namespace,
            component="check-service",
            image=shared.args.job_image,
            script=shared.args.entry,
            scripts=shared.scripts,
            service_account=CHECKER,
            env=env,
            deadline_seconds=spec.ready_seconds + _POD_SECONDS,
            memory="128Mi",
            retries=0,
            # A new key leaves the revision as it is, and has to be tried all the same.
            annotations={} if spec.key_mark is None else {KEYS_ANNOTATION: spec.key_mark},
            pod_labels={CLIENT_LABEL: "true"},
            pull_secret=shared.args.pull_secret,
        )
        meta, body = python_job(job)
        check: pulumi.Resource = Job(
            f"{name}-check",
            metadata=meta,
            spec=body,
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=shared.provider,
                depends_on=[service, *shared.checker_ready],
                custom_timeouts=pulumi.CustomTimeouts(create=f"{spec.ready_seconds + _POD_SECONDS + _SPARE_SECONDS}s"),
            ),
        )
        return check
