"""An operator that the stack installs: namespace, OperatorGroup, Subscription, and the wait for what OLM makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.batch.v1 import Job
from pulumi_kubernetes.core.v1 import Namespace

from components.objects import body, custom
from components.script_jobs import JobPodArgs, ScriptJobs, ScriptJobsArgs
from mistral_on_l4.manifests.jobs import PythonJob, job_name, python_job, value
from mistral_on_l4.manifests.metadata import fingerprint
from mistral_on_l4.manifests.openshift import operators
from mistral_on_l4.manifests.scripts import sources

AWAITER = "operator-awaiter"
# OLM pulls a catalogue's image, a bundle and the operator's own.
DEADLINE_SECONDS = 1200


@dataclass(frozen=True)
class InstalledOperatorArgs:
    """stack: whose label the namespace carries; pod: of the Job that waits."""

    operator: operators.Operator
    stack: str
    pod: JobPodArgs


class InstalledOperator(pulumi.ComponentResource):
    """`ready`: what objects of the operator's kinds depend on. With its namespace the operator goes again; OLM leaves its kinds."""

    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: InstalledOperatorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:openshift:InstalledOperator", name, None, opts)
        operator = args.operator
        child = pulumi.ResourceOptions(parent=self)

        def after(*first: pulumi.Resource) -> pulumi.ResourceOptions:
            return pulumi.ResourceOptions(parent=self, depends_on=list(first))

        namespace = Namespace(f"{name}-namespace", **body(operators.namespace(operator, args.stack)), opts=child)
        group = CustomResource(f"{name}-group", **custom(operators.group(operator)), opts=after(namespace))
        subscription = CustomResource(
            f"{name}-subscription", **custom(operators.subscription(operator)), opts=after(namespace, group)
        )
        awaiter = ScriptJobs(
            f"{name}-awaiter",
            ScriptJobsArgs(
                sources=sources("await_operator"),
                config_map="await-operator",
                namespace=operator.namespace,
                account=AWAITER,
                rules=operators.await_rules(),
                pod=args.pod,
            ),
            after(namespace),
        )
        job = PythonJob(
            name=job_name("await", operator.package, fingerprint(awaiter.program.config_map, operator.package, operator.channel)),
            component="await-operator",
            program=awaiter.program,
            env=[
                value("OPERATOR_NAMESPACE", operator.namespace),
                value("OPERATOR_SUBSCRIPTION", operator.package),
                value("DEADLINE_SECONDS", str(DEADLINE_SECONDS - 60)),
            ],
            deadline_seconds=DEADLINE_SECONDS,
            memory="128Mi",
        )
        installed = Job(
            f"{name}-installed",
            **body(python_job(job)),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[subscription, *awaiter.ready],
                custom_timeouts=pulumi.CustomTimeouts(create=f"{DEADLINE_SECONDS + 30}s"),
                delete_before_replace=True,
            ),
        )
        self.ready = [subscription, installed]
        self.register_outputs({})
