"""Writes what the catalogue takes of others: vLLM's registry and flags by engine, and transformers' defaults by family.

    python -m bench.plan.families --vllm vllm-0.11=vllm-0.11.0.whl --vllm vllm-0.33=vllm-0.33.0.whl --transformers transformers.whl

Wheels come from `pip download --no-deps`; a folder that holds an unpacked one does as well. Nothing of them is imported: everything
is read from the syntax trees, so that neither torch nor a GPU is needed. Writes data/registry.yaml, flags.yaml and families.yaml.
"""

from __future__ import annotations

import argparse
import ast
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from bench.plan import flags
from mistral_on_l4.planner.catalogue.families import FIELDS, load_architectures
from mistral_on_l4.planner.catalogue.loading import DATA

REGISTRY = "vllm/model_executor/models/registry.py"
QUANTIZATIONS = "vllm/model_executor/layers/quantization/__init__.py"
LISTS = {"QuantizationMethods": "quantizations", "DEPRECATED_QUANTIZATION_METHODS": "deprecated_quantizations"}
TABLES = {
    "_TEXT_GENERATION_MODELS": "text",
    "_MULTIMODAL_MODELS": "multimodal",
    "_TRANSFORMERS_SUPPORTED_MODELS": "transformers",
    "_PREVIOUSLY_SUPPORTED_MODELS": "previously",
}
CONFIGS = "transformers/models/"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.plan.families")
    parser.add_argument("--vllm", action="append", required=True, help="ENGINE=WHEEL, once per engine of the catalogue")
    parser.add_argument("--transformers", required=True, help="its wheel")
    given = parser.parse_args()
    engines = dict(pair.split("=", 1) for pair in given.vllm)
    registry = {engine: registered(Path(wheel)) for engine, wheel in engines.items()}
    today = datetime.now(UTC).date()
    versions = ", ".join(sorted(engines))
    _write(
        DATA / "registry.yaml",
        f"Architectures that vLLM serves and quantizations that it loads, by engine. Read from {versions} on {today}.",
        registry,
    )
    options = {engine: flags.flags_of(*flags.sources(partial(_text, Path(wheel)))) for engine, wheel in engines.items()}
    _write(
        DATA / "flags.yaml", f"What `vllm serve` takes on its command line, by engine. Read from {versions} on {today}.", options
    )
    wanted = {kind for record in load_architectures().values() for kind in record.config_types}
    defaults = {kind: values for kind, values in family_defaults(Path(given.transformers)).items() if kind in wanted}
    source = Path(given.transformers).name
    _write(DATA / "families.yaml", f"What config classes assume for fields left out. Read from {source} on {today}.", defaults)
    if missing := sorted(wanted - set(defaults)):
        print(f"no class in transformers (remote code, or an older name): {', '.join(missing)}")
    return 0


def registered(wheel: Path) -> dict[str, Any]:
    return {**architectures(_text(wheel, REGISTRY)), **quantizations(_text(wheel, QUANTIZATIONS))}


def quantizations(source: str) -> dict[str, list[str]]:
    """Names of quantization methods from the source that lists them: known ones, and those that need a flag."""
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and isinstance(target, ast.Name) and target.id in LISTS:
            texts = [each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
            found[LISTS[target.id]] = sorted(map(str, texts))
    return found


def architectures(registry: str) -> dict[str, list[str] | dict[str, str]]:
    """Names by kind from the source of vLLM's registry; of those that were served once, {name: the last version that did}."""
    found: dict[str, list[str] | dict[str, str]] = {}
    for node in ast.parse(registry).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and isinstance(node.targets[0], ast.Name):
            kind = TABLES.get(node.targets[0].id)
            pairs = {
                key.value: value
                for key, value in zip(node.value.keys, node.value.values, strict=True)
                if isinstance(key, ast.Constant)
            }
            if kind == "previously":
                found[kind] = {str(name): str(value.value) for name, value in pairs.items() if isinstance(value, ast.Constant)}
            elif kind:
                found[kind] = sorted(map(str, pairs))
    return found


def family_defaults(wheel: Path) -> dict[str, dict[str, Any]]:
    """{model_type: {field: default}} of every config class, its bases' fields included; only fields that the planner reads."""
    classes = {node.name: node for text in _texts(wheel) for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    found = {}
    for node in classes.values():
        values = _fields(node, classes)
        if kind := values.get("model_type"):
            found[str(kind)] = {name: values[name] for name in FIELDS if values.get(name) is not None}
    return dict(sorted(found.items()))


def _fields(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes and base.id != node.name:
            values |= _fields(classes[base.id], classes)
    for line in node.body:
        target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0] if isinstance(line, ast.Assign) else None
        value = line.value if isinstance(line, (ast.AnnAssign, ast.Assign)) else None
        if isinstance(target, ast.Name) and value is not None:
            values[target.id] = _literal(value)
    return values


def _literal(value: ast.expr) -> Any:
    """The value of a constant expression such as 4096 * 32; None for anything else."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):
        left, right = _literal(value.left), _literal(value.right)
        return left * right if isinstance(left, int) and isinstance(right, int) else None
    try:
        found = ast.literal_eval(value)
    except ValueError:
        return None
    return list(found) if isinstance(found, tuple) else found


def _texts(wheel: Path) -> Iterator[str]:
    if wheel.is_dir():
        paths = sorted(wheel.glob(f"{CONFIGS}*/configuration_*.py"))
        yield from (path.read_text(encoding="utf-8") for path in paths)
        return
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith(CONFIGS) and "/configuration_" in name and name.endswith(".py"):
                yield archive.read(name).decode()


def _text(wheel: Path, path: str) -> str:
    if wheel.is_dir():
        return (wheel / path).read_text(encoding="utf-8")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(path).decode()


def _write(path: Path, first: str, value: Any) -> None:
    text = yaml.safe_dump(value, sort_keys=True, width=132, default_flow_style=None)
    path.write_text(f"# {first}\n# Written by `python -m bench.plan.families`; not edited by hand.\n{text}", encoding="utf-8")
    print(f"{path.name}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    sys.exit(main())
