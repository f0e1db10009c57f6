"""The GPU pools of the settings: each a MachineSet, and a Job that ends when the pool's nodes offer their GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.batch.v1 import Job

from components.objects import body, custom
from components.script_jobs import JobPodArgs, ScriptJobs, ScriptJobsArgs
from mistral_on_l4.config.settings import PoolSettings, Settings
from mistral_on_l4.manifests.jobs import PythonJob, job_name, python_job, value
from mistral_on_l4.manifests.metadata import fingerprint
from mistral_on_l4.manifests.openshift.machine_sets import MachinePool, machine_set
from mistral_on_l4.manifests.scripts import sources
from mistral_on_l4.planner.catalogue import Catalogue

AWAITER = "gpu-awaiter"
# A machine takes 3 to 10 minutes, its driver as long again.
AWAIT_SECONDS = 1800
_RULES = (
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},
    {"apiGroups": ["machine.openshift.io"], "resources": ["machines"], "verbs": ["list"]},
)


@dataclass(frozen=True)
class GpuPoolsArgs:
    """infrastructure: the cluster's name for itself; worker: the MachineSet that pools are derived from; software: what makes
    GPUs usable; namespace, pod: of the Jobs that wait for them; tags: of instances.
    """

    settings: Settings
    catalogue: Catalogue
    stack: str
    infrastructure: str
    worker: Mapping[str, Any]
    software: Sequence[pulumi.Resource]
    namespace: str
    pod: JobPodArgs
    tags: Mapping[str, str]


class GpuPools:
    """MachineSets by pool. With `pools.start: after-seed` one is declared when its nodes are first asked for."""

    def __init__(self, args: GpuPoolsArgs, parent: pulumi.Resource, provider: pulumi.ProviderResource) -> None:
        self._args, self._parent, self._provider = args, parent, provider
        self._later = args.settings.pools.start == "after-seed"
        self._sets = {pool.name: self._declare(pool, ()) for pool in (() if self._later else args.settings.pools.groups)}
        self._usable: dict[str, list[pulumi.Resource]] = {}
        self._awaiter: ScriptJobs | None = None

    def await_in(self, namespaces: Sequence[pulumi.Resource]) -> None:
        """Lays out what the Jobs share, once their namespace is there."""
        args = self._args
        self._awaiter = ScriptJobs(
            "gpu-awaiter",
            ScriptJobsArgs(
                sources=sources("await_gpus"),
                config_map="await-gpus",
                namespace=args.namespace,
                account=AWAITER,
                rules=_RULES,
                pod=args.pod,
                cluster_role=f"mistral-on-l4-{AWAITER}-{args.stack}",
            ),
            pulumi.ResourceOptions(parent=self._parent, provider=self._provider, depends_on=[*namespaces]),
        )

    def nodes(self, pool: str, after: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:
        """What exists when the pool's nodes offer their GPUs. after: what they wait for if they are declared here."""
        if pool not in self._usable:
            settings = self._args.settings.pool(pool)
            if pool not in self._sets:
                self._sets[pool] = self._declare(settings, after)
            self._usable[pool] = [self._sets[pool], *self._awaited(settings)]
        return self._usable[pool]

    def _declare(self, pool: PoolSettings, after: Sequence[pulumi.Resource]) -> CustomResource:
        args = self._args
        return CustomResource(
            f"pool-{pool.name}",
            **custom(machine_set(self._machines(pool), args.worker)),
            opts=pulumi.ResourceOptions(
                parent=self._parent,
                provider=self._provider,
                # Two sets of machines would stand, and bill, side by side.
                delete_before_replace=True,
                depends_on=[*after],
            ),
        )

    def _machines(self, pool: PoolSettings) -> MachinePool:
        args, instance = self._args, self._args.catalogue.instance(pool.instance_type)
        return MachinePool(
            name=pool.name,
            stack=args.stack,
            infrastructure=args.infrastructure,
            instance_type=pool.instance_type,
            count=pool.count,
            spot=pool.capacity_type == "SPOT",
            gpus=instance.gpus,
            vcpus=instance.vcpus,
            memory_mib=int(instance.memory_gib * 1024),
            tags=args.tags,
        )

    def _awaited(self, pool: PoolSettings) -> list[pulumi.Resource]:
        awaiter, args = self._awaiter, self._args
        if pool.count == 0 or awaiter is None:
            return []
        gpus = args.catalogue.instance(pool.instance_type).gpus
        name = machine_set(self._machines(pool), args.worker)["metadata"]["name"]
        env = [
            value("POOL", pool.name),
            value("POOL_NODES", str(pool.count)),
            value("POOL_GPUS", str(gpus)),
            value("MACHINE_SET", name),
            value("DEADLINE_SECONDS", str(AWAIT_SECONDS - 60)),
        ]
        mark = fingerprint(awaiter.program.config_map, pool.name, pool.count, pool.instance_type, name)
        job = PythonJob(
            name=job_name("await-gpus", pool.name, mark),
            component="await-gpus",
            program=awaiter.program,
            env=env,
            deadline_seconds=AWAIT_SECONDS,
            memory="128Mi",
        )
        return [
            Job(
                f"pool-{pool.name}-usable",
                **body(python_job(job)),
                opts=pulumi.ResourceOptions(
                    parent=awaiter,
                    depends_on=[self._sets[pool.name], *args.software, *awaiter.ready],
                    custom_timeouts=pulumi.CustomTimeouts(create=f"{AWAIT_SECONDS + 30}s"),
                    delete_before_replace=True,
                ),
            )
        ]
