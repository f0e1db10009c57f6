"""How a rule is written: a function that yields one sentence per violation, with its severity, reason, fix and settings.

@resource_rule("jobs-have-deadlines", why=..., fix=..., severity=Severity.MEDIUM)
def jobs_have_deadlines(resource: Resource) -> Iterator[str]: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)

from policies.reading import mapping, plain

MANDATORY = EnforcementLevel.MANDATORY
ADVISORY = EnforcementLevel.ADVISORY


@dataclass(frozen=True)
class Resource:
    """One resource as the program declares it. props: its inputs; provider: its provider's; config: the rule's settings."""

    token: str
    name: str
    urn: str
    props: Mapping[str, Any]
    provider: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def kind(self) -> str:
        """Last part of the type token: `Job`, `NodeGroup`. A component of ours keeps its whole token: it is no such object."""
        return self.token.rpartition(":")[2] if self.is_kubernetes or self.is_aws else self.token

    @property
    def is_kubernetes(self) -> bool:
        return self.token.startswith("kubernetes:")

    @property
    def is_aws(self) -> bool:
        return self.token.startswith("aws:")

    @property
    def meta(self) -> Mapping[str, Any]:
        return mapping(self.props, "metadata")

    @property
    def label(self) -> str:
        """How a person calls it: kind and name."""
        name = self.meta.get("name")
        return f"{self.kind} {name if isinstance(name, str) else self.name}"


@dataclass(frozen=True)
class Stack:
    """All resources of a stack, and the rule's settings."""

    resources: tuple[Resource, ...]
    config: Mapping[str, Any] = field(default_factory=dict)

    def of(self, *kinds: str) -> list[Resource]:
        return [resource for resource in self.resources if resource.kind in kinds]


# Inputs of the resources of this run, by URN. The engine shows stack policies outputs, and in the first preview of a stack that
# makes its own cluster a Kubernetes object has none. It has shown the inputs before, one by one, to the resource policies.
_inputs: dict[str, Resource] = {}


def forget_inputs() -> None:
    """For runs over several stacks in one process; the engine starts a process for each run."""
    _inputs.clear()


# A violation of a stack: the sentence, and the resource it is about.
StackFinding = tuple[str, str | None]


def resource_rule(
    name: str,
    *,
    why: str,
    fix: str,
    severity: Severity,
    level: EnforcementLevel = MANDATORY,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[Callable[[Resource], Iterable[str]]], ResourceValidationPolicy]:
    """A policy over single resources. settings: JSON schema by name, each with its default."""

    def build(check: Callable[[Resource], Iterable[str]]) -> ResourceValidationPolicy:
        def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
            provider = plain(args.provider.props) if args.provider else {}
            config = _with_defaults(args.get_config(), settings)
            resource = Resource(args.resource_type, args.name, args.urn, plain(args.props), provider, config)
            _inputs[args.urn] = resource
            for text in check(resource):
                report(f"{text}. Fix: {fix}", None)

        return ResourceValidationPolicy(
            name=name,
            description=why,
            validate=validate,
            enforcement_level=level,
            severity=severity,
            remediation_steps=fix,
            config_schema=_schema(settings),
        )

    return build


def stack_rule(
    name: str,
    *,
    why: str,
    fix: str,
    severity: Severity,
    level: EnforcementLevel = MANDATORY,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[Callable[[Stack], Iterable[StackFinding]]], StackValidationPolicy]:
    """A policy over the whole stack. settings: JSON schema by name, each with its default."""

    def build(check: Callable[[Stack], Iterable[StackFinding]]) -> StackValidationPolicy:
        def validate(args: StackValidationArgs, report: ReportViolation) -> None:
            stack = Stack(tuple(_resource(found) for found in args.resources), _with_defaults(args.get_config(), settings))
            for text, urn in check(stack):
                report(f"{text}. Fix: {fix}", urn)

        return StackValidationPolicy(
            name=name,
            description=why,
            validate=validate,
            enforcement_level=level,
            severity=severity,
            remediation_steps=fix,
            config_schema=_schema(settings),
        )

    return build


def _resource(found: PolicyResource) -> Resource:
    if found.urn in _inputs:
        return _inputs[found.urn]
    provider = plain(found.provider.props) if found.provider else {}
    return Resource(found.resource_type, found.name, found.urn, plain(found.props), provider)


def _with_defaults(given: Mapping[str, Any] | None, settings: Mapping[str, Mapping[str, Any]] | None) -> Mapping[str, Any]:
    defaults = {name: schema["default"] for name, schema in (settings or {}).items() if "default" in schema}
    return {**defaults, **plain(given or {})}


def _schema(settings: Mapping[str, Mapping[str, Any]] | None) -> PolicyConfigSchema | None:
    if not settings:
        return None
    return PolicyConfigSchema(properties={name: dict(schema) for name, schema in settings.items()})
