"""How a rule is written: a function that yields one sentence per violation, with its severity, reason, fix and settings.

@resource_rule("jobs-have-deadlines", why=..., fix=..., severity=Severity.MEDIUM)
def jobs_have_deadlines(resource: Resource) -> Iterator[str]: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from pulumi_policy import (
    EnforcementLevel,
    Policy,
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


# A violation: the sentence, and the resource it is about (None: the one that was asked about, or the stack as a whole).
StackFinding = tuple[str, str | None]
SettingSchemas = Mapping[str, Mapping[str, Any]]
ResourceCheck = Callable[[Resource], Iterable[str]]
StackCheck = Callable[[Stack], Iterable[StackFinding]]

Check = TypeVar("Check", ResourceCheck, StackCheck)
Args = TypeVar("Args", ResourceValidationArgs, StackValidationArgs)
Made = TypeVar("Made", ResourceValidationPolicy, StackValidationPolicy)
Args_co = TypeVar("Args_co", bound=ResourceValidationArgs | StackValidationArgs, covariant=True)
Made_co = TypeVar("Made_co", bound=Policy, covariant=True)


class _Constructor(Protocol[Args_co, Made_co]):
    """What the constructors of both kinds of policies take alike."""

    def __call__(
        self,
        *,
        name: str,
        description: str,
        validate: Callable[[Args_co, ReportViolation], None],
        enforcement_level: EnforcementLevel,
        severity: Severity,
        remediation_steps: str,
        config_schema: PolicyConfigSchema | None,
    ) -> Made_co: ...


@dataclass(frozen=True)
class _Rule(Generic[Check, Args, Made]):
    """A decorator that makes a policy of a check. run: the check's findings, given what the engine shows and the settings."""

    policy: _Constructor[Args, Made]
    run: Callable[[Check, Args, Mapping[str, Any]], Iterable[StackFinding]]

    def __call__(
        self,
        name: str,
        *,
        why: str,
        fix: str,
        severity: Severity,
        level: EnforcementLevel = MANDATORY,
        settings: SettingSchemas | None = None,
    ) -> Callable[[Check], Made]:
        """settings: JSON schema by name, each with its default."""

        def build(check: Check) -> Made:
            def validate(args: Args, report: ReportViolation) -> None:
                for text, urn in self.run(check, args, _with_defaults(args.get_config(), settings)):
                    report(f"{text}. Fix: {fix}", urn)

            return self.policy(
                name=name,
                description=why,
                validate=validate,
                enforcement_level=level,
                severity=severity,
                remediation_steps=fix,
                config_schema=_schema(settings),
            )

        return build


def _on_resource(check: ResourceCheck, args: ResourceValidationArgs, config: Mapping[str, Any]) -> Iterator[StackFinding]:
    provider = plain(args.provider.props) if args.provider else {}
    resource = Resource(args.resource_type, args.name, args.urn, plain(args.props), provider, config)
    _inputs[args.urn] = resource
    return ((text, None) for text in check(resource))


def _on_stack(check: StackCheck, args: StackValidationArgs, config: Mapping[str, Any]) -> Iterable[StackFinding]:
    return check(Stack(tuple(_resource(found) for found in args.resources), config))


# A policy over single resources, and one over the whole stack.
resource_rule = _Rule(ResourceValidationPolicy, _on_resource)
stack_rule = _Rule(StackValidationPolicy, _on_stack)


def _resource(found: PolicyResource) -> Resource:
    if found.urn in _inputs:
        return _inputs[found.urn]
    provider = plain(found.provider.props) if found.provider else {}
    return Resource(found.resource_type, found.name, found.urn, plain(found.props), provider)


def _with_defaults(given: Mapping[str, Any] | None, settings: SettingSchemas | None) -> Mapping[str, Any]:
    defaults = {name: schema["default"] for name, schema in (settings or {}).items() if "default" in schema}
    return {**defaults, **plain(given or {})}


def _schema(settings: SettingSchemas | None) -> PolicyConfigSchema | None:
    if not settings:
        return None
    return PolicyConfigSchema(properties={name: dict(schema) for name, schema in settings.items()})
