"""`demo status`: a running stack from nodes to services, and why something is not ready; once, or as a live view."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_settings
from mistral_on_l4.cluster.client import Unreachable
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.live import ServiceState
from mistral_on_l4.cluster.overview import JobState, Overview, PoolState, overview
from mistral_on_l4.cluster.registered import NoRegistry, registry_of

app = typer.Typer(add_completion=False)

_EVERY_SECONDS = 1.0
_COLOURS = {"complete": "green", "failed": "red", "running": "yellow", "waiting": "yellow"}


@app.command()
def status(
    stack: StackOption = "local",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show a running stack from nodes to services. Exit code 1 if something is not ready, with what blocks it."""
    if watch and as_json:
        raise Failure("--watch and --json go in two commands: a script asks again by itself", code=2)
    settings = stack_settings(stack)
    with connection_to(settings, stack) as connection:
        if watch:
            _watch(connection, stack)
            return
        seen = overview(connection.client, settings)
        try:
            with registry_of(connection) as registry:
                models: list[dict[str, str]] | None = registry.models()
            problems = []
        except NoRegistry as error:
            # What else is known is shown all the same.
            models, problems = None, [str(error)]
    if as_json:
        print(json.dumps({**asdict(seen), "registeredModels": models, "blocking": seen.blocking}, indent=2))
    else:
        console = terminal.console()
        for table in (_pools_table(seen.pools), _jobs_table(seen.jobs), _models_table(models), _services_table(seen.services)):
            if table.row_count:
                console.print(table)
    if not seen.services:
        problems.insert(0, f"no InferenceService in namespace {settings.namespaces.services}: bring the stack up first")
    problems[:0] = seen.blocking if seen.services else ()
    problems[:0] = _stopped_parts(connection)
    if problems:
        raise Failure("; ".join(problems))


def _watch(connection: Connection, stack: str) -> None:
    """Ends at Ctrl-C. Raises Failure then if something still blocks."""
    console = terminal.console()
    last: Overview | None = None
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live:
                for last, trouble in _readings(connection):
                    live.update(_view(stack, last, trouble), refresh=True)
        else:
            said: tuple[str, ...] | None = None
            for last, trouble in _readings(connection):
                lines = (trouble,) if trouble else (last.blocking if last else ())
                if lines != said:
                    said = lines
                    console.print("; ".join(lines) or "ready", markup=False, highlight=False)
    except KeyboardInterrupt:
        pass
    if last is None or last.blocking:
        raise Failure("; ".join(last.blocking) if last else "nothing was read before it was interrupted")


def _readings(connection: Connection) -> Iterator[tuple[Overview | None, str | None]]:
    """(the last good reading, why there is no newer one) for ever."""
    seen: Overview | None = None
    while True:
        begun = time.monotonic()
        trouble = None
        try:
            seen = overview(connection.client, connection.settings)
        except Unreachable as error:
            trouble = f"what is shown may be old: {error}"
        yield seen, trouble
        time.sleep(max(0.0, _EVERY_SECONDS - (time.monotonic() - begun)))


def _view(stack: str, seen: Overview | None, trouble: str | None) -> RenderableType:
    parts: list[RenderableType] = [Text(f"stack {stack} at {time.strftime('%H:%M:%S')}, until Ctrl-C", style="dim")]
    if seen:
        tables = (_pools_table(seen.pools), _jobs_table(seen.jobs), _services_table(seen.services))
        parts += [table for table in tables if table.row_count]
        blocking = seen.blocking
        parts.append(Text(f"blocked by {'; '.join(blocking)}", style="red") if blocking else Text("ready", style="green"))
    if trouble:
        parts.append(Text(trouble, style="red"))
    return Group(*parts)


def _stopped_parts(connection: Connection) -> list[str]:
    if connection.local is None or not connection.local.down:
        return []
    names = ", ".join(connection.local.down)
    return [f"{names} of the local cluster does not run, so what is shown may be old: `make up` starts it again"]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _pools_table(pools: tuple[PoolState, ...] | None) -> Table:
    table = _table("GPU nodes", "pool", "instance type", "ready", "why not")
    for pool in pools or ():
        simulated = ", simulated" if pool.simulated else ""
        table.add_row(pool.name, f"{pool.instance_type}{simulated}", f"{pool.ready} of {pool.wanted}", pool.problem or "")
    return table


def _services_table(states: tuple[ServiceState, ...]) -> Table:
    table = _table("services", "service", "ready", "GPUs", "node", "restarts", "KServe's conditions", "why not")
    for state in states:
        ready = "[green]True[/green]" if state.ready else "[red]False[/red]"
        table.add_row(
            state.name, ready, str(state.gpus), state.node or "-", str(state.restarts), _conditions(state), _why_not(state)
        )
    return table


def _conditions(state: ServiceState) -> str:
    """Those that do not hold, with their status; how many hold."""
    holding = [kind for kind, status in state.conditions.items() if status == "True"]
    # Of a service that runs, Stopped is False.
    rest = [f"{kind}={status}" for kind, status in state.conditions.items() if status != "True" and kind != "Stopped"]
    return ", ".join([*rest, f"{len(holding)} True"])


def _why_not(state: ServiceState) -> str:
    return (state.problem or "") if state.ours else f"not of this stack{f': {state.problem}' if state.problem else ''}"


def _jobs_table(jobs: tuple[JobState, ...]) -> Table:
    table = _table("jobs", "job", "namespace", "state", "says")
    for job in jobs:
        colour = _COLOURS[job.state]
        table.add_row(job.name, job.namespace, f"[{colour}]{job.state}[/{colour}]", Text(job.says))
    return table


def _models_table(models: list[dict[str, str]] | None) -> Table:
    table = _table("registered models", "model", "id", "state")
    for model in models or ():
        table.add_row(model["name"], model["id"], model["state"])
    return table
