"""`demo up`: tools, cluster and `pulumi up` of the local stack, and a chat answer from each service to prove it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import typer
from rich.console import Console

from embedded.cli.local_pulumi import alone, own_home, pulumi_of, run_pulumi, set_right
from embedded.cli.states import LOCAL_STACK
from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.compare import QUESTION, ask_in_turn, table
from mistral_on_l4.cli.expire import said
from mistral_on_l4.cli.stacks import connection_to, stack_plan, stack_settings
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.demo_clock import demo_clock
from mistral_on_l4.cluster.live import ServiceState, in_stack_order, services
from mistral_on_l4.cluster.registered import NoRegistry, registry_of

_READY_SECONDS = 180.0

app = typer.Typer(add_completion=False)


@app.command()
def up() -> None:
    """Bring the local stack up and ask both services a question."""
    console = terminal.console()
    settings = stack_settings(LOCAL_STACK)
    home = own_home(console)
    with alone(home, console) as lock, pulumi_of(home, console) as environment:
        set_right(home, console, environment)
        console.rule("pulumi up", style="dim", align="left")
        # What was changed or deleted behind Pulumi's back is seen by a refresh only.
        code = run_pulumi(["up", "--refresh", "--yes", "--skip-preview", "--suppress-permalink=true"], environment, lock)
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
