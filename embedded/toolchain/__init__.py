"""Where the local stack's programs come from: the user's cache, PATH if recent enough, else one build from pinned modules."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from embedded.home import tools_cache
from embedded.progress import Report
from embedded.toolchain import build, python_env, small_models
from embedded.toolchain.commands import Commands, ToolFailed, terminated_like_interrupted
from embedded.toolchain.pins import (
    GO_TOOLS,
    INITIALIZER_PYTHON,
    INITIALIZER_REQUIREMENTS,
    MODULES,
    NAMES,
    ON_REQUEST,
    PYTHON_TOOLS,
    SMALL_MODELS,
    PathTool,
    PythonTool,
)

__all__ = ["NAMES", "ON_REQUEST", "ToolFailed", "ensure_tools", "found_tool"]


def ensure_tools(
    names: Iterable[str], report: Report, cache: Path | None = None, requirements: Path = INITIALIZER_REQUIREMENTS
) -> dict[str, Path]:
    """Paths of the named tools (see NAMES and ON_REQUEST), building what is neither in the cache nor, recent enough, on PATH.

    cache: where built tools are kept, tools_cache() unless given; requirements: the lock of the storage initializer's Python.
    Raises ToolFailed with one line. An interruption ends the build's processes and leaves nothing half made.
    """
    wanted = list(dict.fromkeys(names))
    known = (*NAMES, *ON_REQUEST)
    if unknown := [name for name in wanted if name not in known]:
        raise ToolFailed(f"no tool is called {unknown[0]!r}; known are {', '.join(known)}")
    cache = cache or tools_cache()
    found: dict[str, Path] = {}
    for name in wanted:
        if (path := _cached(name, cache, requirements) or _on_path(name)) is not None:
            found[name] = path
    missing = [name for name in wanted if name not in found]
    if missing:
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ToolFailed(f"the tools cannot be kept in {cache}: {error.strerror} (XDG_CACHE_HOME moves it)") from None
        with terminated_like_interrupted(), Commands() as commands:
            _make(missing, commands, cache, requirements, report)
        for name in missing:
            path = _cached(name, cache, requirements)
            if path is None:
                raise ToolFailed(f"{name} is gone from {cache} right after it was built: is something cleaning that folder?")
            found[name] = path
    return {name: found[name] for name in wanted}


def found_tool(name: str, cache: Path | None = None) -> Path | None:
    """The path of a tool in the cache, None where it was not made yet."""
    return _cached(name, cache or tools_cache(), INITIALIZER_REQUIREMENTS)


def _make(missing: list[str], commands: Commands, cache: Path, requirements: Path, report: Report) -> None:
    modules = [(module, tools) for module in MODULES if (tools := [tool for tool in module.tools if tool.name in missing])]
    if modules:
        go = build.require_go()
        needed = build.BINARIES_BYTES + sum(module.disk_bytes for module, _ in modules)
        build.require_space({"XDG_CACHE_HOME": cache}, build.BINARIES_BYTES)
        build.require_space(build.caches_of_go(go), needed)
        loader = build.Loader(go, commands, cache, modules, report)
    for name in PYTHON_TOOLS:
        if name in missing:
            python_env.install(commands, cache, _python_tool(name, requirements), report)
    if SMALL_MODELS in missing:
        small_models.make(commands, cache, report)
    for module, tools in modules:
        build.build_module(go, commands, cache, loader, module, tools, report)


def _cached(name: str, cache: Path, requirements: Path) -> Path | None:
    if name in PYTHON_TOOLS:
        return python_env.installed(cache, _python_tool(name, requirements))
    if name == SMALL_MODELS:
        return small_models.made(cache)
    tool, module = GO_TOOLS[name]
    return build.built(cache, module, tool)


def _python_tool(name: str, requirements: Path) -> PythonTool:
    tool = PYTHON_TOOLS[name]
    return replace(tool, lock=requirements) if name == INITIALIZER_PYTHON else tool


def _on_path(name: str) -> Path | None:
    if name not in GO_TOOLS:
        return None
    rule = GO_TOOLS[name][0].on_path
    if rule is None or (program := shutil.which(name)) is None:
        return None
    version = _ask_version(program, rule)
    return Path(program).absolute() if version is not None and rule.accepts(version) else None


def _ask_version(program: str, rule: PathTool) -> tuple[int, int, int] | None:
    env = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        said = subprocess.run(
            [program, *rule.arguments], capture_output=True, text=True, timeout=10, env=env, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return rule.version(said.stdout + said.stderr) if said.returncode == 0 else None
