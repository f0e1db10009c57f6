"""The checkpoints of a small real model, made once by vLLM's own Python: a folder with one folder per precision."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from embedded.progress import FAILED, Report
from embedded.toolchain import python_env
from embedded.toolchain.build import require_space
from embedded.toolchain.commands import Commands, ToolFailed
from embedded.toolchain.locks import LockBusy, held
from embedded.toolchain.pins import GIB, SMALL_MODELS, SMALL_MODELS_SCRIPT, VLLM

TITLE = "small real model in three precisions"
_SECONDS = 1800.0


def folder_of(cache: Path) -> Path:
    """Keyed by the script and the packages that it runs with."""
    digest = hashlib.sha256(SMALL_MODELS_SCRIPT.read_bytes() + python_env.folder_of(cache, VLLM).name.encode()).hexdigest()[:16]
    return cache / f"{SMALL_MODELS}-{digest}"


def made(cache: Path) -> Path | None:
    folder = folder_of(cache)
    return folder if folder.is_dir() else None


def make(commands: Commands, cache: Path, report: Report) -> None:
    """Raises ToolFailed. The folder appears whole, by a rename."""

    def waiting(pid: str) -> None:
        report.note(f"{TITLE}: process {pid} is making it already; waiting for it")

    report.begin(TITLE)
    ending = FAILED
    try:
        with held(cache / f"{SMALL_MODELS}.lock", waiting, _SECONDS):
            if made(cache) is not None:
                ending = "made by another command"
                return
            python = python_env.installed(cache, VLLM)
            if python is None:
                raise ToolFailed(f"{TITLE}: vLLM's Python is gone from {cache}")
            require_space({"XDG_CACHE_HOME": cache}, GIB)
            # Whoever left these was killed: nobody else makes them while we hold the lock.
            for leftover in cache.glob(f".{SMALL_MODELS}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            target = folder_of(cache)
            scratch = Path(tempfile.mkdtemp(dir=cache, prefix=f".{SMALL_MODELS}-"))
            try:
                log = cache / "logs" / f"{SMALL_MODELS}.log"
                commands.run([str(python), str(SMALL_MODELS_SCRIPT), str(scratch)], log, python_env.environment())
                scratch.rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            ending = "made"
    except LockBusy as busy:
        raise ToolFailed(f"{TITLE}: {busy}") from None
    finally:
        report.end(TITLE, ending)
