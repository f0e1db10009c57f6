"""What a stack's manifests may follow from: its settings, its plan, and the files that its Jobs run.

Facts have dotted names: `settings.objectStore.bucket`, `service.prefix` of the service that a resource is for, `pool.name` of a
pool. Values are plain data as they stand in manifests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mistral_on_l4 import jobs
from mistral_on_l4.aws.account import cluster_name
from mistral_on_l4.config.images import PINNED, image
from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.settings import ServiceSettings, Settings
from mistral_on_l4.planner import ServicePlan, StackPlan, plan_stack

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class StackFacts:
    """whole: what holds for every resource; entities: for each kind of thing that a resource may be for, the facts of each."""

    whole: Facts
    entities: Mapping[str, tuple[Facts, ...]]

    def bindings(self, kind: str) -> Iterator[Facts]:
        """kind: "" for what belongs to the stack as a whole, else a kind of entity."""
        if not kind:
            yield self.whole
        for facts in self.entities.get(kind, ()):
            yield {**self.whole, **facts}


@lru_cache(maxsize=8)
def _plan(settings: str, stack: str) -> StackPlan:
    return plan_stack(Settings.model_validate_json(settings), stack=stack)


def facts_of(settings: Settings, stack: str) -> StackFacts:
    """Raises PlanError where the settings cannot be planned."""
    plan = _plan(settings.model_dump_json(by_alias=True), stack)
    whole = {f"settings.{name}": value for name, value in _flat(settings.model_dump(mode="json", by_alias=True))}
    whole = {name: value for name, value in whole.items() if not name.startswith(("settings.services", "settings.pools.groups"))}
    whole |= {f"job.{name}": text for name, text in _job_files().items()}
    whole |= {f"image.{role}": image(role, settings.images) for role in PINNED}
    if plan.services:
        whole["image.engine"] = image("engine", settings.images, plan.services[0].image)
    whole |= {"stack": stack, "project": PROJECT, "cluster": cluster_name(settings, stack)}
    if settings.traits.embedded:
        whole["cluster"] = stack
    alone = [_service(service, plan.service(service.name)) for service in settings.enabled_services]
    pools = tuple(
        {
            **{f"pool.{name}": value for name, value in _flat(pool.model_dump(mode="json", by_alias=True))},
            "pool.types": list(pool.instance_types),
        }
        for pool in settings.pools.groups
    )
    by_prefix = {facts["service.prefix"]: _checkpoint(facts) for facts in reversed(alone)}
    by_pool = {facts["pool.name"]: facts for facts in pools}
    whole["services"] = [facts["service.name"] for facts in alone]
    services = tuple({**facts, **by_prefix[facts["service.prefix"]], **by_pool.get(facts["service.pool"], {})} for facts in alone)
    return StackFacts(whole, {"service": services, "pool": pools, "checkpoint": tuple(by_prefix.values())})


def _service(service: ServiceSettings, plan: ServicePlan) -> dict[str, Any]:
    facts = {f"service.{name}": value for name, value in _flat(service.model_dump(mode="json", by_alias=True))}
    facts["service.args"] = list(plan.args)
    facts["service.repository"] = plan.checkpoint
    facts["service.predictor"] = f"{service.name}-predictor"
    facts["service.bare-prefix"] = service.prefix.rstrip("/")
    for section in ("requests", "limits"):
        for name, value in (getattr(plan.pod, section) if plan.pod else {}).items():
            facts[f"service.{section}.{name}"] = value
    return facts


def _checkpoint(service: Mapping[str, Any]) -> dict[str, Any]:
    told = {"prefix": "prefix", "bare-prefix": "name", "repository": "repository", "revision": "revision"}
    return {f"checkpoint.{name}": service[f"service.{key}"] for key, name in told.items()}


def counted(facts: Facts, number: int) -> Facts:
    """Facts of a resource that is one of several: its number, and the entry of each list that it stands for."""
    entries = {f"{name}.n": value[number] for name, value in facts.items() if isinstance(value, list) and number < len(value)}
    return {**facts, **entries, "n": number}


@lru_cache(maxsize=1)
def _job_files() -> Mapping[str, str]:
    return {path.name: path.read_text() for path in Path(jobs.__file__).parent.glob("*.py")}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves and lists below a value, by dotted path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}".lstrip("."))
    elif value is not None:
        yield path, value
