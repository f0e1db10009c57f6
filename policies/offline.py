"""Runs the pack over recorded resources, without engine, plugins or cluster: for tests, the mutation bench and rule writers.

A recording is JSON: {"stack", "source", "config", "resources": [{"token", "name", "urn", "parent", "provider", "props"}]}, made by
`tests/unit/policies/record.py` from the event stream of a real preview.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyCustomTimeouts,
    PolicyProviderResource,
    PolicyResource,
    PolicyResourceOptions,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.deserialize import deserialize_properties
from pulumi_policy.proxy import unknown_checking_proxy

from policies.pack import POLICIES
from policies.rule import forget_inputs


@dataclass(frozen=True)
class Declared:
    """A resource as a program declared it in a preview. provider: URN of its provider resource, "" for none."""

    token: str
    name: str
    urn: str
    props: Mapping[str, Any]
    parent: str = ""
    provider: str = ""
    depends_on: tuple[str, ...] = ()
    protect: bool = False


@dataclass(frozen=True)
class Recording:
    """What one preview declared. config: the stack's configuration, which no policy is shown."""

    stack: str
    resources: tuple[Declared, ...]
    config: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def read(cls, path: Path) -> Recording:
        document = json.loads(path.read_text())
        resources = tuple(
            Declared(**{**resource, "depends_on": tuple(resource.get("depends_on", ()))}) for resource in document["resources"]
        )
        return cls(document["stack"], resources, document["config"], document["source"])

    def document(self) -> dict[str, Any]:
        return {
            "stack": self.stack,
            "source": self.source,
            "config": dict(self.config),
            "resources": [vars(resource) for resource in self.resources],
        }


@dataclass(frozen=True)
class Finding:
    """One violation. urn: None when it is about the stack as a whole."""

    policy: str
    level: str
    message: str
    urn: str | None

    @property
    def mandatory(self) -> bool:
        return self.level == EnforcementLevel.MANDATORY.value


def analyze(
    recording: Recording,
    policies: Sequence[Policy] = POLICIES,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """Every violation, as a preview would report it. settings: of policies by name, as in --policy-pack-config."""
    forget_inputs()
    # As the engine does: every resource meets the resource policies, then the whole stack meets the others.
    ordered = sorted(policies, key=lambda policy: isinstance(policy, StackValidationPolicy))
    resources = as_the_engine_shows(recording)
    return [finding for policy in ordered for finding in _run(policy, resources, (settings or {}).get(policy.name, {}))]


def _run(policy: Policy, resources: list[PolicyResource], settings: Mapping[str, Any]) -> Iterator[Finding]:
    found: list[tuple[str, str | None]] = []

    def report_on(own: str | None) -> ReportViolation:
        def report(message: str, urn: str | None = None) -> None:
            found.append((message, urn or own))

        return report

    if isinstance(policy, ResourceValidationPolicy):
        for known in resources:
            args = ResourceValidationArgs(
                known.resource_type, known.props, known.urn, known.name, known.opts, known.provider, settings
            )
            policy.validate(args, report_on(known.urn))
    elif isinstance(policy, StackValidationPolicy):
        policy.validate(StackValidationArgs(resources, settings), report_on(None))
    level = policy.enforcement_level or EnforcementLevel.ADVISORY
    return (Finding(policy.name, level.value, text, urn) for text, urn in found)


def as_the_engine_shows(recording: Recording) -> list[PolicyResource]:
    """The resources as pulumi_policy hands them to a stack policy that sees inputs."""
    by_urn = {resource.urn: resource for resource in recording.resources}
    providers = {urn: _provider(by_urn[urn]) for urn in {resource.provider for resource in recording.resources} if urn in by_urn}
    shown = {
        resource.urn: PolicyResource(
            resource.token,
            _props(resource),
            resource.urn,
            resource.name,
            _options(resource),
            providers.get(resource.provider),
            None,
            [],
            {},
        )
        for resource in recording.resources
    }
    for resource in recording.resources:
        shown[resource.urn].dependencies.extend(shown[urn] for urn in resource.depends_on if urn in shown)
    return list(shown.values())


def _props(resource: Declared) -> Mapping[str, Any]:
    """As pulumi_policy hands them to a policy: secrets unwrapped, unknowns raising when touched."""
    props: Mapping[str, Any] = unknown_checking_proxy(deserialize_properties(copy.deepcopy(dict(resource.props))))
    return props


def _provider(resource: Declared) -> PolicyProviderResource:
    return PolicyProviderResource(resource.token, _props(resource), resource.urn, resource.name)


def _options(resource: Declared) -> PolicyResourceOptions:
    return PolicyResourceOptions(resource.protect, [], None, [], PolicyCustomTimeouts(0, 0, 0), [], resource.parent or None)
