"""`make blueprint`: writes policies/blueprint.json, what the program declares, from runs of it on mocks.

Each variant of a stack runs twice, with other names, sizes and account. What is the same in both runs is the program's own; what
follows from settings is written as a template, once the template gives the second run's value too; everything else is free.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pulumi.runtime.mocks import MockResourceArgs

from bench.mutation.preview import UNKNOWN_MARK, record
from bench.mutation.variants import VARIANTS, Variant
from embedded import charts
from mistral_on_l4.config.names import REHEARSAL_CHARTS
from mistral_on_l4.config.settings import settings_of_config
from policies.blueprint import FILE, FREE, SECRET, Leaf, Role, Template, chain_of, expanded, own_leaves, same, text_of
from policies.facts import Facts, StackFacts, counted, facts_of
from policies.offline import Recording
from tests.support.account import OUTPUTS, account
from tests.support.engine import DRAWN, SIGNATURE, Engine
from tests.support.engine import SECRET as SECRET_MARK

_NAMES = re.compile(
    r"^(stack|cluster|service\.name|pool\.name|checkpoint\.name|settings\.namespaces\.\w+|settings\.registry\.name)$"
)
_COUNTED = re.compile(r"-(\d+)$")
# The zones of a region are for AWS to say.
_ZONE = re.compile(r"\b[a-z]{2}-[a-z]+-\d[a-z]$")
# What the machine gives: the local hub's address.
_ELSEWHERE = re.compile(r"\[seed-weights\]\.env\[HF_ENDPOINT\]\.value$")
# Shorter texts are found inside others by accident.
_SHORTEST = 4


@dataclass
class Salted(Engine):
    """An engine whose provider answers carry a salt, so that what depends on them differs from run to run."""

    salt: str = ""

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        identity, state = super().new_resource(args)
        given = self.outputs.get(args.typ, {})
        state |= {key: self._salted(value) for key, value in given.items()}
        if args.typ.startswith("kubernetes:") and "name" not in (args.inputs.get("metadata") or {}):
            state["metadata"]["name"] += self.salt
        return f"{identity}-{self.salt}", state

    def _salted(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._salted(item) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        # A Secret's data, and a cluster's authority, are base64.
        try:
            return base64.b64encode(base64.b64decode(value, validate=True) + self.salt.encode()).decode()
        except ValueError:
            return f"{value}{self.salt}"


def _moved_text(text: str, region: str, number: str) -> str:
    text = text.replace("us-east-1", region).replace("123456789012", number).replace("vpc-1", f"vpc-{number}")
    return text.replace("-20260714", f"-2026{number[:4]}")


def salted_account(region: str, number: str) -> Mapping[str, Any]:
    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [moved(item) for item in value]
        return _moved_text(value, region, number) if isinstance(value, str) else value

    def answer(ask: Any) -> Any:
        return lambda args: moved(ask(args))

    return {token: answer(ask) for token, ask in account(clusters=_CLUSTERS).items()}


from tests.support.account import existing  # noqa: E402

_CLUSTERS = {name: existing(name) for name in ("adopted-one", "adopted-two")}


@dataclass
class Run:
    """One run: what it declared, by chain and name, and the facts that it follows from."""

    recording: Recording
    facts: StackFacts
    by_place: dict[tuple[str, str], Any] = field(default_factory=dict)

    @classmethod
    def of(cls, variant: Variant, second: bool) -> Run:
        stack, config, region, number = variant.run(second)
        if variant.rehearsed:
            os.environ[REHEARSAL_CHARTS] = str(charts.FOLDER)
        else:
            os.environ.pop(REHEARSAL_CHARTS, None)
        engine = Salted(calls=dict(salted_account(region, number)), outputs=OUTPUTS, salt="two" if second else "one")
        recording = record(stack, config, engine)
        found = cls(recording, facts_of(settings_of_config(config, "variant"), stack))
        found.by_place = {(chain_of(resource.urn), resource.name): resource for resource in recording.resources}
        return found


@dataclass(frozen=True)
class Place:
    chain: str
    name: str
    entity: str


@dataclass
class Seen:
    """One resource in both runs, with what each knows."""

    place: Place
    first: Any
    second: Any
    facts: tuple[Facts, Facts]


def seen_in(one: Run, two: Run) -> Iterator[Seen]:
    for (chain, name), resource in one.by_place.items():
        found = list(_placed(chain, name, one, two))
        if not found:
            print(f"not found in the second run: {chain} {name}", file=sys.stderr)
            continue
        place, other, facts = found[0]
        yield Seen(place, resource, other, facts)


def _placed(chain: str, name: str, one: Run, two: Run) -> Iterator[tuple[Place, Any, tuple[Facts, Facts]]]:
    """Templates of a name that lead to a resource of the second run, the most specific first."""
    candidates: list[tuple[int, str, str, int]] = []
    for entity in ("service", "pool", "checkpoint", ""):
        for index, facts in enumerate(one.facts.bindings(entity)):
            for fact, value in facts.items():
                own = fact.startswith(f"{entity}.") if entity else not fact.startswith(("service.", "pool.", "checkpoint."))
                if _NAMES.match(fact) and own and isinstance(value, str) and value in name:
                    candidates.append((len(value), name.replace(value, f"{{{fact}}}"), entity, index))
    candidates.append((0, name, "", 0))
    for _, template, entity, index in sorted(candidates, key=lambda found: -found[0]):
        pair = [list(run.facts.bindings(entity)) for run in (one, two)]
        if index >= len(pair[1]):
            continue
        expanded_name = Template(template).expand(pair[1][index])
        other = two.by_place.get((chain, str(expanded_name)))
        if other is not None:
            number = _COUNTED.search(name)
            bound = (pair[0][index], pair[1][index])
            if number is not None:
                bound = (counted(bound[0], int(number[1])), counted(bound[1], int(number[1])))
            yield Place(chain, _COUNTED.sub("-{n}", template), entity), other, bound


def infer(first: Any, second: Any, facts: tuple[Facts, Facts]) -> Any:
    """A constant, a template, or FREE."""
    if UNKNOWN_MARK in (first, second) or (isinstance(first, str) and (_ZONE.search(first) or _given_by_mocks(first))):
        return FREE
    if same(first, second):
        return first
    one, two = facts
    for fact, value in one.items():
        if same(value, first) and same(two.get(fact), second):
            return Template(f"{{{fact}}}")
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        inner = [infer(a, b, facts) for a, b in zip(first, second, strict=True)]
        return FREE if FREE in inner else inner
    if isinstance(first, str):
        text = first
        known = [(str(value), fact) for fact, value in one.items() if isinstance(value, str) and len(value) >= _SHORTEST]
        for value, fact in sorted(known, key=lambda found: -len(found[0])):
            if value != str(two.get(fact)):
                text = text.replace(value, f"{{{fact}}}")
        if "n" in one:
            text = _COUNTED.sub("-{n}", text)
        if same(Template(text).expand(two), second) and same(Template(text).expand(one), first):
            return Template(text)
    return FREE


def _given_by_mocks(value: str) -> bool:
    """What a cluster gives, and the recording engine in its place: another one in every stack."""
    return value.startswith("uid-of-") or DRAWN in value


def is_secret(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get(SIGNATURE) == SECRET_MARK


def marked_leaves(resource: Any) -> Iterator[tuple[str, Any]]:
    """Leaves, with SECRET_MARK for what is secret as a whole or below it."""

    def without(item: Any) -> Any:
        if is_secret(item):
            return _all_secret(item["value"])
        if isinstance(item, Mapping):
            return {key: without(inner) for key, inner in item.items()}
        return [without(inner) for inner in item] if isinstance(item, list) else item

    yield from own_leaves(resource.token, without(resource.props))


def _all_secret(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _all_secret(item) for key, item in value.items()}
    return [_all_secret(item) for item in value] if isinstance(value, list) else SECRET_MARK


def blueprint_of(variants: tuple[Variant, ...]) -> dict[str, list[Role]]:
    roles: dict[Place, Role] = {}
    instances: dict[Place, int] = {}
    present: dict[Place, int] = {}
    edges: dict[Place, set[str]] = {}
    held: dict[Place, dict[str, int]] = {}
    for variant in variants:
        one, two = Run.of(variant, False), Run.of(variant, True)
        everything = list(seen_in(one, two))
        places = {seen.first.urn: seen.place for seen in everything}
        for place in {seen.place for seen in everything}:
            present[place] = present.get(place, 0) + 1
        for seen in everything:
            role = roles.setdefault(seen.place, Role(seen.place.name, seen.place.entity, True, {}))
            instances[seen.place] = instances.get(seen.place, 0) + 1
            after = {f"{places[urn].chain}::{places[urn].name}" for urn in seen.first.depends_on if urn in places}
            edges[seen.place] = edges[seen.place] & after if seen.place in edges else after
            _learn(role, seen, held.setdefault(seen.place, {}))
    for place, role in roles.items():
        role.always = present[place] == len(variants)
        role.edges = tuple(edges[place])
        for path, leaf in role.leaves.items():
            leaf.always = held[place][path] == instances[place]
    chains: dict[str, list[Role]] = {}
    for place, role in roles.items():
        chains.setdefault(place.chain, []).append(role)
    return chains


def _learn(role: Role, seen: Seen, held: dict[str, int]) -> None:
    token = seen.first.token
    if token.startswith("mistral-on-l4:"):
        return  # a component has nothing of its own
    first, second = dict(marked_leaves(seen.first)), dict(marked_leaves(seen.second))
    for path, value in first.items():
        if path == "metadata.name" and DRAWN in str(value):
            continue
        held[path] = held.get(path, 0) + 1
        leaf = role.leaves.setdefault(path, Leaf())
        if value == SECRET_MARK:
            leaf.kind = SECRET
        elif leaf.kind == "":
            found = infer(value, second[path], seen.facts) if path in second and not _ELSEWHERE.search(path) else FREE
            if found == FREE:
                leaf.kind, leaf.values = FREE, []
            elif not any(
                same(expanded(known, seen.facts[0]), value) and same(expanded(known, seen.facts[1]), second[path])
                for known in leaf.values
            ):
                leaf.values.append(found)


def main() -> int:
    platforms = {platform: blueprint_of(variants) for platform, variants in VARIANTS.items()}
    FILE.write_text(text_of(platforms))
    roles = [role for chains in platforms.values() for found in chains.values() for role in found]
    fields = [leaf for role in roles for leaf in role.leaves.values()]
    free = sum(leaf.kind == FREE for leaf in fields)
    print(f"{FILE}: {len(roles)} resources, {len(fields)} fields, {free} of them free")
    return 0


if __name__ == "__main__":
    sys.exit(main())
