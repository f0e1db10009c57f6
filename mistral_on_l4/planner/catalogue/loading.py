"""Reads the catalogue's YAML files into checked, frozen records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mistral_on_l4.planner.catalogue.schema import Architecture, Catalogue, Record

DATA = Path(__file__).parent / "data"
FILES = ("sources", "models", "gpus", "instances", "engines", "stack")

# The C loader reads the same YAML several times faster; a PyYAML built without libyaml has only the other.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class CatalogueError(Exception):
    """A catalogue file is malformed, or a number in it has no source. One line."""


@cache
def load_catalogue(folder: Path = DATA) -> Catalogue:
    """Reads and checks all files of a folder, once per process. Raises CatalogueError."""
    tables = {name: yaml.load((folder / f"{name}.yaml").read_text(), Loader=_Loader) for name in FILES}
    stack = {key: value for key, value in tables["stack"].items() if key != "sources"}
    try:
        catalogue = Catalogue(
            sources=tables["sources"]["sources"],
            models=tables["models"]["models"],
            gpus=tables["gpus"]["gpus"],
            instances=tables["instances"]["instances"],
            default_engine=tables["engines"]["default"],
            platform_engines=tables["engines"]["platforms"],
            engines=tables["engines"]["engines"],
            **stack,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CatalogueError(f"catalogue: {where}: {first['msg']}") from None
    for name, engine in catalogue.engines.items():
        if engine.cpu_offload_source not in catalogue.sources:
            raise CatalogueError(f"catalogue: engines.{name}.cpu_offload has no known source")
    if missing := unsourced(catalogue, {name: tables[name].get("sources", {}) for name in FILES if name != "sources"}):
        raise CatalogueError(f"catalogue: {missing[0]} has no known source")
    return catalogue


def unsourced(catalogue: Catalogue, defaults: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Paths of the numbers whose source is missing or not among the sources. `defaults` are the columns' sources per file."""
    homes: dict[str, tuple[str, Any]] = {
        "models": ("models", catalogue.models),
        "gpus": ("gpus", catalogue.gpus),
        "instances": ("instances", catalogue.instances),
        "engines": ("engines", catalogue.engines),
        "prices": ("stack", catalogue.prices),
        "reserved": ("stack", catalogue.reserved),
    }
    for name in ("system_nodes", "rates", "local_minutes", "host", "calibration"):
        homes[name] = ("stack", getattr(catalogue, name))
    return [
        path
        for table, (file, records) in homes.items()
        for path, source in _sources_of(table, records, defaults[file])
        if source not in catalogue.sources
    ]


def _sources_of(path: str, value: Any, inherited: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    if isinstance(value, Architecture):
        yield path, inherited.get("architecture")
    elif isinstance(value, Record):
        inherited = {**inherited, **value.sources}
        for name in value.numbers():
            yield f"{path}.{name}", inherited.get(name)
        for name in value.model_fields_set - {"sources"}:
            yield from _sources_of(f"{path}.{name}", getattr(value, name), inherited)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, BaseModel):
                yield from _sources_of(f"{path}.{key}", item, inherited)
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            if isinstance(item, Record):
                yield from _sources_of(f"{path}.{number}", item, inherited)
