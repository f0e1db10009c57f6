"""Building Go tools once into the user's cache, with downloads of the next module beside the compilation of this one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from embedded.progress import FAILED, Report
from embedded.toolchain.commands import Commands, ToolFailed
from embedded.toolchain.locks import LockBusy, held
from embedded.toolchain.pins import GCFLAGS, GIB, GO_MINIMUM, GoModule, GoTool
from mistral_on_l4.files import write_whole

# A cold build of all tools on 2 slow cores stays below this.
BUILD_SECONDS = 3600.0
# Binaries and what the linker writes before them.
BINARIES_BYTES = GIB


def require_go() -> str:
    """Path of a Go that is new enough. Raises ToolFailed with what to do."""
    minimum = ".".join(map(str, GO_MINIMUM))
    advice = f"install Go {minimum} or newer (https://go.dev/dl/) and put its bin folder on PATH"
    go = shutil.which("go")
    if go is None:
        raise ToolFailed(f"Go is needed to build the local stack's tools, and there is no `go` on PATH: {advice}")
    try:
        # GOTOOLCHAIN=local: what is installed here, not what a go.mod nearby would have downloaded.
        said = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "GOTOOLCHAIN": "local"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolFailed(f"{go} does not answer ({error}): {advice}") from None
    found = re.search(r"go(\d+)\.(\d+)", said.stdout)
    if found is None or (int(found[1]), int(found[2])) < GO_MINIMUM:
        raise ToolFailed(f"{go} is {said.stdout.strip() or 'of an unknown version'}, which is too old: {advice}")
    return go


def go_environment(go: str) -> dict[str, str]:
    """The environment of every go command: the user's own, less what would change what is built."""
    kept = {name: text for name, text in os.environ.items() if name not in ("GOFLAGS", "GOWORK", "GOOS", "GOARCH", "GOEXPERIMENT")}
    return {
        **kept,
        "PATH": f"{Path(go).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "CGO_ENABLED": "0",
        # The compiler is short of time, not of memory.
        "GOGC": "400",
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
    }


def require_space(folders: Mapping[str, Path], needed_bytes: int) -> None:
    """Raises ToolFailed if a file system that the build writes to has less than `needed_bytes` free.

    folders: variable that moves it -> folder. Every one is held to the whole sum: which part lands where is Go's affair.
    """
    for variable, folder in folders.items():
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(existing).free
        if free < needed_bytes:
            raise ToolFailed(
                f"building the tools takes up to {needed_bytes / GIB:.1f} GiB and {existing} has {free / GIB:.1f} GiB free: "
                f"make room there, or set {variable} to a folder on another disk"
            )


def caches_of_go(go: str) -> dict[str, Path]:
    said = subprocess.run([go, "env", "-json", "GOCACHE", "GOMODCACHE"], capture_output=True, text=True, timeout=30, check=False)
    try:
        values = json.loads(said.stdout)
    except ValueError:
        raise ToolFailed(f"`go env` failed: {said.stderr.strip()[-300:]}") from None
    return {name: Path(text) for name, text in values.items() if text.startswith("/")}


class Loader:
    """Loads the package graphs of modules one after the other, in a thread: that downloads exactly what each build needs.

    `go mod download` would fetch every module that go.mod lists; this fetches the ones with packages in the programs, and
    counts the packages, which is what progress is measured against.
    """

    def __init__(
        self, go: str, commands: Commands, cache: Path, wanted: Sequence[tuple[GoModule, Sequence[GoTool]]], report: Report
    ) -> None:
        self._go, self._commands, self._cache, self._report = go, commands, cache, report
        self._ready = {module.folder: threading.Event() for module, _ in wanted}
        self._counts: dict[str, int] = {}
        self._errors: dict[str, ToolFailed] = {}
        self._thread = threading.Thread(target=self._load, args=(list(wanted),), daemon=True)
        self._thread.start()

    def packages(self, module: GoModule) -> int:
        """Waits until the module is downloaded; how many packages its tools are made of. Raises ToolFailed."""
        while not self._ready[module.folder].wait(0.5):  # in slices, so that Ctrl-C is heard
            if not self._thread.is_alive() and not self._ready[module.folder].is_set():
                raise ToolFailed(f"downloading {module.title} was interrupted")
        if (error := self._errors.get(module.folder)) is not None:
            raise error
        return self._counts[module.folder]

    def _load(self, wanted: Sequence[tuple[GoModule, Sequence[GoTool]]]) -> None:
        for module, tools in wanted:
            downloaded = 0

            def seen(line: str, module: GoModule = module) -> None:
                nonlocal downloaded
                if line.startswith("go: downloading"):
                    downloaded += 1
                    self._report.advance(module.title, note=f"downloading: {downloaded} modules so far")

            try:
                listed = self._commands.run(
                    [self._go, "list", *self._overlay(module, seen), "-deps", *(tool.package for tool in tools)],
                    log_of(self._cache, module),
                    go_environment(self._go),
                    module.path,
                    seen,
                )
                self._counts[module.folder] = len(listed)
            except ToolFailed as error:
                self._errors[module.folder] = error
            except OSError as error:
                self._errors[module.folder] = ToolFailed(f"{module.title}: {error}")
            self._ready[module.folder].set()

    def _overlay(self, module: GoModule, seen: Callable[[str], None]) -> list[str]:
        """Flags of go commands for a module that borrows files; writes the overlay that they name."""
        if module.borrowed is None:
            return []
        described = self._commands.run(
            [self._go, "mod", "download", "-json", module.borrowed.module],
            log_of(self._cache, module),
            go_environment(self._go),
            module.path,
            seen,
        )
        folder = Path(json.loads("\n".join(described))["Dir"]) / module.borrowed.folder
        laid = {str(module.path / name): str(folder / name) for name in module.borrowed.names}
        write_whole(overlay_of(self._cache, module), json.dumps({"Replace": laid}))
        return overlay_flags(self._cache, module)


def overlay_of(cache: Path, module: GoModule) -> Path:
    """It names files of this checkout, and other checkouts share the cache."""
    checkout = hashlib.sha256(str(module.path).encode()).hexdigest()[:16]
    return cache / "overlays" / f"{module.folder}-{checkout}.json"


def overlay_flags(cache: Path, module: GoModule) -> list[str]:
    return ["-overlay", str(overlay_of(cache, module))] if module.borrowed else []


def log_of(cache: Path, module: GoModule) -> Path:
    return cache / "logs" / f"{module.folder}.log"


def folder_of(cache: Path, module: GoModule, tool: GoTool) -> Path:
    return cache / f"{tool.name}-{module.digest(tool.package)}"


def built(cache: Path, module: GoModule, tool: GoTool) -> Path | None:
    path = folder_of(cache, module, tool) / tool.name
    return path if os.access(path, os.X_OK) else None


def build_module(
    go: str, commands: Commands, cache: Path, loader: Loader, module: GoModule, tools: Sequence[GoTool], report: Report
) -> None:
    """Builds what is still missing of `tools` into the cache. A second command that wants the same waits for the first."""

    def waiting(pid: str) -> None:
        report.advance(module.title, note=f"process {pid} is building it: waiting")
        report.note(f"{module.title}: process {pid} is building it already; waiting for it")

    report.begin(module.title)
    ending = FAILED
    try:
        with held(cache / f"{module.folder}.lock", waiting, BUILD_SECONDS):
            missing = [tool for tool in tools if built(cache, module, tool) is None]
            if not missing:
                ending = "built by another command"
                return
            # Whoever left these was killed: nobody else writes them while we hold the lock.
            for leftover in cache.glob(f".{module.folder}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            total = loader.packages(module)
            _compile(go, commands, cache, module, missing, total, report)
            ending = f"built {', '.join(tool.name for tool in missing)}"
    except LockBusy as busy:
        raise ToolFailed(f"{module.title}: {busy}") from None
    finally:
        report.end(module.title, ending)


def _compile(
    go: str, commands: Commands, cache: Path, module: GoModule, tools: Sequence[GoTool], total: int, report: Report
) -> None:
    report.begin(module.title, total)
    compiled = 0

    def seen(line: str) -> None:
        nonlocal compiled
        # `go build -v` prints each package as it is compiled; one that Go's cache holds is not printed.
        if line and " " not in line:
            compiled += 1
            report.advance(module.title, min(compiled, total), f"compiling {line[-60:]}")

    scratch = Path(tempfile.mkdtemp(dir=cache, prefix=f".{module.folder}-"))
    try:
        packages = [tool.package for tool in tools]
        output = f"{scratch}/" if len(tools) > 1 else str(scratch / tools[0].output)
        report.advance(module.title, note="compiling")
        commands.run(
            [
                *(go, "build", "-v", "-trimpath", *overlay_flags(cache, module)),
                *("-gcflags", GCFLAGS, "-ldflags", module.ldflags, "-o", output, *packages),
            ],
            log_of(cache, module),
            go_environment(go),
            module.path,
            seen,
        )
        for tool in tools:
            made = scratch / f"{tool.name}.whole"
            made.mkdir()
            (scratch / tool.output).rename(made / tool.name)
            final = folder_of(cache, module, tool)
            shutil.rmtree(final, ignore_errors=True)
            made.rename(final)
    except OSError as error:
        raise ToolFailed(f"{module.title} could not be put into {cache}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
