"""A Pulumi program without resources that imports the SDK classes of the shipped one: what a preview costs at least."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from embedded.home import CHECKOUT

_SDKS = ("pulumi", "pulumi_aws", "pulumi_kubernetes")
_PLATFORMS = "components.platforms"


def write_empty_program(folder: Path, platform: str) -> None:
    """platform: name of the platform's module, whose imports are followed; other platforms' are not."""
    folder.mkdir(exist_ok=True)
    (folder / "Pulumi.yaml").write_text("name: empty\nruntime: python\n")
    imports = sorted(set(_sdk_imports("__main__", platform, set())))
    (folder / "__main__.py").write_text("\n".join(["import pulumi", *imports]) + "\n")


def _sdk_imports(module: str, platform: str, seen: set[str]) -> Iterator[str]:
    """Import statements of the SDKs' modules, of a module of the program and of those that it imports."""
    file = _file(module)
    if module in seen or file is None:
        return
    seen.add(module)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.partition(".")[0] in _SDKS:
                    yield f"import {name.name}"
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.partition(".")[0] in _SDKS:
                yield from (f"from {node.module} import {name.name}" for name in node.names)
            elif not (node.module.startswith(f"{_PLATFORMS}.") and node.module == f"{_PLATFORMS}.{_other(platform)}"):
                yield from _sdk_imports(node.module, platform, seen)
                for name in node.names:
                    yield from _sdk_imports(f"{node.module}.{name.name}", platform, seen)


def _other(platform: str) -> str:
    return {"local": "eks", "eks": "local"}[platform]


def _file(module: str) -> Path | None:
    if module.partition(".")[0] not in ("__main__", "components"):
        return None
    path = CHECKOUT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
