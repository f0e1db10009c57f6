"""What the program declares, as a blueprint: every resource, field and value that it is known to declare, and where each is from.

The blueprint is a generated file (`make blueprint`): a change of the program that declares something new changes it, and is read in
review as such. Values that depend on settings are templates over the facts of facts.py; what depends on something else is free, and
left to the rules of its own.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from policies.facts import Facts
from policies.reading import UNKNOWN

FILE = Path(__file__).with_name("blueprint.json")
# A number in a resource's name that counts what a pool or a region has of it.
COUNTED = "{n}"
_PLACEHOLDER = re.compile(r"\{([a-z][A-Za-z0-9._/-]*)\}")


@dataclass(frozen=True)
class Template:
    """A text with `{fact}` in it. One that is a single fact stands for the fact's value, whatever its type."""

    text: str

    def expand(self, facts: Facts) -> Any:
        """None where a fact is missing."""
        whole = _PLACEHOLDER.fullmatch(self.text)
        if whole:
            return facts.get(whole[1])
        if any(facts.get(name) is None for name in _PLACEHOLDER.findall(self.text)):
            return None
        return _PLACEHOLDER.sub(lambda found: str(facts[found[1]]), self.text)


FREE, SECRET = "free", "secret"


@dataclass
class Leaf:
    """What a field may hold. kind: FREE, SECRET, or "" for the values alone; always: whether every such resource has it."""

    kind: str = ""
    values: list[Any] = field(default_factory=list)
    always: bool = True

    def admits(self, value: Any, facts: Facts) -> bool:
        return value is UNKNOWN or self.kind != "" or any(same(value, expanded(known, facts)) for known in self.values)


@dataclass
class Role:
    """A resource that the program declares. name: template of its URN's name; entity: what it is for, "" for the stack.

    always: whether every stack of that platform has it; edges: roles that it depends on in every stack that has them.
    """

    name: str
    entity: str
    always: bool
    leaves: dict[str, Leaf]
    edges: tuple[str, ...] = ()


def same(value: Any, known: Any) -> bool:
    """Equal as the wire has it, which knows no integers; a quantity may be written as a number."""
    if isinstance(value, bool) or isinstance(known, bool):
        return value is known
    if isinstance(value, list) and isinstance(known, list):
        return len(value) == len(known) and all(map(same, value, known))
    return value is UNKNOWN or value == known or (known is not None and str(value) == str(known))


def expanded(known: Any, facts: Facts) -> Any:
    if isinstance(known, Template):
        return known.expand(facts)
    return [expanded(item, facts) for item in known] if isinstance(known, list) else known


# A rehearsal's charts lie in the checkout.
_REHEARSED = re.compile(r"^/.*/(embedded/charts/[a-z-]+)$")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything below inputs. Lists of named things go by name, lists of plain values are values."""
    if isinstance(value, Mapping):
        defaults = value.get("__defaults")
        given = set(defaults) if isinstance(defaults, list) and all(isinstance(name, str) for name in defaults) else set()
        if not value and path:
            yield f"{path}{{}}", {}
        for key, item in value.items():
            if key != "__defaults" and key not in given and item is not None:
                yield from leaves(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for label, item in _labelled(value):
            yield from leaves(item, f"{path}[{label}]")
    else:
        yield path, value


def _labelled(items: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        named = item.get("name") if isinstance(item, Mapping) else None
        # Something that is nothing but a name is a reference.
        label = named if isinstance(named, str) and len(item) > 1 else str(index)
        seen[label] = seen.get(label, 0) + 1
        yield (label if seen[label] == 1 else f"{label}#{seen[label]}"), item


_SECRET = "kubernetes:core/v1:Secret"


def _is_providers(token: str, path: str, value: Any) -> bool:
    """Whether the Kubernetes provider added a leaf, or takes it away, once it knows its cluster (4.25: Check of each kind).

    It names the default namespace where none is given, drops maps without entries, and gives a Release all of Helm's options, of
    which only those that are set mean anything.
    """
    if token.endswith(":helm.sh/v3:Release"):
        unset = value is not UNKNOWN and not value and "[" not in path and not path.startswith("values")
        return unset or path.partition(".")[0] in ("compat", "keyring")
    return path in ("metadata.annotations.pulumi.com/autonamed", "metadata.annotations{}", "metadata.labels{}") or (
        path == "metadata.namespace" and value == "default"
    )


def _decoded(value: Any) -> Any:
    """A Secret's text, of which the provider makes Base64. What it cannot be is left as it is."""
    if not isinstance(value, str):
        return value
    try:
        return type(value)(base64.b64decode(value, validate=True).decode())
    except ValueError:
        return value


def own_leaves(token: str, props: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The leaves of a resource's inputs that are the program's, and not its provider's or the engine's."""
    for given, held in leaves(props):
        path, value = given, held
        if token.startswith("pulumi:providers:"):
            added = path.startswith(("__", "version"))
        elif token.startswith("aws:"):
            # A name with a prefix is drawn.
            added = path.startswith("tagsAll") or f"{path}Prefix" in props
        else:
            added = _is_providers(token, path, value)
            if token == _SECRET and path.startswith("data.") and "stringData" not in props:
                path, value = f"stringData.{given.removeprefix('data.')}", _decoded(held)
        if not added:
            rehearsed = _REHEARSED.match(value) if isinstance(value, str) else None
            yield path, rehearsed[1] if rehearsed else value


def chain_of(urn: str) -> str:
    """The types of a resource and of the component around it: where in the program it is declared."""
    parts = urn.split("::")
    return "$".join(parts[2].removeprefix("pulumi:pulumi:Stack$").split("$")[-2:]) if len(parts) > 3 else ""


def name_of(urn: str) -> str:
    return urn.rpartition("::")[2]


@lru_cache(maxsize=1)
def blueprint() -> Mapping[str, Mapping[str, tuple[Role, ...]]]:
    """Platform -> chain of types -> roles."""
    document = json.loads(FILE.read_text())
    return {
        platform: {chain: tuple(_role(role) for role in roles) for chain, roles in chains.items()}
        for platform, chains in document.items()
    }


def _role(document: Mapping[str, Any]) -> Role:
    found = {path: _leaf(leaf) for path, leaf in document["fields"].items()}
    return Role(document["name"], document["for"], document["always"], found, tuple(document.get("after", ())))


def _leaf(document: Any) -> Leaf:
    always = not (isinstance(document, dict) and document.get("sometimes"))
    held = document["is"] if isinstance(document, dict) else document
    if held in (FREE, SECRET):
        return Leaf(held, [], always)
    return Leaf("", [read(item) for item in held], always)


def read(item: Any) -> Any:
    """A value of the file: {"t": text} is a template."""
    if isinstance(item, dict) and set(item) == {"t"}:
        return Template(item["t"])
    return [read(part) for part in item] if isinstance(item, list) else item


def written(item: Any) -> Any:
    if isinstance(item, Template):
        return {"t": item.text}
    return [written(part) for part in item] if isinstance(item, list) else item


def text_of(platforms: Mapping[str, Mapping[str, Sequence[Role]]]) -> str:
    """The file's content, a line for each field, so that a review shows what changed."""

    def leaf(found: Leaf) -> Any:
        held: Any = found.kind or [written(value) for value in found.values]
        return held if found.always else {"is": held, "sometimes": True}

    def whole(role: Role) -> str:
        head = {"name": role.name, "for": role.entity, "always": role.always, "after": sorted(role.edges)}
        fields = ",\n".join(f"   {_line(path)}: {_line(leaf(role.leaves[path]))}" for path in sorted(role.leaves))
        return f'  {_line(head)[:-1]}, "fields": {{\n{fields}\n  }}}}'

    def chain(roles: Sequence[Role]) -> str:
        return ",\n".join(map(whole, sorted(roles, key=lambda role: role.name)))

    platform_texts = (
        f"{_line(platform)}: {{\n" + ",\n".join(f" {_line(name)}: [\n{chain(chains[name])}\n ]" for name in sorted(chains)) + "\n}"
        for platform, chains in sorted(platforms.items())
    )
    return "{\n" + ",\n".join(platform_texts) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
