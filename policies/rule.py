"""How a rule is written: a function that yields one sentence per violation, with its severity, reason, fix and settings.

@resource_rule("jobs-have-deadlines", why=..., fix=..., severity=Severity.MEDIUM)
def jobs_have_deadlines(resource: Resource) -> Iterator[str]: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Required, TypedDict, Unpack

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

from policies.reading import SecretText, mapping, plain

MANDATORY = EnforcementLevel.MANDATORY
ADVISORY = EnforcementLevel.ADVISORY


@dataclass(frozen=True)
class Resource:
    """One resource as the program declares it. props: its inputs; provider: its provider's; config: the rule's settings.

    depends_on: URNs, which only stack rules are shown; protect: whether it stops a destroy.
    """

    token: str
    name: str
    urn: str
    props: Mapping[str, Any]
    provider: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    protect: bool = False

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
    SecretText.seen = False


# A violation: the sentence, and the resource it is about (None: the one that was asked about, or the stack as a whole).
StackFinding = tuple[str, str | None]
SettingSchemas = Mapping[str, Mapping[str, Any]]
ResourceCheck = Callable[[Resource], Iterable[str]]
StackCheck = Callable[[Stack], Iterable[StackFinding]]


class About(TypedDict, total=False):
    """What a rule says of itself. settings: JSON schema by name, each with its default."""

    why: Required[str]
    fix: Required[str]
    severity: Required[Severity]
    level: EnforcementLevel
    settings: SettingSchemas


def resource_rule(name: str, **about: Unpack[About]) -> Callable[[ResourceCheck], ResourceValidationPolicy]:
    """Makes a policy of a check of single resources."""

    def build(check: ResourceCheck) -> ResourceValidationPolicy:
        def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
            provider = plain(args.provider.props) if args.provider else {}
            settings = _with_defaults(args.get_config(), about)
            resource = Resource(args.resource_type, args.name, args.urn, plain(args.props), provider, settings)
            _inputs[args.urn] = resource
            _report(((text, None) for text in check(resource)), report, about)

        return ResourceValidationPolicy(validate=validate, **_described(name, about))

    return build


def stack_rule(name: str, **about: Unpack[About]) -> Callable[[StackCheck], StackValidationPolicy]:
    """Makes a policy of a check of the whole stack."""

    def build(check: StackCheck) -> StackValidationPolicy:
        def validate(args: StackValidationArgs, report: ReportViolation) -> None:
            stack = Stack(tuple(map(_resource, args.resources)), _with_defaults(args.get_config(), about))
            _report(check(stack), report, about)

        return StackValidationPolicy(validate=validate, **_described(name, about))

    return build


def _report(findings: Iterable[StackFinding], report: ReportViolation, about: About) -> None:
    for text, urn in findings:
        report(f"{text}. Fix: {about['fix']}", urn)


def _described(name: str, about: About) -> dict[str, Any]:
    """What the constructors of both kinds of policies take alike."""
    schemas = about.get("settings")
    return {
        "name": name,
        "description": about["why"],
        "enforcement_level": about.get("level", MANDATORY),
        "severity": about["severity"],
        "remediation_steps": about["fix"],
        "config_schema": PolicyConfigSchema({key: dict(schema) for key, schema in schemas.items()}) if schemas else None,
    }


def _resource(found: PolicyResource) -> Resource:
    depends_on, protect = tuple(other.urn for other in found.dependencies), bool(found.opts.protect)
    if known := _inputs.get(found.urn):
        return replace(known, depends_on=depends_on, protect=protect)
    provider = plain(found.provider.props) if found.provider else {}
    props = plain(found.props)
    return Resource(found.resource_type, found.name, found.urn, props, provider, {}, depends_on, protect)


def _with_defaults(given: Mapping[str, Any] | None, about: About) -> Mapping[str, Any]:
    schemas = about.get("settings", {})
    defaults = {name: schema["default"] for name, schema in schemas.items() if "default" in schema}
    return {**defaults, **plain(given or {})}
