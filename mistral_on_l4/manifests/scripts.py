"""The jobs' source files: which of them a job needs, and how a ConfigMap brings them into a pod as a package.

A ConfigMap's keys hold no "/", so a file has its path as a key with dots instead, and the volume's items put it back in its place.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

from mistral_on_l4 import jobs

_CHECKOUT = Path(jobs.__file__).parents[2]
_PACKAGE, _, _ = jobs.__name__.partition(".")
# The API server takes no larger ConfigMap; the object around the files needs some of it too.
MOST_BYTES = 2**20 - 2**12


@dataclass(frozen=True)
class Sources:
    """A job's files. module: what `python -m` starts; files: path below the folder on Python's path -> text."""

    module: str
    files: Mapping[str, str]

    @property
    def data(self) -> dict[str, str]:
        """For a ConfigMap: key -> text."""
        return {_key(path): text for path, text in self.files.items()}

    @property
    def items(self) -> list[dict[str, str]]:
        """For the ConfigMap's volume: which key goes to which path."""
        return [{"key": _key(path), "path": path} for path in self.files]

    def lay_out(self, folder: Path) -> None:
        """Writes the files as the volume has them. Nothing that is there already is taken away."""
        for path, text in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")


def sources(job: str) -> Sources:
    """The module `mistral_on_l4.jobs.<job>` with every module of ours that it imports, found by reading their imports.

    Raises FileNotFoundError for a name that is no job, ValueError where the files are too large for a ConfigMap.
    """
    module = f"{jobs.__name__}.{job}"
    if _file(module) is None:
        raise FileNotFoundError(f"{module} is no module: the jobs are in {Path(jobs.__file__).parent}")
    texts: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(name)
        # `from package import name` may name a function as well as a module.
        if file is None or (path := file.relative_to(_CHECKOUT).as_posix()) in texts:
            continue
        texts[path] = file.read_text(encoding="utf-8")
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [imported for imported in _imports(texts[path], package) if imported.partition(".")[0] == _PACKAGE]
        # Python imports a module's packages before the module.
        waiting += [name.rpartition(".")[0]] if "." in name else []
    size = sum(len(path) + len(text.encode()) for path, text in texts.items())
    if size > MOST_BYTES:
        raise ValueError(f"the files of {module} have {size} bytes, and a ConfigMap takes {MOST_BYTES}")
    return Sources(module, dict(sorted(texts.items())))


@cache
def _imports(text: str, package: str) -> tuple[str, ...]:
    """Names that a file imports, of modules or of what is in them, wherever in the file the import stands.

    Kept, because every job of a stack asks for nearly the same files.
    """
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(found)


def _file(module: str) -> Path | None:
    base = _CHECKOUT.joinpath(*module.split("."))
    return next((file for file in (base / "__init__.py", base.with_name(f"{base.name}.py")) if file.is_file()), None)


def _key(path: str) -> str:
    return path.replace("/", ".")
