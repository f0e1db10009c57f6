"""Rules that refuse what nobody foresaw: a resource, field or value that the blueprint does not have, and what of it is missing.

The rules of the other modules know what goes wrong and why; these know what the program declares, and let nothing else through
without somebody's word. Each has a setting for what is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pulumi_policy import Severity

from mistral_on_l4.config.names import DECLARATION
from mistral_on_l4.config.settings import SettingsError
from mistral_on_l4.planner import PlanError
from policies.blueprint import COUNTED, FREE, SECRET, Role, Template, blueprint, chain_of, expanded, name_of, own_leaves
from policies.facts import Facts, StackFacts, counted, facts_of
from policies.reading import UNKNOWN, SecretText, at, plain
from policies.rule import Resource, Stack, StackFinding, stack_rule
from policies.served import ServedStack

_COUNT = re.compile(r"-\d+$")
# What every stack has and no program declares: itself, and the provider of Pulumi's own types.
_ENGINES_OWN = re.compile(r"pulumi:pulumi:Stack$|pulumi:providers:pulumi$")
_LONGEST = 80


@dataclass(frozen=True)
class Known:
    """A resource of the stack, and what it is in the blueprint."""

    resource: Resource
    role: Role
    facts: Facts


@dataclass
class Comparison:
    """A stack beside the blueprint. Everything is (resource, path or name, sentence)."""

    known: list[Known] = field(default_factory=list)
    strangers: list[Resource] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


def compare(stack: Stack) -> Comparison | None:
    """None where the stack hands no settings over, or such as cannot be planned: other rules say so."""
    served = ServedStack(stack)
    settings = served.configured
    if settings is None or settings.platform.value not in blueprint():
        return None
    name = stack_name(stack)
    try:
        facts = facts_of(settings, name)
    except (PlanError, SettingsError):
        return None
    return _compared(stack.resources, settings.platform.value, facts)


def stack_name(stack: Stack) -> str:
    return next((str(at(declaration.props, "stack")) for declaration in stack.of(DECLARATION)), "")


def _compared(resources: Sequence[Resource], platform: str, facts: StackFacts) -> Comparison:
    roles = blueprint()[platform]
    places = {(chain, name): (role, bound) for chain, name, role, bound in _places(roles, facts)}
    found = Comparison()
    here = set()
    for resource in resources:
        if _ENGINES_OWN.match(resource.token) or resource.token == DECLARATION:
            continue
        chain, name = chain_of(resource.urn), name_of(resource.urn)
        place = places.get((chain, name)) or places.get((chain, _COUNT.sub(f"-{COUNTED}", name)))
        if place is not None:
            role, facts_here = place
            number = _COUNT.search(name) if COUNTED in role.name else None
            found.known.append(Known(resource, role, counted(facts_here, int(number[0][1:])) if number else facts_here))
            here |= {(chain, name), (chain, _COUNT.sub(f"-{COUNTED}", name))}
        elif resource.is_kubernetes or resource.is_aws or not resource.token.startswith("mistral-on-l4:"):
            found.strangers.append(resource)
    for (chain, name), (role, _) in places.items():
        if role.always and (chain, name) not in here and not chain.rpartition("$")[2].startswith("mistral-on-l4:"):
            found.missing.append((chain.rpartition(":")[2], name))
    return found


def _places(roles: Mapping[str, Sequence[Role]], facts: StackFacts) -> Iterator[tuple[str, str, Role, Facts]]:
    for chain, known in roles.items():
        for role in known:
            for bound in facts.bindings(role.entity):
                name = Template(role.name.replace(COUNTED, "\0")).expand(bound)
                if isinstance(name, str):
                    yield chain, name.replace("\0", COUNTED), role, bound


def _allowed(stack: Stack, *texts: str) -> bool:
    """Whether a policy's setting `also` names it: regular expressions of KIND/NAME, or of KIND/NAME PATH."""
    return any(re.fullmatch(str(pattern), text) for pattern in stack.config["also"] for text in texts)


def _also(what: str) -> dict[str, Any]:
    return {"also": {"type": "array", "items": {"type": "string"}, "description": f"Regular expressions of {what}", "default": []}}


def _short(resource: Resource) -> str:
    name = resource.meta.get("name")
    return f"{resource.token.rpartition(':')[2]}/{name if isinstance(name, str) else resource.name}"


@stack_rule(
    "stack-declares-its-settings",
    why="Policies know of a stack what its resources say: without its settings budget, region and names cannot be judged.",
    fix="let the program hand over its settings (components/declaration.py), as the shipped one does",
    severity=Severity.HIGH,
)
def stack_declares_its_settings(stack: Stack) -> Iterator[StackFinding]:
    if not any(resource.is_kubernetes or resource.is_aws for resource in stack.resources):
        return
    served = ServedStack(stack)
    if served.configured is None:
        yield "the stack hands over no settings that can be read", None
        return
    for declaration in stack.of(DECLARATION):
        told = at(declaration.props, "plan", "services")
        try:
            services = facts_of(served.configured, stack_name(stack)).entities["service"]
        except PlanError as error:
            yield f"the settings cannot be planned: {error}", None
            return
        planned = {facts["service.name"]: facts["service.args"] for facts in services}
        if isinstance(told, Mapping) and UNKNOWN not in told.values() and dict(told) != planned:
            other = sorted(name for name in {*told, *planned} if told.get(name) != planned.get(name))
            yield f"the program planned {', '.join(other)} otherwise than the planner does", None


@stack_rule(
    "resources-are-known",
    why="A resource that nobody foresaw is judged by no rule: it may bill, open a door or hold a right unseen.",
    fix="remove it; what is meant goes into the blueprint (`make blueprint`) in a reviewed change, or into this policy's 'also'",
    severity=Severity.HIGH,
    settings=_also("KIND/NAME of resources that are meant"),
)
def resources_are_known(stack: Stack) -> Iterator[StackFinding]:
    found = compare(stack)
    for resource in found.strangers if found else ():
        if not _allowed(stack, _short(resource)):
            yield f"{resource.label}: the program declares no such {resource.token} here", resource.urn


@stack_rule(
    "nothing-declared-is-missing",
    why="What every stack of the program has is there for a reason: a guard, a claim, a seed, an account that a Job needs.",
    fix="declare it again; if the program no longer needs it, write the blueprint again (`make blueprint`)",
    severity=Severity.HIGH,
    settings=_also("KIND/NAME of resources, or KIND/NAME PATH of fields, that may be absent"),
)
def nothing_declared_is_missing(stack: Stack) -> Iterator[StackFinding]:
    found = compare(stack)
    if found is None:
        return
    for kind, name in found.missing:
        if not _allowed(stack, f"{kind}/{name}"):
            yield f"{kind} {name} is not declared", None
    for known in found.known:
        present = {path for path, _ in _paths(known.resource)}
        unknown = {path for path, value in _paths(known.resource) if value is UNKNOWN}
        for path, leaf in known.role.leaves.items():
            hidden = any(path == whole or path.startswith((f"{whole}.", f"{whole}[", f"{whole}{{")) for whole in unknown)
            # A preview does not know yet what only a cluster gives, and drops it from a map.
            given = leaf.kind == FREE and ".annotations." in path
            absent = leaf.always and path not in present and not (hidden or given or _is_secret_part(known, path))
            if absent and not _allowed(stack, f"{_short(known.resource)} {path}"):
                yield f"{known.resource.label}: {path} is not set", known.resource.urn


# By URN: the inputs, and what lies in them. Four rules walk the same inputs.
_walked: dict[str, tuple[Mapping[str, Any], list[tuple[str, Any]]]] = {}


def _paths(resource: Resource) -> list[tuple[str, Any]]:
    known = _walked.get(resource.urn)
    if known is None or known[0] is not resource.props:
        found = list(own_leaves(resource.token, resource.props))
        known = _walked[resource.urn] = (resource.props, found)
    return known[1]


def _is_secret_part(known: Known, path: str) -> bool:
    """A Secret's map that is hidden as a whole, as event streams write it."""
    return any(path.startswith(f"{whole}.") and value == "[secret]" for whole, value in _paths(known.resource))


@stack_rule(
    "fields-are-known",
    why="A field that nobody foresaw is read by Kubernetes or AWS and by no rule here: a container more, a volume, a transformer.",
    fix="remove it; what is meant goes into the blueprint (`make blueprint`) in a reviewed change, or into this policy's 'also'",
    severity=Severity.HIGH,
    settings=_also("KIND/NAME PATH of fields that are meant"),
)
def fields_are_known(stack: Stack) -> Iterator[StackFinding]:
    found = compare(stack)
    for known in found.known if found else ():
        for path, value in _paths(known.resource):
            if path in known.role.leaves or value is UNKNOWN or _drawn(path) or value == "[secret]":
                continue
            if not _allowed(stack, f"{_short(known.resource)} {path}"):
                yield f"{known.resource.label}: the program sets no {path} here", known.resource.urn


def _drawn(path: str) -> bool:
    """A name that the provider draws where the program gives none."""
    return path == "metadata.name"


@stack_rule(
    "values-follow-the-settings",
    why="A value that neither the program nor the stack's settings give was put there by somebody, and no plan knows of it.",
    fix="set it where it comes from (the stack file, or the program with `make blueprint`), or name it in this policy's 'also'",
    severity=Severity.HIGH,
    settings=_also("KIND/NAME PATH of fields that may hold other values"),
)
def values_follow_the_settings(stack: Stack) -> Iterator[StackFinding]:
    found = compare(stack)
    for known in found.known if found else ():
        for path, value in _paths(known.resource):
            leaf = known.role.leaves.get(path)
            if leaf is None or leaf.admits(value, known.facts) or _allowed(stack, f"{_short(known.resource)} {path}"):
                continue
            wanted = [expanded(item, known.facts) for item in leaf.values]
            says = " or ".join(dict.fromkeys(_shown(path, item) for item in wanted if item is not None)) or "otherwise"
            yield f"{known.resource.label}: {path} is {_shown(path, value)}, where the program has {says}", known.resource.urn


def _shown(path: str, value: Any) -> str:
    """A value for people, who see it in logs: nothing that may be a secret, nothing long."""
    from policies.confidential import secret_in

    text = value if isinstance(value, str) else repr(plain(value))
    if isinstance(value, SecretText) or secret_in(re.sub(r"\W+$", "", path).rpartition(".")[2], str(value)):
        return "another value"
    text = " ".join(text.split())
    return repr(text) if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]!r}…"


@stack_rule(
    "graph-keeps-its-order",
    why="An edge of the graph is what lets weights be there before the service, and the service go before its node on destroy.",
    fix="put the dependency back (depends_on, parent), take retain_on_delete and protect away, or name it in this policy's 'also'",
    severity=Severity.HIGH,
    settings=_also("KIND/NAME of resources that are kept on destroy, or KIND/NAME -> KIND of edges that may be absent"),
)
def graph_keeps_its_order(stack: Stack) -> Iterator[StackFinding]:
    found = compare(stack)
    if found is None:
        return
    for resource in stack.resources:
        if resource.protect and not _allowed(stack, _short(resource)):
            yield f"{resource.label}: is protected, so that destroy stops there and everything goes on billing", resource.urn
    by_name = {resource.name: resource for resource in stack.resources}
    for declaration in stack.of(DECLARATION):
        for name in at(declaration.props, "kept") or ():
            kept = by_name.get(str(name))
            if kept is not None and not kept.protect and not _allowed(stack, _short(kept)):
                yield f"{kept.label}: stays when the stack is destroyed (retain_on_delete), and bills or holds its name", kept.urn
    if not any(resource.depends_on for resource in stack.resources):
        return  # a recording of an event stream, which has no edges
    places: dict[str, set[str]] = {}
    for known in found.known:
        places.setdefault(f"{chain_of(known.resource.urn)}::{known.role.name}", set()).add(known.resource.urn)
    for known in found.known:
        for edge in known.role.edges:
            wanted = _ends(edge, known, places)
            if wanted and not wanted & set(known.resource.depends_on):
                kind = edge.rpartition("::")[0].rpartition(":")[2]
                if not _allowed(stack, f"{_short(known.resource)} -> {kind}"):
                    first = sorted(name_of(urn) for urn in wanted)[0]
                    yield f"{known.resource.label}: no longer depends on {kind} {first}", known.resource.urn


def _ends(edge: str, known: Known, places: Mapping[str, set[str]]) -> set[str]:
    """The resources at the other end of an edge: of the same service or pool, where it is for one."""
    urns = places.get(edge, set())
    name = Template(edge.rpartition("::")[2].replace(COUNTED, "\0")).expand(known.facts)
    if not isinstance(name, str):
        return urns
    pattern = re.compile(re.escape(name).replace("\0", r"\d+"))
    return {urn for urn in urns if pattern.fullmatch(name_of(urn))} or urns


@stack_rule(
    "secrets-stay-secret",
    why="A secret that Pulumi does not know as one stands in clear in the state, in every preview and in the comment.",
    fix="make the value a secret (pulumi.Output.secret, or the StackSecrets component)",
    severity=Severity.CRITICAL,
    settings=_also("KIND/NAME PATH of fields that may be plain"),
)
def secrets_stay_secret(stack: Stack) -> Iterator[StackFinding]:
    if not SecretText.seen:
        return  # shown without secrets' marks, as by an older recording
    found = compare(stack)
    for known in found.known if found else ():
        for path, value in _paths(known.resource):
            leaf = known.role.leaves.get(path)
            bare = isinstance(value, str) and not isinstance(value, SecretText) and value not in ("", "[secret]")
            secret = leaf is not None and leaf.kind == SECRET
            if secret and bare and not _allowed(stack, f"{_short(known.resource)} {path}"):
                yield f"{known.resource.label}: {path} is plain, and Pulumi would show it", known.resource.urn


POLICIES = (
    stack_declares_its_settings,
    resources_are_known,
    fields_are_known,
    values_follow_the_settings,
    nothing_declared_is_missing,
    graph_keeps_its_order,
    secrets_stay_secret,
)
