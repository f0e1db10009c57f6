"""`demo up`: tools, cluster and `pulumi up` of the local stack, and a chat answer from each service to prove it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, get_args

import typer
import yaml
from rich.console import Console

from embedded.cli.local_pulumi import alone, own_home, pulumi_of, run_pulumi, set_right
from embedded.cli.states import LOCAL_STACK
from embedded.home import LocalHome
from embedded.toolchain import ON_REQUEST
from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.compare import QUESTION, ask_in_turn, table
from mistral_on_l4.cli.expire import said
from mistral_on_l4.cli.stacks import connection_to, project_folder, stack_plan, stack_settings
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.demo_clock import demo_clock
from mistral_on_l4.cluster.live import ServiceState, in_stack_order, services
from mistral_on_l4.cluster.registered import NoRegistry, registry_of
from mistral_on_l4.config.local_engine import LocalEngine
from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.files import write_whole

_READY_SECONDS = 180.0

app = typer.Typer(add_completion=False)


@app.command()
def up(
    engine: Annotated[
        str | None, typer.Option(metavar="simulator|vllm", help="The model server, for this time; else local.engine of the stack.")
    ] = None,
) -> None:
    """Bring the local stack up and ask both services a question."""
    console = terminal.console()
    settings = stack_settings(LOCAL_STACK)
    chosen = _engine(engine, settings)
    home = own_home(console)
    with alone(home, console) as lock, pulumi_of(home, console, ON_REQUEST if chosen == "vllm" else ()) as environment:
        set_right(home, console, environment)
        console.rule("pulumi up", style="dim", align="left")
        # What was changed or deleted behind Pulumi's back is seen by a refresh only.
        arguments = ["up", "--refresh", "--yes", "--skip-preview", "--suppress-permalink=true"]
        if chosen != settings.local.engine:
            arguments += ["--config-file", str(_with_engine(home, chosen))]
        code = run_pulumi(arguments, environment, lock)
    if code:
        raise Failure("`pulumi up` did not finish, see above; `demo status` shows what runs, and `make up` goes on from here", code)
    with connection_to(settings, LOCAL_STACK) as connection:
        states = _ready_services(connection, console)
        console.print(f"models in the registry: {', '.join(_registered(connection))}", style="dim")
        console.rule("one question to each service", style="dim", align="left")
        asked = ask_in_turn(connection, LOCAL_STACK, states, QUESTION, 12)
        clock = demo_clock(connection.client, settings, stack_plan(settings, LOCAL_STACK).usd_per_hour)
    for one in asked:
        console.print(f"[bold]{one.endpoint.name}[/bold] at {one.endpoint.url}: ", end="", highlight=False)
        console.print(one.answer.text.strip() if one.answer else "", markup=False, highlight=False)
    console.print()
    console.print(table(asked))
    if clock.ends is not None:
        console.print(said(clock, datetime.now(UTC), settings), highlight=False, soft_wrap=True)
    console.print(
        'next: eval "$(make -s env)", then pulumi, kubectl and demo work as usual; `make down` removes it all', style="dim"
    )


def _engine(asked: str | None, settings: Settings) -> str:
    """Raises Failure for one that there is not."""
    known = get_args(LocalEngine)
    if asked is not None and asked not in known:
        near = get_close_matches(asked, known, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
        raise Failure(f"no engine {asked!r}{hint}", code=2)
    return asked or settings.local.engine


def _with_engine(home: LocalHome, engine: str) -> Path:
    """A copy of the stack's file with another local engine: no command writes into a tracked file."""
    file = project_folder() / f"Pulumi.{LOCAL_STACK}.yaml"
    document = yaml.safe_load(file.read_text())
    document["config"][f"{PROJECT}:local"] = {"engine": engine}
    copy = home.root / file.name
    write_whole(copy, yaml.safe_dump(document))
    return copy


def _registered(connection: Connection) -> list[str]:
    """The models in the registry. Raises Failure where it does not answer, or lost what was registered."""
    try:
        with registry_of(connection) as registry:
            names = [model["name"] for model in registry.models()]
    except NoRegistry as error:
        raise Failure(str(error)) from None
    if not names:
        raise Failure("the model registry holds no model, though the services are registered there: `demo status` shows its Jobs")
    return names


def _ready_services(connection: Connection, console: Console) -> list[ServiceState]:
    """The services, once all are ready.

    `pulumi up` has waited for what it changed; a pod that a crash or an interrupted update took along may still be on its way back.
    """
    end = time.monotonic() + _READY_SECONDS
    said: str | None = None
    while True:
        found = services(connection.client, connection.settings.namespaces.services)
        # Somebody else's in the same namespace are none of this stack's business.
        states = in_stack_order([state for state in found if state.ours], connection.settings)
        waiting = [f"{state.name}: {state.problem}" for state in states if not state.ready]
        if not waiting:
            for other in (state for state in found if not state.ours and not state.ready):
                console.print(f"not ready, and not this stack's: {other.name}: {other.problem}", style="dim", markup=False)
            return states
        if time.monotonic() > end:
            raise Failure(f"not ready after {_READY_SECONDS:.0f} s: {'; '.join(waiting)}")
        if waiting[0] != said:
            said = waiting[0]
            console.print(f"waiting for {said}", style="dim")
        time.sleep(0.5)
