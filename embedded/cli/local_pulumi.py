"""Pulumi against the local stack: a started cluster, the stand-in plugins in their own PULUMI_HOME, a stack that exists."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from embedded import cluster, plugins, processes
from embedded.agent import syscalls
from embedded.home import LocalHome
from embedded.progress import console_report
from embedded.toolchain.locks import LockBusy, held, name_holder
from mistral_on_l4.cli import Failure
from mistral_on_l4.cli.stacks import project_folder
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.config.names import PROJECT

LOCAL_STACK = "local"
# As long as a first `up` with all its builds may take.
_OTHER_COMMAND_SECONDS = 3600.0
_GONE_SECONDS = 60.0


@contextmanager
def local_pulumi(console: Console) -> Iterator[Mapping[str, str]]:
    """Starts what does not run yet; gives the environment in which `pulumi` works on the local stack. Raises Failure."""
    home = LocalHome.default()
    with alone(home, console), pulumi_of(home, console) as environment:
        yield environment


@contextmanager
def alone(home: LocalHome, console: Console) -> Iterator[int]:
    """Waits for a command that brings this stack up or down, and keeps others waiting until the context ends.

    Gives the descriptor of the lock. Raises Failure.
    """

    def waiting(pid: str) -> None:
        console.print(f"process {pid} is bringing this stack up or down: waiting for it")

    try:
        with held(home.command_lock, waiting, _OTHER_COMMAND_SECONDS) as lock:
            yield lock
    except LockBusy as error:
        raise Failure(str(error)) from None


@contextmanager
def pulumi_of(home: LocalHome, console: Console) -> Iterator[Mapping[str, str]]:
    """What local_pulumi does, for a command that is alone."""
    try:
        with console_report(console) as report:
            started = cluster.start(home, report)
        plugins.install(home, started.tools)
        plugins.ensure_stack(home, started, project_folder(), LOCAL_STACK)
        # Somebody's own pulumi at work is none of our business: ours will say that the stack is locked.
        if forget_locks_of_the_dead(home):
            remove_half_made(home, KubeClient.from_kubeconfig(home.kubeconfig))
        yield plugins.command_environment(home, started)
    except (cluster.ClusterError, plugins.PluginError, ApiError) as error:
        raise Failure(str(error)) from None


def run_pulumi(arguments: Sequence[str], environment: Mapping[str, str], lock: int) -> int:
    """Runs pulumi in the project on this terminal and returns its exit code. An interrupt goes to pulumi, which ends tidily.

    So it does when this command is killed; until then pulumi holds `lock`, and the next command waits.
    """
    command = ["pulumi", *arguments, "--stack", LOCAL_STACK]
    process = subprocess.Popen(
        command,
        cwd=project_folder(),
        env=dict(environment),
        pass_fds=(lock,),
        preexec_fn=lambda: syscalls.end_with_parent(signal.SIGINT),  # noqa: PLW1509  (one system call, no lock)
    )
    name_holder(lock, process.pid)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal has sent the signal to pulumi as well; it cancels what runs and saves its state.
            continue


def forget_locks_of_the_dead(home: LocalHome) -> bool:
    """Removes Pulumi's locks on the local stack whose process is gone, killed or ended by a reboot. True if no lock is left."""
    free = True
    for lock in home.backend.glob(f".pulumi/locks/*/{PROJECT}/{LOCAL_STACK}/*.json"):
        try:
            held_by = json.loads(lock.read_text())
            pid, host = int(held_by["pid"]), held_by["hostname"]
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError):
            free = False
            continue
        # After a reboot its number may be another program's.
        if host == socket.gethostname() and _program(pid) != "pulumi":
            lock.unlink(missing_ok=True)
        else:
            free = False
    return free


def _program(pid: int) -> str | None:
    """The name of the program that a living process runs."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() if processes.start_time(pid) is not None else None
    except OSError:
        return None


def remove_half_made(home: LocalHome, client: KubeClient) -> None:
    """Deletes objects whose creation a killed pulumi had begun and never recorded: the next one would find them in its way.

    Importing them instead would count a Job as done that nobody has seen complete. Raises Failure, ApiError.
    """
    for api_version, kind, meta in _half_made(_latest_state(home)):
        end = time.monotonic() + _GONE_SECONDS
        while _still_there(client, api_version, kind, meta["name"], meta.get("namespace")):
            if time.monotonic() > end:
                raise Failure(
                    f"{kind} {meta['name']}, left half made by a killed `pulumi up`, is not gone {_GONE_SECONDS:.0f} s after its "
                    f"deletion: see `kubectl describe {kind.lower()} {meta['name']}`"
                )
            time.sleep(0.2)


def _half_made(state: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(apiVersion, kind, metadata) of each such object."""
    begun = [operation["resource"] for operation in state.get("pending_operations") or [] if operation["type"] == "creating"]
    for resource in begun:
        inputs = resource.get("inputs") or {}
        meta = inputs.get("metadata") or {}
        if resource["type"].startswith("kubernetes:") and inputs.get("apiVersion") and inputs.get("kind") and meta.get("name"):
            yield inputs["apiVersion"], inputs["kind"], meta


def _still_there(client: KubeClient, api_version: str, kind: str, name: str, namespace: str | None) -> bool:
    """Asks for its deletion; whether there is still something to delete."""
    try:
        client.delete(api_version, kind, name, namespace)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def has_resources(home: LocalHome) -> bool:
    """Whether Pulumi's state still holds resources of the local stack."""
    latest = _latest_state(home)
    kept = latest.get("resources") or []
    return any(resource.get("type") != "pulumi:pulumi:Stack" for resource in kept) or bool(latest.get("pending_operations"))


def _latest_state(home: LocalHome) -> dict[str, Any]:
    """The deployment in Pulumi's checkpoint of the local stack; empty if there is none. Raises Failure."""
    checkpoint = home.backend / ".pulumi" / "stacks" / PROJECT / f"{LOCAL_STACK}.json"
    try:
        latest: dict[str, Any] = json.loads(checkpoint.read_text())["checkpoint"]["latest"] or {}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{checkpoint} is not a Pulumi checkpoint ({error})\n`demo down --purge` drops it") from None
    return latest
