"""Which service takes whose place: on a pool without room for both, the old one has to go before the new one can start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mistral_on_l4.config.sections import ServiceSettings, Settings
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.plan import PlanError


@dataclass(frozen=True)
class Running:
    """A service as the last `pulumi up` left it. gpus: that it holds; prefix: of its weights; identity: how Pulumi knows it."""

    name: str
    namespace: str
    pool: str
    gpus: int
    prefix: str
    identity: str


def successions(before: Sequence[Running], settings: Settings, catalogue: Catalogue) -> Mapping[str, Running]:
    """New service -> the old one in whose place it comes, for pools that have no room for both.

    Services that stay need none of this, wherever they move: theirs are updates, in which the old pod goes first. Raises PlanError
    where the old ones cannot all go first.
    """
    wanted = {service.name: service for service in settings.enabled_services}
    known = {service.name: service for service in before}
    pairs: dict[str, Running] = {}
    for pool in settings.pools.groups:
        here = [service for service in wanted.values() if service.pool == pool.name]
        coming = [service for service in here if service.name not in known]
        leaving = [service for service in before if service.pool == pool.name and service.name not in wanted]
        if not any(_needs_room(service, known.get(service.name)) for service in here) or not leaving or not pool.count:
            continue
        each = catalogue.instance(pool.instance_type).gpus
        sizes = [service.tensor_parallel_size for service in here]
        if _fit([*sizes, *(service.gpus for service in leaving)], pool.count, each):
            continue
        paired = dict(_paired(coming, leaving))
        staying = [service for service in leaving if service not in paired.values()]
        if not _fit([*sizes, *(service.gpus for service in staying)], pool.count, each):
            old = _names([service.name for service in staying])
            raise PlanError(
                f"pool {pool.name} has no room for {_names([service.name for service in here])} while {old} "
                f"{'is' if len(staying) == 1 else 'are'} still there: take {old} away in an update of its own first"
            )
        pairs |= paired
    return pairs


def _needs_room(service: ServiceSettings, before: Running | None) -> bool:
    """Whether the service takes GPUs of its pool that it does not hold already."""
    return before is None or before.pool != service.pool or before.gpus < service.tensor_parallel_size


def _paired(coming: Sequence[ServiceSettings], leaving: Sequence[Running]) -> Iterator[tuple[str, Running]]:
    """Each new service with an old one: of the same weights if there is one, else with the one that frees most."""
    left = sorted(leaving, key=lambda service: (-service.gpus, service.name))
    for service in sorted(coming, key=lambda service: not any(old.prefix == service.prefix for old in leaving)):
        if not left:
            return
        old = next((old for old in left if old.prefix == service.prefix), left[0])
        left.remove(old)
        yield service.name, old


def _fit(sizes: Sequence[int], nodes: int, each: int) -> bool:
    """Whether services of these sizes fit on the nodes, largest first."""
    free = [each] * nodes
    for size in sorted(sizes, reverse=True):
        index = next((index for index, room in enumerate(free) if room >= size), None)
        if index is None:
            return False
        free[index] -= size
    return True


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
