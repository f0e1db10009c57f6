"""What a killed pulumi leaves in a state, set right before the next one works on it. What the state records is never touched.

The engine writes down that it begins to create an object, and takes that note out when it is done. It never clears the note of a
process that was killed, so the object may exist or not, be recorded by a later `up` or not. Each such object is looked up:

- one that the state records, or that does not exist: the note goes;
- one that exists and is this stack's, by its labels: it is taken over into the state, so that no other is made beside it;
- a Job that did not complete: deleted and made again, because nobody would wait for one that was taken over; so is one that was
  to replace a recorded one, whose name the next `up` gives to its own;
- one that is somebody else's: left alone, and named.
"""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedded import processes
from embedded.cli.states import begun
from embedded.home import LocalHome
from mistral_on_l4.cli import Failure
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.live import condition
from mistral_on_l4.config.names import PROJECT, STACK_LABEL
from mistral_on_l4.manifests.metadata import MANAGER_LABELS

_GONE_SECONDS = 120.0
_PULUMI_SECONDS = 120.0
# pulumi-kubernetes, fieldManagerName(): the prefix of the names that it gives itself in server-side apply.
_FIELD_MANAGER = "pulumi-kubernetes-"


# -- files of the backend --------------------------------------------------------------------------------------------------


def drop_broken_attributes(home: LocalHome) -> list[Path]:
    """Removes attribute files of the backend that a kill left empty or half written; a file without one is read all the same.

    gocloud.dev's fileblob writes FILE.attrs in place, after it has renamed FILE into place.
    """
    broken = []
    for file in home.backend.rglob("*.attrs"):
        try:
            whole = isinstance(json.loads(file.read_text()), dict)
        except FileNotFoundError:
            continue
        except ValueError:
            whole = False
        if not whole:
            file.unlink(missing_ok=True)
            broken.append(file)
    return broken


def forget_locks_of_the_dead(home: LocalHome, stack: str) -> bool:
    """Removes Pulumi's locks on a stack whose process is gone, killed or ended by a reboot. True if no lock is left."""
    free = True
    for lock in home.backend.glob(f".pulumi/locks/*/{PROJECT}/{stack}/*.json"):
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


def end_orphaned_plugins(home: LocalHome) -> int:
    """Kills plugins of this home whose pulumi was killed; their number. Raises ProcessFailed.

    The Kubernetes provider notices no death of its engine: it would go on with what it does, and keep inherited files open.
    """
    return processes.kill([pid for pid in _plugins(home) if _program(_parent(pid)) != "pulumi"])


def _plugins(home: LocalHome) -> Iterator[int]:
    """Processes that run a program of the home's plugins."""
    folder = f"{home.pulumi_home / 'plugins'}/".encode()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            # Unreadable: it ended meanwhile, or is another user's.
            with suppress(OSError):
                # What a script's interpreter runs is its second argument.
                if any(word.startswith(folder) for word in process.joinpath("cmdline").read_bytes().split(b"\0")[:2]):
                    yield int(process.name)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


# -- objects whose creation was begun --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Begun:
    """A Kubernetes object whose creation was begun. id: as the provider names it."""

    urn: str
    api_version: str
    kind: str
    name: str
    namespace: str | None

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass
class Recovery:
    """What is to be done: objects to take over into the state, Jobs to delete; and those that are somebody else's."""

    take_over: list[Begun] = field(default_factory=list)
    delete: list[Begun] = field(default_factory=list)
    foreign: list[Begun] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What to tell people, one line each."""
        told = (
            ("taken over, as a killed pulumi has made it", self.take_over),
            ("made again, as nobody saw it complete", self.delete),
            ("left alone, as it is not this stack's", self.foreign),
        )
        return [f"{thing}: {what}" for what, things in told for thing in things]


def recovery(state: Mapping[str, Any], client: KubeClient, stack: str) -> Recovery:
    """What to do about the pending creations of a state; waits for objects that are on their way out. Raises Failure, ApiError."""
    recorded = {resource["urn"] for resource in state.get("resources") or []}
    kept = {(resource["type"], resource.get("id")) for resource in state.get("resources") or []}
    found = Recovery()
    for resource in {resource["urn"]: resource for resource in begun(state)}.values():
        thing = _kubernetes_object(resource, client)
        if thing is None or (resource["type"], thing.id) in kept:
            continue
        replaces = resource["urn"] in recorded
        if replaces and thing.kind != "Job":
            continue
        live = _settled(client, thing)
        if live is None:
            continue
        if not _is_of_stack(live, thing, client, stack):
            found.foreign.append(thing)
        elif thing.kind == "Job" and (replaces or condition(live, "Complete") != "True"):
            found.delete.append(thing)
        else:
            found.take_over.append(thing)
    return found


def _kubernetes_object(resource: Mapping[str, Any], client: KubeClient) -> Begun | None:
    inputs = resource.get("inputs") or {}
    meta = inputs.get("metadata") or {}
    if not (resource["type"].startswith("kubernetes:") and inputs.get("apiVersion") and inputs.get("kind") and meta.get("name")):
        return None
    try:
        namespaced = client.resource_type(inputs["apiVersion"], inputs["kind"]).namespaced
    except ApiError as error:
        if error.status == 404:  # of a kind that the cluster lacks there is no object
            return None
        raise
    namespace = (meta.get("namespace") or "default") if namespaced else None
    return Begun(resource["urn"], inputs["apiVersion"], inputs["kind"], meta["name"], namespace)


def _live(client: KubeClient, thing: Begun) -> dict[str, Any] | None:
    try:
        return client.get(thing.api_version, thing.kind, thing.name, thing.namespace)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _settled(client: KubeClient, thing: Begun) -> dict[str, Any] | None:
    """The object, unless it does not exist or is gone soon. Raises Failure for one that does not go."""
    end = time.monotonic() + _GONE_SECONDS
    while (live := _live(client, thing)) is not None and live["metadata"].get("deletionTimestamp"):
        if time.monotonic() > end:
            raise Failure(
                f"{thing}, left behind by a killed pulumi, is not gone {_GONE_SECONDS:.0f} s after its deletion: see "
                f"`kubectl describe {thing.kind.lower()} {thing.name}{f' -n {thing.namespace}' if thing.namespace else ''}`"
            )
        time.sleep(0.2)
    return live


def _is_of_stack(live: Mapping[str, Any], thing: Begun, client: KubeClient, stack: str) -> bool:
    """Whether an object carries the project's label, and itself or its namespace, where it has one, the stack's."""
    labels = live["metadata"].get("labels") or {}
    if any(labels.get(name) != text for name, text in MANAGER_LABELS.items()):
        return False
    if STACK_LABEL not in labels and thing.namespace:
        namespace = _live(client, Begun("", "v1", "Namespace", thing.namespace, None)) or {"metadata": {}}
        labels = namespace["metadata"].get("labels") or {}
    return bool(labels.get(STACK_LABEL, stack) == stack)


def recover(stack: str, client: KubeClient, environment: Mapping[str, str], project: Path) -> list[str]:
    """Sets right what a killed pulumi has left in a stack's state; what was done, one line each. Raises Failure, ApiError.

    No pulumi may be at work on the stack. What was taken over is read by the next refresh; until then its outputs are its inputs.
    """
    exported = json.loads(_pulumi(["stack", "export", "--stack", stack], environment, project))
    state = exported.get("deployment") or {}
    if not any(begun(state)):
        return []
    found = recovery(state, client, stack)
    for job in found.delete:
        client.delete(job.api_version, job.kind, job.name, job.namespace)
    for job in found.delete:
        _settled(client, job)
    by_urn = {resource["urn"]: resource for resource in begun(state)}
    state["resources"] = [
        *(state.get("resources") or []),
        *(taken_over(by_urn[thing.urn], thing, client) for thing in found.take_over),
    ]
    # Of other operations that were begun the engine forgets the note by itself: their objects are recorded.
    state["pending_operations"] = [operation for operation in state["pending_operations"] if operation["type"] != "creating"]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:  # mode 0600
        json.dump(exported, file)
        file.flush()
        _pulumi(["stack", "import", "--stack", stack, "--file", file.name], environment, project)
    return found.lines() or ["what a killed pulumi had begun and not made is cleared from the state"]


def taken_over(resource: Mapping[str, Any], thing: Begun, client: KubeClient) -> dict[str, Any]:
    """A resource of the state for an object that exists, without what may be secret in it. Raises ApiError.

    The field manager is the one that made it: with another one the provider's next apply would be a conflict.
    """
    live = _live(client, thing) or {"metadata": {}}
    managers = [entry["manager"] for entry in live["metadata"].get("managedFields") or [] if entry.get("operation") == "Apply"]
    ours = [manager for manager in managers if manager.startswith(_FIELD_MANAGER)]
    outputs = {"__initialApiVersion": thing.api_version, "__inputs": resource["inputs"], **resource["inputs"]}
    if ours:
        outputs["__fieldManager"] = ours[0]
    return {**resource, "id": thing.id, "outputs": outputs}


def _pulumi(arguments: Sequence[str], environment: Mapping[str, str], project: Path) -> str:
    """Standard output of a pulumi command that reads or writes a state. Raises Failure."""
    command = ["pulumi", *arguments, "--non-interactive"]
    try:
        done = subprocess.run(
            command, cwd=project, env=dict(environment), capture_output=True, text=True, timeout=_PULUMI_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"`pulumi {' '.join(arguments[:2])}` did not end within {_PULUMI_SECONDS:.0f} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise Failure(f"`pulumi {' '.join(arguments[:2])}` failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout
