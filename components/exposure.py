"""How a service is reached from outside the cluster, where the platform has a way: a component of its own beside the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pulumi
from pulumi_kubernetes.networking.v1 import NetworkPolicy

from components.objects import body
from mistral_on_l4.manifests.openshift.data_science import route_network_policy
from mistral_on_l4.manifests.openshift.names import ROUTE_API

# What `access.exposure` may ask for beside `none`, and which of them are built (config/traits.py says where).
Exposed = Literal["route"]


@dataclass(frozen=True)
class ExposureArgs:
    """service, namespace: of the InferenceService; serves: it is ready."""

    kind: Exposed
    service: str
    namespace: str
    serves: pulumi.CustomResource


class Exposure(pulumi.ComponentResource):
    """`url`: base URL from outside. The Route is made by OpenShift AI, by the service's label; what it needs is declared here."""

    url: pulumi.Output[str]

    def __init__(self, name: str, args: ExposureArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:serving:Exposure", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        NetworkPolicy(f"{name}-route-policy", **body(route_network_policy(args.service, args.namespace)), opts=child)
        # No preview looks for a Route that is still to come: until then the id is not known.
        known = _Route(f"{name}-route", args.serves.id.apply(lambda _: f"{args.namespace}/{args.service}"), child)
        self.url = known.spec.apply(lambda spec: f"https://{(spec or {}).get('host', '')}")
        self.register_outputs({"url": self.url})


class _Route(pulumi.CustomResource):
    """A Route that is there, read and never changed. The SDK's class for custom resources gives a read one no `spec`."""

    spec: pulumi.Output[dict[str, str] | None]

    def __init__(self, name: str, route_id: pulumi.Input[str], opts: pulumi.ResourceOptions) -> None:
        reads = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(id=route_id))
        super().__init__(f"kubernetes:{ROUTE_API}:Route", name, {"spec": None}, reads)
