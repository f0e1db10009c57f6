"""Plugins and environment of one home: what an ordinary `pulumi` or `kubectl` command needs to work on the local stack."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from embedded.home import CHECKOUT, HOME_VARIABLE, ClusterInfo, LocalHome
from embedded.plugins.marks import MARK
from embedded.plugins.stack_files import forget_salts, state_file
from embedded.toolchain.pins import KUBERNETES_PROVIDER_VERSION
from mistral_on_l4.config.names import KUBERNETES_PROVIDER_VARIABLE
from mistral_on_l4.files import write_whole

PROVIDER = "pulumi-resource-kubernetes"
_INIT_SECONDS = 60.0
_BUILT_FOLDER = f"resource-kubernetes-v{KUBERNETES_PROVIDER_VERSION}"
_SDK_FOLDER = f"resource-kubernetes-v{version('pulumi-kubernetes')}"
Origin = Literal["stand-in", "built", "official"]


class PluginError(Exception):
    """The stack cannot be used with the plugins at hand. One line."""


def provider_tools(home: LocalHome) -> tuple[str, ...]:
    """Names of the tools that install() needs beside `pulumi`: none where the user's own Kubernetes provider is used."""
    return () if _kubernetes_origin(home) == "official" else (PROVIDER,)


def install(home: LocalHome, tools: Mapping[str, str]) -> dict[str, Origin]:
    """Lays plugins into the home's own PULUMI_HOME, where no other stack's commands find them.

    tools: name -> path of `pulumi` and of what provider_tools() names. Returns plugin name -> where it comes from: `built` is the
    official Kubernetes provider from its module, used unless the user has installed the version of the SDK; what one of the two has
    begun stays with it until it is empty. Raises PluginError.
    """
    plugins = home.pulumi_home / "plugins"
    plugins.mkdir(mode=0o700, parents=True, exist_ok=True)
    used: dict[str, Origin] = {"python": "official", "kubernetes": _kubernetes_origin(home), "aws": "stand-in"}
    if not _bundled(tools["pulumi"], "pulumi-language-python"):
        _lay(plugins, f"language-python-v{version('pulumi')}", "pulumi-language-python", _launcher("language_python.host"))
        used["python"] = "stand-in"
    if used["kubernetes"] == "official":
        _link(plugins, _SDK_FOLDER, PROVIDER, _official_file())
        _remove(plugins, _BUILT_FOLDER)
    else:
        _link(plugins, _BUILT_FOLDER, PROVIDER, Path(tools[PROVIDER]))
        _remove(plugins, _SDK_FOLDER)
    _lay(plugins, f"resource-aws-v{version('pulumi-aws')}", "pulumi-resource-aws", _launcher("aws.server"))
    return used


def _kubernetes_origin(home: LocalHome) -> Origin:
    """Raises PluginError where a stack of this home cannot go on."""
    there, begun = _is_official_installed(), _begun_with(home)
    if begun == "stand-in":
        raise PluginError(
            f"the stack in {home.root} was brought up by an older version of this project, with a stand-in for the Kubernetes "
            "provider: `demo down --purge` removes its cluster, and `make up` makes a new one"
        )
    if begun == "official" and not there:
        raise PluginError(
            f"the stack in {home.root} was brought up with the plugin {_SDK_FOLDER}, which is no longer installed in ~/.pulumi: "
            "install it again (pulumi plugin install), or remove the stack's home"
        )
    return begun or ("official" if there else "built")


def pulumi_environment(home: LocalHome, cluster: ClusterInfo) -> dict[str, str]:
    """Variables for ordinary pulumi and kubectl commands on the local stack, PATH included.

    Everything else of a process's environment is left as it is: merge it over os.environ.
    """
    built = (home.pulumi_home / "plugins" / _BUILT_FOLDER).is_dir()
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
        KUBERNETES_PROVIDER_VARIABLE: KUBERNETES_PROVIDER_VERSION if built else "",
        # Seconds. The API server computes its description when kinds come or go, which takes a busy machine longer than the 32 that
        # the Kubernetes provider waits by itself.
        "PULUMI_K8S_CLIENT_TIMEOUT": "300",
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


def _remove(plugins: Path, folder: str) -> None:
    shutil.rmtree(plugins / folder, ignore_errors=True)
    (plugins / f"{folder}.lock").unlink(missing_ok=True)


def _official_file() -> Path:
    return Path.home() / ".pulumi" / "plugins" / _SDK_FOLDER / PROVIDER


def _is_official_installed() -> bool:
    """Whether the user's own PULUMI_HOME has the Kubernetes provider in the version that the SDK asks for, whole."""
    file = _official_file()
    return file.is_file() and os.access(file, os.X_OK) and not file.parent.with_name(f"{_SDK_FOLDER}.partial").exists()


def _begun_with(home: LocalHome) -> Origin | None:
    """Which Kubernetes provider made the objects in the states of this home, None if there are none."""
    for file in home.backend.glob(".pulumi/stacks/*/*.json"):
        try:
            latest = json.loads(file.read_text())["checkpoint"]["latest"] or {}
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for resource in latest.get("resources") or []:
            if resource["type"] == "pulumi:providers:kubernetes":
                inputs = resource.get("inputs") or {}
                if MARK in inputs:
                    return "stand-in"
                return "built" if inputs.get("version") == KUBERNETES_PROVIDER_VERSION else "official"
    return None


def _bundled(pulumi: str, plugin: str) -> bool:
    return os.access(Path(pulumi).resolve().with_name(plugin), os.X_OK)


def _path(cluster: ClusterInfo) -> str:
    folders = dict.fromkeys(str(Path(cluster.tools[name]).parent) for name in ("pulumi", "kubectl") if name in cluster.tools)
    before = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part and part not in folders]
    # Last, for the command `demo`: the environment's python must not hide the user's own.
    scripts = str(Path(sys.executable).parent)
    return os.pathsep.join([*folders, *before, *([] if scripts in before else [scripts])])
