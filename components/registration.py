"""A service's entry in the model registry, made by a Job that can run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.kubernetes import ConfigMap, Job, Role, RoleBinding, Secret, ServiceAccount
from components.object_store import ObjectStore
from mistral_on_l4.manifests.jobs import PythonJob, from_field, from_secret, job_name, python_job, value
from mistral_on_l4.manifests.metadata import fingerprint, metadata

REGISTRAR = "model-registrar"
DEADLINE_SECONDS = 900


@dataclass(frozen=True)
class RegistrarArgs:
    """What all registration Jobs of a stack share. scripts: file name -> text, mounted at /scripts."""

    namespace: str
    image: str
    scripts: Mapping[str, str]
    entry: str
    registry_name: str
    registry_url: str
    registry_identity: pulumi.Output[str]
    store_keys: tuple[pulumi.Input[str], pulumi.Input[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    ca_secret: str | None = None
    pull_secret: str | None = None


class Registrar(pulumi.ComponentResource):
    """Script, service account and rights of the registration Jobs: they read the weights' manifest and write one ConfigMap."""

    def __init__(self, name: str, args: RegistrarArgs, provider: k8s.Provider, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:registry:Registrar", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, provider=provider)
        self.args, self.provider = args, provider
        self.scripts = f"register-model-{fingerprint(dict(args.scripts))}"
        config = ConfigMap(
            f"{name}-scripts", metadata=metadata(self.scripts, args.namespace), data=dict(args.scripts), immutable=True, opts=child
        )
        account = ServiceAccount(f"{name}-account", metadata=metadata(REGISTRAR, args.namespace), opts=child)
        role = Role(
            f"{name}-role",
            metadata=metadata(REGISTRAR, args.namespace),
            rules=[
                {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]},
                {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
            ],
            opts=child,
        )
        binding = RoleBinding(
            f"{name}-binding",
            metadata=metadata(REGISTRAR, args.namespace),
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": REGISTRAR},
            subjects=[{"kind": "ServiceAccount", "name": REGISTRAR, "namespace": args.namespace}],
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[role, account])),
        )
        reader_key, reader_secret = args.store_keys
        keys = Secret(
            f"{name}-store-keys",
            metadata=metadata("weights-reader", args.namespace),
            string_data={"AWS_ACCESS_KEY_ID": reader_key, "AWS_SECRET_ACCESS_KEY": reader_secret},
            opts=child,
        )
        self.ready: list[pulumi.Resource] = [config, account, binding, keys]
        self.register_outputs({})


class Registration(pulumi.ComponentResource):
    """Ids of a service's entry: `ids` holds registeredModelId, modelVersionId and modelArtifactId, known once the Job is done."""

    ids: pulumi.Output[Mapping[str, str]]
    complete: pulumi.CustomResource

    def __init__(
        self,
        name: str,
        service: str,
        entry: Mapping[str, Any],
        prefix: str,
        store: ObjectStore,
        registrar: Registrar,
        depends_on: list[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """entry: what register_model.py puts into the registry ({"model", "version", "artifact"}); prefix: of the weights."""
        super().__init__("mistral-on-l4:registry:Registration", name, None, opts)
        args = registrar.args
        what = fingerprint(registrar.scripts, dict(entry), prefix, store.bucket, args.registry_url)
        result = f"registration-{service}"
        name_of_job = job_name("register", service, what)
        env = [
            value("REGISTRY_URL", args.registry_url),
            value("REGISTRY_NAME", args.registry_name),
            value("REGISTRATION", pulumi.Output.json_dumps(dict(entry))),
            value("RESULT_CONFIGMAP", result),
            value("JOB_NAME", name_of_job),
            from_field("JOB_UID", "metadata.labels['batch.kubernetes.io/controller-uid']"),
            value("WEIGHTS_BUCKET", store.bucket),
            value("WEIGHTS_PREFIX", prefix),
            value("AWS_ENDPOINT_URL", store.endpoint),
            value("AWS_DEFAULT_REGION", store.region),
            from_secret("AWS_ACCESS_KEY_ID", "weights-reader", "AWS_ACCESS_KEY_ID"),
            from_secret("AWS_SECRET_ACCESS_KEY", "weights-reader", "AWS_SECRET_ACCESS_KEY"),
            *(value(key, text) for key, text in sorted(args.environment.items())),
        ]
        if args.ca_secret:
            env.append(value("AWS_CA_BUNDLE", "/etc/store-ca/ca.crt"))
        job = PythonJob(
            name=name_of_job,
            namespace=args.namespace,
            component="register-model",
            image=args.image,
            script=args.entry,
            scripts=registrar.scripts,
            service_account=REGISTRAR,
            env=env,
            deadline_seconds=DEADLINE_SECONDS,
            memory="256Mi",
            # A registry on a new volume has no entries: its identity is another, the template changes and the Job runs again.
            annotations={"mistral-on-l4/registry": args.registry_identity, "mistral-on-l4/store": store.identity},
            ca_secret=args.ca_secret,
            pull_secret=args.pull_secret,
        )
        meta, spec = python_job(job)
        self.complete = Job(
            f"{name}-job",
            metadata=meta,
            spec=spec,
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=registrar.provider,
                depends_on=[*registrar.ready, *depends_on],
                custom_timeouts=pulumi.CustomTimeouts(create=f"{DEADLINE_SECONDS}s"),
            ),
        )
        # The id is an Output of the Job: with a known id the read would run, and fail, in the first preview.
        found = ConfigMap.get(
            f"{name}-ids",
            pulumi.Output.all(self.complete.id).apply(lambda _: f"{args.namespace}/{result}"),
            opts=pulumi.ResourceOptions(parent=self, provider=registrar.provider),
        )
        self.ids = found.data.apply(lambda data: dict(data or {}))
        self.register_outputs({"ids": self.ids})
