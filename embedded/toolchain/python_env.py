"""Virtual environments of their own with locked packages: KServe's storage initializer, and vLLM for the CPU."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from embedded.progress import FAILED, Report
from embedded.toolchain.build import require_space
from embedded.toolchain.commands import Commands, ToolFailed
from embedded.toolchain.locks import LockBusy, held
from embedded.toolchain.pins import PythonTool


def folder_of(cache: Path, tool: PythonTool) -> Path:
    """Keyed by the locked packages and the Python that runs them."""
    try:
        locked = tool.lock.read_bytes()
    except FileNotFoundError:
        raise ToolFailed(f"{tool.lock} is missing: this checkout is not whole") from None
    version = ".".join(map(str, sys.version_info[:3]))
    digest = hashlib.sha256(locked + f"\0{version}\0{sys.base_prefix}".encode()).hexdigest()[:16]
    return cache / f"{tool.name}-{digest}"


def environment() -> dict[str, str]:
    """This process's, less what would lead another Python to our packages."""
    return {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def installed(cache: Path, tool: PythonTool) -> Path | None:
    """Its interpreter, None where the environment is not there or not whole."""
    folder = folder_of(cache, tool)
    python = folder / "bin" / "python"
    # The interpreter behind the link may have been upgraded away.
    return python if (folder / ".complete").exists() and python.exists() else None


def install(commands: Commands, cache: Path, tool: PythonTool, report: Report) -> None:
    """Makes the environment. It cannot be moved once made, so a mark that is written last tells a whole one from a torn one."""

    def waiting(pid: str) -> None:
        report.note(f"{tool.title}: process {pid} is installing it already; waiting for it")

    report.begin(tool.title)
    ending = FAILED
    try:
        with held(cache / f"{tool.name}.lock", waiting, tool.seconds):
            if installed(cache, tool) is not None:
                ending = "installed by another command"
                return
            require_space({"XDG_CACHE_HOME": cache}, tool.disk_bytes)
            _make(commands, cache, tool, report)
            ending = "installed"
    except LockBusy as busy:
        raise ToolFailed(f"{tool.title}: {busy}") from None
    finally:
        report.end(tool.title, ending)


def _make(commands: Commands, cache: Path, tool: PythonTool, report: Report) -> None:
    folder = folder_of(cache, tool)
    log = cache / "logs" / f"{tool.name}.log"
    env = environment()
    # Of other locks or Pythons: nobody installs beside us, and a running program keeps what it has opened.
    shutil.rmtree(folder, ignore_errors=True)
    python = str(folder / "bin" / "python")
    try:
        commands.run([sys.executable, "-m", "venv", str(folder)], log, env)
        report.advance(tool.title, note="installing the locked packages")
        _packages(commands, cache, tool, python, log, env, report)
        (folder / ".complete").touch()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _packages(
    commands: Commands, cache: Path, tool: PythonTool, python: str, log: Path, env: Mapping[str, str], report: Report
) -> None:
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--require-hashes"]
    # The lock is whole; a resolver would ask for an extra's name that the lock spells without it.
    pip += ["--no-deps", "--only-binary", ":all:", "-r"]

    def seen(line: str) -> None:
        report.advance(tool.title, note=line[:60])

    if tool.uv is None:
        commands.run([*pip, str(tool.lock)], log, env, seen=seen)
        return
    commands.run([*pip, str(tool.uv)], log, env, seen=seen)
    # Its own, and gone in the end: what it holds are hard links to what is installed. After a failure it saves the next try the
    # downloads that were whole.
    downloads = cache / f"{tool.name}-downloads"
    uv = [str(Path(python).parent / "uv"), "pip", "install", "--python", python, "--require-hashes", "--no-deps"]
    settings = {**env, "UV_CACHE_DIR": str(downloads), "UV_NO_CONFIG": "1"}
    commands.run([*uv, "--only-binary", ":all:", "-r", str(tool.lock)], log, settings, seen=seen)
    with contextlib.suppress(OSError):
        shutil.rmtree(downloads)
