"""The services of a running stack as something that can be asked: address, key, plan and state in one place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.live import ServiceState, api_key, in_stack_order, services
from mistral_on_l4.config.local_engine import is_real
from mistral_on_l4.manifests.serving import client_service_name
from mistral_on_l4.planner import ServicePlan, StackPlan


class NoService(Exception):
    """There is no such service, or none at all. One line. wrong_name: the caller named one that there is not."""

    def __init__(self, message: str, wrong_name: bool = False) -> None:
        super().__init__(message)
        self.wrong_name = wrong_name


@dataclass(frozen=True)
class Endpoint:
    """One service. url: its base, without /v1; key: None where it asks for none; plan: None for a service of somebody else.

    embedded: whether it runs on the local cluster.
    """

    state: ServiceState
    url: str
    key: str | None = field(repr=False)
    plan: ServicePlan | None
    embedded: bool = False

    @property
    def simulated(self) -> bool:
        """Whether its engine is a simulation: the local cluster has no GPU, so that what asks for one is not what it says."""
        return self.embedded and self.state.gpus > 0 and not self.on_cpu

    @property
    def on_cpu(self) -> bool:
        """Whether it is vLLM itself on this machine's CPU, with a small model in place of the plan's."""
        return self.embedded and is_real(self.state.image)

    @property
    def name(self) -> str:
        """Of the service, and of its model."""
        return self.state.name

    @property
    def precision(self) -> str:
        return self.plan.variant.upper() if self.plan else "-"

    @property
    def gpus(self) -> str:
        return f"{self.state.gpus}x {self.plan.gpu}" if self.plan else f"{self.state.gpus}x"

    @property
    def usd_per_hour(self) -> float | None:
        return self.plan.usd_per_hour if self.plan else None


@contextmanager
def open_endpoints(connection: Connection, plan: StackPlan, names: Sequence[str] = ()) -> Iterator[list[Endpoint]]:
    """The named services, or all of the stack, reachable until the context ends. Raises NoService, NoConnection, ApiError.

    A service that is not ready is among them: asking it says more than leaving it out.
    """
    namespace = connection.settings.namespaces.services
    states = in_stack_order(services(connection.client, namespace), connection.settings)
    if not names:
        states = [state for state in states if state.ours] or states
    known = {state.name: state for state in states}
    if not known:
        raise NoService(f"no InferenceService in namespace {namespace}: bring the stack up first")
    if unknown := [name for name in names if name not in known]:
        raise NoService(f"no service {unknown[0]!r}; the services are {', '.join(known)}", wrong_name=True)
    plans = {service.name: service for service in plan.services}
    key = api_key(connection.client, namespace)
    kind = connection.settings.traits.client_service
    with ExitStack() as open_until_then:
        opened = {
            name: open_until_then.enter_context(connection.service(client_service_name(name, kind), namespace))
            for name in (names or known)
        }
        made_up = connection.settings.traits.embedded
        yield [Endpoint(known[name], url, key, plans.get(name), made_up) for name, url in opened.items()]
