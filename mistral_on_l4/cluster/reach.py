"""How the services of a stack are reached from where a person sits, and how their key is read. No secret is read here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from mistral_on_l4.cluster.local import LocalStack
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.manifests import object_store, registry, serving

# The first of the ports of this machine that forwards are put on.
_FIRST_PORT = 8080


@dataclass(frozen=True)
class Endpoint:
    """name: as people know it; service, namespace, port: of the Service; here: the port of this machine that it is forwarded to;
    scheme: what it speaks where it is forwarded.
    """

    name: str
    service: str
    namespace: str
    port: int
    here: int
    scheme: str = "http"

    @property
    def forwarded(self) -> str:
        """Base URL while `forward` runs."""
        # A certificate is for names.
        return f"{self.scheme}://{'localhost' if self.scheme == 'https' else '127.0.0.1'}:{self.here}"

    @property
    def forward(self) -> str:
        """The command that brings a Service of a cluster elsewhere to this machine."""
        return f"kubectl port-forward -n {self.namespace} service/{self.service} {self.here}:{self.port}"


def endpoints(settings: Settings) -> Iterator[Endpoint]:
    """The enabled services in their order, then the registry, then the object store where it is the stack's own."""
    spaces, kind = settings.namespaces, settings.traits.client_service
    found = [
        (service.name, serving.client_service_name(service.name, kind), spaces.services, serving.SERVICE_PORT, "http")
        for service in settings.enabled_services
    ]
    found.append(("registry", registry.service_name(settings.registry.name), spaces.registry, registry.PORT, "http"))
    if settings.object_store.kind == "minio":
        # In a cluster that is given nobody issues the store a certificate.
        scheme = "http" if settings.traits.given_cluster else "https"
        found.append(("object-store", object_store.NAME, spaces.object_store, object_store.PORT, scheme))
    for number, (name, service, namespace, port, scheme) in enumerate(found):
        yield Endpoint(name, service, namespace, port, _FIRST_PORT + number, scheme)


def key_command(settings: Settings, local: LocalStack | None) -> str | None:
    """The command that prints the services' key; None where they ask for none."""
    if settings.access.auth != "token" or settings.traits.guard != "engine":
        return None
    kubectl = "kubectl" if local is None else f"{shlex.quote(local.kubectl)} --kubeconfig {shlex.quote(str(local.kubeconfig))}"
    where = f"secret {serving.API_KEY_SECRET} -n {settings.namespaces.services}"
    return f"{kubectl} get {where} -o jsonpath='{{.data.api-key}}' | base64 -d"
