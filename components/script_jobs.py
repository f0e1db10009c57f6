"""What the Jobs of one script share: its files in a ConfigMap, and a service account with the rights that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_kubernetes.core.v1 import ConfigMap, ServiceAccount
from pulumi_kubernetes.rbac.v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding

from mistral_on_l4.manifests.jobs import Program
from mistral_on_l4.manifests.metadata import fingerprint, metadata
from mistral_on_l4.manifests.scripts import Sources
from mistral_on_l4.manifests.security import PodUserIds

_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class JobPodArgs:
    """What all pods of a stack's scripts have alike. image: KServe's storage initializer, which has the packages they use."""

    image: str
    pull_secret: str | None = None
    user_ids: PodUserIds = "fixed"


@dataclass(frozen=True)
class ScriptJobsArgs:
    """One script and what it may do.

    config_map: name of the ConfigMap, before a fingerprint of the files; account: name of the service account, of its role and of
    the binding; rules: what the role allows, in the namespace, or in the whole cluster under the name `cluster_role`; ca_secret:
    Secret of the namespace with the authority of the object store's certificate.
    """

    sources: Sources
    config_map: str
    namespace: str
    account: str
    rules: Sequence[Mapping[str, Any]]
    pod: JobPodArgs
    cluster_role: str | None = None
    ca_secret: str | None = None


class ScriptJobs(pulumi.ComponentResource):
    """program: what a Job runs; ready: what it waits for."""

    program: Program
    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: ScriptJobsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:jobs:ScriptJobs", name, None, opts)
        self._name, self._args = name, args
        # These objects were once children of the component that now holds this one: a stack from then keeps them.
        self._child = pulumi.ResourceOptions(
            parent=self, aliases=[pulumi.Alias(parent=opts.parent)] if opts and opts.parent else []
        )
        self.program = Program(
            sources=args.sources,
            config_map=f"{args.config_map}-{fingerprint(dict(args.sources.files))}",
            namespace=args.namespace,
            image=args.pod.image,
            service_account=args.account,
            ca_secret=args.ca_secret,
            pull_secret=args.pod.pull_secret,
            user_ids=args.pod.user_ids,
        )
        files = ConfigMap(
            f"{name}-scripts",
            metadata=metadata(self.program.config_map, args.namespace),
            data=args.sources.data,
            immutable=True,
            opts=self._child,
        )
        account = ServiceAccount(f"{name}-account", metadata=metadata(args.account, args.namespace), opts=self._child)
        self.ready = [files, account, self._rights(account)]
        self.register_outputs({})

    def _rights(self, account: ServiceAccount) -> pulumi.Resource:
        """A role with the rules; returns its binding to the account."""
        args = self._args
        scope, role_name = (None, args.cluster_role) if args.cluster_role else (args.namespace, args.account)
        role_class, binding_class = (ClusterRole, ClusterRoleBinding) if args.cluster_role else (Role, RoleBinding)
        role = role_class(
            f"{self._name}-role", metadata=metadata(role_name, scope), rules=[dict(rule) for rule in args.rules], opts=self._child
        )
        binding: pulumi.Resource = binding_class(
            f"{self._name}-binding",
            metadata=metadata(role_name, scope),
            role_ref={"apiGroup": _RBAC, "kind": "ClusterRole" if args.cluster_role else "Role", "name": role_name},
            subjects=[{"kind": "ServiceAccount", "name": args.account, "namespace": args.namespace}],
            opts=pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=[role, account])),
        )
        return binding
