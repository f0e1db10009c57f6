"""Plugins and environment of one home: what an ordinary `pulumi` or `kubectl` command needs to work on the local stack."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from embedded.home import CHECKOUT, HOME_VARIABLE, ClusterInfo, LocalHome
from embedded.plugins.marks import MARK
from embedded.plugins.stack_files import forget_salts, state_file
from mistral_on_l4.files import write_whole

PACKAGES = {"kubernetes": "pulumi_kubernetes", "aws": "pulumi_aws"}
_INIT_SECONDS = 60.0


class PluginError(Exception):
    """The stack cannot be used with the plugins at hand. One line."""


def install(home: LocalHome, tools: Mapping[str, str]) -> dict[str, str]:
    """Lays plugins into the home's own PULUMI_HOME, where no other stack's commands find them.

    tools: name -> path, of which `pulumi` is needed. Returns plugin name -> "stand-in" or "official". The official kubernetes
    plugin is used where the user has the very version installed; what one of the two has begun stays with it until it is empty.
    Raises PluginError.
    """
    plugins = home.pulumi_home / "plugins"
    plugins.mkdir(mode=0o700, parents=True, exist_ok=True)
    used = {}
    if not _bundled(tools["pulumi"], "pulumi-language-python"):
        _lay(plugins, f"language-python-v{version('pulumi')}", "pulumi-language-python", _launcher("language_python.host"))
        used["python"] = "stand-in"
    else:
        used["python"] = "official"
    for name, package in PACKAGES.items():
        if not Path(__file__).with_name(name).joinpath("server.py").exists():
            continue
        folder, program = f"resource-{name}-v{version(package)}", f"pulumi-resource-{name}"
        official = _official(folder, program) if name == "kubernetes" else None
        begun = _begun_with(home) if name == "kubernetes" else None
        if begun == "official" and official is None:
            raise PluginError(
                f"the stack in {home.root} was brought up with the official plugin {folder}, which is no longer installed in "
                "~/.pulumi: install it again, or remove the stack's home"
            )
        if official is None or begun == "stand-in":
            _lay(plugins, folder, program, _launcher(f"{name}.server"))
            used[name] = "stand-in"
        else:
            _link(plugins, folder, program, official)
            used[name] = "official"
    return used


def pulumi_environment(home: LocalHome, cluster: ClusterInfo) -> dict[str, str]:
    """Variables for ordinary pulumi and kubectl commands on the local stack, PATH included.

    Everything else of a process's environment is left as it is: merge it over os.environ.
    """
    return {
        HOME_VARIABLE: str(home.root),
        "KUBECONFIG": str(home.kubeconfig),
        "PATH": _path(cluster),
        "PULUMI_HOME": str(home.pulumi_home),
        "PULUMI_BACKEND_URL": home.backend.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase_file(home)),
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        # A plugin on PATH would win over those of this home, whatever its version.
        "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",
        # What `--skip-plugin-pre-install` does: a stack without AWS does not ask for AWS's plugin.
        "PULUMI_OPTION_SKIP_PLUGIN_PRE_INSTALL": "true",
        "PULUMI_SUPPRESS_NEO_LINK": "true",
        # The state holds the cluster's history; a copy of every checkpoint beside it helps nobody here.
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
    }


def command_environment(home: LocalHome, cluster: ClusterInfo) -> dict[str, str]:
    """The whole environment of a pulumi command that we start: this process's, with those variables."""
    environment = {**os.environ, **pulumi_environment(home, cluster)}
    # An exported passphrase would win over the home's own, and lock everybody else out of the stack.
    environment.pop("PULUMI_CONFIG_PASSPHRASE", None)
    return environment


def passphrase_file(home: LocalHome) -> Path:
    """The file with the random passphrase that encrypts secrets in this home's state; made at the first call."""
    file = home.root / "passphrase"
    if not file.exists():
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = home.root / f".passphrase.{secrets.token_hex(4)}"
        write_whole(fresh, secrets.token_urlsafe(32) + "\n")
        try:
            # Of two commands at once the first one's passphrase holds: a link, unlike a rename, replaces nothing.
            os.link(fresh, file)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return file


def ensure_stack(home: LocalHome, cluster: ClusterInfo, project: Path, stack: str, select: bool = True) -> None:
    """Creates the stack in the home's backend if it is not there, and selects it; no tracked file changes. Raises PluginError.

    select: False where every command names its stack, so that one which is there need not be asked for.
    """
    environment = command_environment(home, cluster)
    url = environment["PULUMI_BACKEND_URL"]
    file = state_file(project, stack, url)
    there = file is not None and file.exists()
    if there and not select:
        return
    what = "select" if there else "init"
    home.backend.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [cluster.tools["pulumi"], "stack", what, stack, "--non-interactive"]
    try:
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=_INIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise PluginError(f"`pulumi stack {what} {stack}` did not answer within {_INIT_SECONDS:.0f} s") from None
    finally:
        forget_salts(project, url)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise PluginError(f"`pulumi stack {what} {stack}` failed: {lines[-1] if lines else f'exit code {done.returncode}'}")


# -- plugins ---------------------------------------------------------------------------------------------------------------


def _launcher(module: str) -> str:
    """A script that starts a plugin of this package. Without Python's site module, which a plugin does not need and waits for."""
    paths = [str(CHECKOUT), sysconfig.get_paths()["purelib"]]
    program = f"import sys; sys.path[:0] = {json.dumps(paths)}\nfrom embedded.plugins.{module} import main\nmain(sys.argv[1:])"
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S -c {shlex.quote(program)} "$@"\n'


def _lay(plugins: Path, folder: str, program: str, script: str) -> None:
    target = plugins / folder / program
    # The lock file is how the CLI knows an installation of its own; there is no .partial, so this one counts as complete.
    write_whole(plugins / f"{folder}.lock", "")
    target.parent.mkdir(mode=0o700, exist_ok=True)
    if target.is_symlink() or not target.exists() or target.read_text(errors="replace") != script:
        target.unlink(missing_ok=True)
        write_whole(target, script, mode=0o700)


def _link(plugins: Path, folder: str, program: str, official: Path) -> None:
    target = plugins / folder / program
    write_whole(plugins / f"{folder}.lock", "")
    # The CLI looks into folders only, not through links to folders.
    target.parent.mkdir(mode=0o700, exist_ok=True)
    if not (target.is_symlink() and target.readlink() == official):
        target.unlink(missing_ok=True)
        target.symlink_to(official)


def _official(folder: str, program: str) -> Path | None:
    """The official plugin in the user's own PULUMI_HOME, if it is there in the version that the SDK asks for."""
    file = Path.home() / ".pulumi" / "plugins" / folder / program
    return file if file.is_file() and os.access(file, os.X_OK) and not file.with_name(folder + ".partial").exists() else None


def _begun_with(home: LocalHome) -> str | None:
    """Which plugin's objects the states of this home hold: "stand-in", "official", or None if there are none."""
    for file in home.backend.glob(".pulumi/stacks/*/*.json"):
        try:
            latest = json.loads(file.read_text())["checkpoint"]["latest"] or {}
        except (OSError, ValueError, KeyError, TypeError):
            continue
        providers = [found for found in latest.get("resources") or [] if found["type"] == "pulumi:providers:kubernetes"]
        if providers:
            return "stand-in" if any(MARK in (found.get("inputs") or {}) for found in providers) else "official"
    return None


def _bundled(pulumi: str, plugin: str) -> bool:
    return os.access(Path(pulumi).resolve().with_name(plugin), os.X_OK)


def _path(cluster: ClusterInfo) -> str:
    folders = dict.fromkeys(str(Path(cluster.tools[name]).parent) for name in ("pulumi", "kubectl") if name in cluster.tools)
    before = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part and part not in folders]
    # Last, for the command `demo`: the environment's python must not hide the user's own.
    scripts = str(Path(sys.executable).parent)
    return os.pathsep.join([*folders, *before, *([] if scripts in before else [scripts])])
