"""Kubernetes objects as resources of the kubernetes provider: the same types and inputs as pulumi_kubernetes' own classes.

Those are generated for every field of every kind, and importing the ones for core/v1 alone takes longer than running the whole
program: a third of a preview, for types that plain dicts in the API's camelCase do not use. The provider, which is what does the
work, is pulumi_kubernetes'.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import pulumi
from pydantic.alias_generators import to_camel


class KubernetesObject(pulumi.CustomResource):
    """An object of any kind. `metadata` and the other fields that it was given are Outputs, in the API's camelCase.

    api_version, kind: as in a manifest; fields: the object's top-level ones, such as spec or string_data, beside metadata.
    """

    api_version: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    secret_fields: ClassVar[tuple[str, ...]] = ()

    metadata: pulumi.Output[Any]
    data: pulumi.Output[Any]

    def __init__(
        self,
        name: str,
        *,
        metadata: Any = None,
        opts: pulumi.ResourceOptions | None = None,
        api_version: str | None = None,
        kind: str | None = None,
        **fields: Any,
    ) -> None:
        version, kind = api_version or self.api_version, kind or self.kind
        inputs = {"apiVersion": version, "kind": kind, "metadata": metadata, **{to_camel(key): fields[key] for key in fields}}
        if self.secret_fields:
            marked = pulumi.ResourceOptions(additional_secret_outputs=list(self.secret_fields))
            opts = pulumi.ResourceOptions.merge(opts, marked)
        super().__init__(_token(version, kind), name, inputs, opts)

    @classmethod
    def get(cls, name: str, id: pulumi.Input[str], opts: pulumi.ResourceOptions | None = None) -> Self:
        """Reads an object that exists, by "namespace/name"; its fields are Outputs."""
        return cls(name, data=None, opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(id=id)))


def _token(api_version: str, kind: str) -> str:
    """The provider's name of a type: kubernetes:apps/v1:Deployment; the nameless first group is called core there."""
    return f"kubernetes:{api_version if '/' in api_version else f'core/{api_version}'}:{kind}"


class ClusterRole(KubernetesObject):
    api_version, kind = "rbac.authorization.k8s.io/v1", "ClusterRole"


class ClusterRoleBinding(KubernetesObject):
    api_version, kind = "rbac.authorization.k8s.io/v1", "ClusterRoleBinding"


class ConfigMap(KubernetesObject):
    api_version, kind = "v1", "ConfigMap"


class DaemonSet(KubernetesObject):
    api_version, kind = "apps/v1", "DaemonSet"


class Deployment(KubernetesObject):
    api_version, kind = "apps/v1", "Deployment"


class Job(KubernetesObject):
    api_version, kind = "batch/v1", "Job"


class Namespace(KubernetesObject):
    api_version, kind = "v1", "Namespace"


class NetworkPolicy(KubernetesObject):
    api_version, kind = "networking.k8s.io/v1", "NetworkPolicy"


class Node(KubernetesObject):
    api_version, kind = "v1", "Node"


class PersistentVolumeClaim(KubernetesObject):
    api_version, kind = "v1", "PersistentVolumeClaim"


class Role(KubernetesObject):
    api_version, kind = "rbac.authorization.k8s.io/v1", "Role"


class RoleBinding(KubernetesObject):
    api_version, kind = "rbac.authorization.k8s.io/v1", "RoleBinding"


class Secret(KubernetesObject):
    api_version, kind = "v1", "Secret"
    secret_fields = ("data", "stringData")


class Service(KubernetesObject):
    api_version, kind = "v1", "Service"


class ServiceAccount(KubernetesObject):
    api_version, kind = "v1", "ServiceAccount"


class StatefulSet(KubernetesObject):
    api_version, kind = "apps/v1", "StatefulSet"


class StorageClass(KubernetesObject):
    api_version, kind = "storage.k8s.io/v1", "StorageClass"
