"""The Python of KServe's storage-initializer image: a virtual environment with the packages that image locks."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from embedded.progress import FAILED, Report
from embedded.toolchain.commands import Commands, ToolFailed
from embedded.toolchain.locks import LockBusy, held
from embedded.toolchain.pins import INITIALIZER_PYTHON

TITLE = "Python of the storage initializer"
INSTALL_SECONDS = 1200.0


def folder_of(cache: Path, requirements: Path) -> Path:
    """Keyed by the locked packages and the Python that runs them."""
    try:
        locked = requirements.read_bytes()
    except FileNotFoundError:
        raise ToolFailed(f"{requirements} is missing: this checkout is not whole") from None
    version = ".".join(map(str, sys.version_info[:3]))
    digest = hashlib.sha256(locked + f"\0{version}\0{sys.base_prefix}".encode()).hexdigest()[:16]
    return cache / f"{INITIALIZER_PYTHON}-{digest}"


def installed(cache: Path, requirements: Path) -> Path | None:
    folder = folder_of(cache, requirements)
    python = folder / "bin" / "python"
    # The interpreter behind the link may have been upgraded away.
    return python if (folder / ".complete").exists() and python.exists() else None


def install(commands: Commands, cache: Path, requirements: Path, report: Report) -> None:
    """Makes the environment. It cannot be moved once made, so a mark that is written last tells a whole one from a torn one."""
    folder = folder_of(cache, requirements)
    log = cache / "logs" / f"{INITIALIZER_PYTHON}.log"
    env = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def waiting(pid: str) -> None:
        report.note(f"{TITLE}: process {pid} is installing it already; waiting for it")

    def seen(line: str) -> None:
        report.advance(TITLE, note=line[:60])

    report.begin(TITLE)
    ending = FAILED
    try:
        with held(cache / f"{INITIALIZER_PYTHON}.lock", waiting, INSTALL_SECONDS):
            if installed(cache, requirements) is not None:
                ending = "installed by another command"
                return
            shutil.rmtree(folder, ignore_errors=True)
            try:
                commands.run([sys.executable, "-m", "venv", str(folder)], log, env)
                report.advance(TITLE, note="installing the locked packages")
                python = str(folder / "bin" / "python")
                pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--require-hashes"]
                # The lock is whole; pip's own resolver would ask for an extra's name that the lock spells without it.
                commands.run([*pip, "--no-deps", "--only-binary", ":all:", "-r", str(requirements)], log, env, seen=seen)
                (folder / ".complete").touch()
                ending = "installed"
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    except LockBusy as busy:
        raise ToolFailed(f"{TITLE}: {busy}") from None
    finally:
        report.end(TITLE, ending)
