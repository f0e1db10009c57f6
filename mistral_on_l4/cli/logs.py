"""`demo logs [POD]`: what a container of a stack's cluster wrote, by the pod's name, its beginning, or its service's name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_settings
from mistral_on_l4.cluster.client import Object
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.live import pod_problem

app = typer.Typer(add_completion=False)


@app.command()
def logs(
    pod: Annotated[
        str | None,
        typer.Argument(help="Name of a pod, its beginning, or the name of a service or job; without it pods are listed."),
    ] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Searched everywhere unless named.")] = None,
    container: Annotated[str | None, typer.Option("--container", "-c", help="The one that matters now unless named.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the container ends.")] = False,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the container's run before this one.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="Only the last lines.")] = None,
    stack: StackOption = "local",
) -> None:
    """Print the log of a pod of a stack's cluster, or list the pods."""
    with connection_to(stack_settings(stack), stack) as connection:
        pods = connection.client.list("v1", "Pod", namespace)["items"]
        if pod is None:
            terminal.console().print(pods_table(pods))
            return
        newest, *others = find_pods(pods, pod, namespace)
        if others:
            also = ", ".join(other["metadata"]["name"] for other in others)
            typer.echo(f"# pod {newest['metadata']['name']}, the newest; {pod!r} also means {also}", err=True)
        if previous:
            name = container or main_container(newest)
        else:
            name, previous = choose_container(newest, container)
            if previous:
                typer.echo(f"# container {name} waits to be started again; this is its previous run", err=True)
        code = _print(connection, newest, name, previous, follow, tail)
    raise typer.Exit(code)


def pods_table(pods: Sequence[Object]) -> Table:
    """Every pod with its containers and how it is."""
    table = Table(box=None, header_style="bold")
    for column in ("pod", "namespace", "containers", "state"):
        table.add_column(column, overflow="fold")
    for pod in sorted(pods, key=lambda pod: (str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"]))):
        state = (pod.get("status") or {}).get("phase", "Pending")
        problem = pod_problem(pod) if state not in ("Running", "Succeeded") else None
        meta, containers = pod["metadata"], ", ".join(_containers(pod))
        table.add_row(meta["name"], meta["namespace"], containers, escape(f"{state}: {problem}" if problem else state))
    return table


def find_pods(pods: Sequence[Object], wanted: str, namespace: str | None) -> list[Object]:
    """Pods of that name, else of that service, job or beginning, the newest first. Raises Failure with the names there are."""
    where = f"namespace {namespace}" if namespace else "the cluster"
    for matches in (
        [pod for pod in pods if pod["metadata"]["name"] == wanted],
        [pod for pod in pods if wanted in (pod["metadata"].get("labels") or {}).values()],
        [pod for pod in pods if pod["metadata"]["name"].startswith(wanted)],
    ):
        if not matches:
            continue
        homes = sorted({pod["metadata"]["namespace"] for pod in matches})
        if len(homes) > 1:
            raise Failure(f"{wanted!r} is in several namespaces ({', '.join(homes)}): name one with -n", code=2)
        return sorted(matches, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)
    there = ", ".join(sorted(pod["metadata"]["name"] for pod in pods)) or "none"
    raise Failure(f"no pod called {wanted!r} in {where}; there are: {there}")


def choose_container(pod: Object, wanted: str | None) -> tuple[str, bool]:
    """(container, whether its previous run is meant): the one that holds the pod up, else the first of the main ones.

    A container that waits to be started again has said why it failed in its previous run. Raises Failure where nothing ran yet.
    """
    statuses = _statuses(pod)
    known = _containers(pod)
    if wanted is not None and wanted not in known:
        raise Failure(f"pod {pod['metadata']['name']} has no container {wanted!r}; it has {', '.join(known)}", code=2)
    name = wanted or _in_the_way(pod) or main_container(pod)
    status = statuses.get(name) or {}
    waiting = (status.get("state") or {}).get("waiting")
    if waiting is not None or not status:
        if (status.get("lastState") or {}).get("terminated"):
            return name, True
        raise Failure(f"container {name} of pod {pod['metadata']['name']} has not run yet: {_why(pod, waiting or {})}")
    return name, False


def _containers(pod: Object) -> list[str]:
    return [container["name"] for kind in ("initContainers", "containers") for container in pod["spec"].get(kind) or []]


def main_container(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["name"])


def _in_the_way(pod: Object) -> str | None:
    """The first init container that has not succeeded and has begun."""
    for status in (pod.get("status") or {}).get("initContainerStatuses") or []:
        state = status.get("state") or {}
        if (state.get("terminated") or {}).get("exitCode") == 0:
            continue
        return str(status["name"]) if state else None
    return None


def _statuses(pod: Object) -> dict[str, Mapping[str, Any]]:
    status = pod.get("status") or {}
    both = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return {status["name"]: status for status in both}


def _why(pod: Object, waiting: Mapping[str, Any]) -> str:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"the pod cannot be placed: {condition.get('message') or condition.get('reason')}"
    said = ": ".join(part for part in (waiting.get("reason"), waiting.get("message")) if part)
    return said or "the node agent has not started the pod"


def _print(connection: Connection, pod: Object, container: str, previous: bool, follow: bool, tail: int | None) -> int:
    """Lets kubectl copy the log through the API server to our own output; returns its exit code."""
    meta = pod["metadata"]
    arguments = ["logs", meta["name"], "--namespace", meta["namespace"], "--container", container]
    arguments += ["--previous"] if previous else []
    arguments += ["--follow"] if follow and not previous else []
    arguments += [] if tail is None else ["--tail", str(tail)]
    command, environment = connection.kubectl(arguments)
    try:
        return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
    except OSError as error:
        raise Failure(f"{command[0]} cannot be run: {error.strerror}; `make up` builds it") from None
