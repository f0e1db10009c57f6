"""Pulumi against the local stack: a started cluster, the stand-in plugins in their own PULUMI_HOME, a stack that exists."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console

from mistral_on_l4.cli import Failure
from mistral_on_l4.cli.stacks import project_folder
from mistral_on_l4.embedded import cluster, plugins
from mistral_on_l4.embedded.home import LocalHome
from mistral_on_l4.embedded.progress import console_report
from mistral_on_l4.settings import PROJECT

LOCAL_STACK = "local"


@contextmanager
def local_pulumi(console: Console) -> Iterator[Mapping[str, str]]:
    """Starts what does not run yet; gives the environment in which `pulumi` works on the local stack. Raises Failure."""
    home = LocalHome.default()
    try:
        with console_report(console) as report:
            started = cluster.start(home, report)
        plugins.install(home, started.tools)
        plugins.ensure_stack(home, started, project_folder(), LOCAL_STACK)
    except (cluster.ClusterError, plugins.PluginError) as error:
        raise Failure(str(error)) from None
    environment = {**os.environ, **plugins.pulumi_environment(home, started)}
    # An exported passphrase would win over the home's own.
    environment.pop("PULUMI_CONFIG_PASSPHRASE", None)
    yield environment


def run_pulumi(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs pulumi in the project on this terminal and returns its exit code. An interrupt goes to pulumi, which ends tidily."""
    command = ["pulumi", *arguments, "--stack", LOCAL_STACK]
    process = subprocess.Popen(command, cwd=project_folder(), env=dict(environment))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal has sent the signal to pulumi as well; it cancels what runs and saves its state.
            continue


def has_resources(home: LocalHome) -> bool:
    """Whether Pulumi's state still holds resources of the local stack."""
    checkpoint = home.backend / ".pulumi" / "stacks" / PROJECT / f"{LOCAL_STACK}.json"
    try:
        latest = json.loads(checkpoint.read_text())["checkpoint"]["latest"] or {}
    except FileNotFoundError:
        return False
    except (ValueError, KeyError) as error:
        raise Failure(f"{checkpoint} is not a Pulumi checkpoint ({error}): `demo down --purge` drops it") from None
    kept = latest.get("resources") or []
    return any(resource.get("type") != "pulumi:pulumi:Stack" for resource in kept) or bool(latest.get("pending_operations"))
