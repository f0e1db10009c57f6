"""`demo expire`: the demo clock. Shows when a stack's time ends and what it costs by then, extends it, or ends it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from mistral_on_l4.cli import Failure
from mistral_on_l4.cli.park import resize
from mistral_on_l4.cli.stacks import StackOption, acting_on, connection_to, project_folder, stack_plan, stack_settings, whereabouts
from mistral_on_l4.cluster.client import KubeClient
from mistral_on_l4.cluster.demo_clock import DemoClock, demo_clock, extend, in_words
from mistral_on_l4.config.fields import checked_span
from mistral_on_l4.config.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
def expire(
    stack: StackOption = "local",
    more: Annotated[str | None, typer.Option("--extend", help="Add this much time, such as 30m, 2h or 1d.")] = None,
    end: Annotated[bool, typer.Option("--end", help="End it now: GPU pools to zero, then destroy.")] = False,
    if_due: Annotated[bool, typer.Option("--if-due", help="With --end: only where its time is over.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before it ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show, extend or end a stack's time.

    `ttl` in the stack file says how long a stack is meant to be up.
    """
    if (more and end) or (if_due and not end):
        raise Failure("--extend and --end exclude each other, and --if-due belongs to --end", code=2)
    settings = stack_settings(stack)
    now = datetime.now(UTC)
    with connection_to(settings, stack) as connection:
        clock = demo_clock(connection.client, settings, stack_plan(settings, stack).usd_per_hour)
        if clock.started is None:
            if if_due:
                print(f"stack {stack} is not up: nothing is due")
                return
            raise Failure(f"stack {stack} is not up here: there is no namespace {settings.namespaces.services}")
        if more:
            acting_on(stack, whereabouts(connection))
            clock = _extended(connection.client, settings, clock, more, now)
    print(json.dumps(document(clock, now)) if as_json else said(clock, now, settings))
    if end:
        _end(stack, settings, clock, now, if_due, yes)


def said(clock: DemoClock, now: datetime, settings: Settings) -> str:
    """One line: since when, until when, and what it costs."""
    assert clock.started is not None
    free = "" if settings.traits.nodes_bill else " (nothing bills here: prices are those of the imitated instances)"
    so_far = _usd(clock.cost_usd(now))
    since = f"up for {in_words(now - clock.started)}, {so_far} so far"
    if clock.ends is None:
        return f"{since}; no end: `ttl` in the stack file sets one{free}"
    left = clock.left(now) or timedelta()
    when = f"{clock.ends.astimezone():%Y-%m-%d %H:%M %Z}"
    if left < timedelta():
        return f"{since}; its time ended at {when}, {in_words(left)} ago{free}"
    longer = ", extended" if clock.extended else ""
    return f"{since}; ends at {when}, in {in_words(left)}{longer}, and will have cost {_usd(clock.cost_usd(clock.ends))}{free}"


def document(clock: DemoClock, now: datetime) -> dict[str, object]:
    """For a script. Times are RFC 3339."""
    return {
        "started": clock.started.isoformat() if clock.started else None,
        "ends": clock.ends.isoformat() if clock.ends else None,
        "due": clock.ends is not None and now >= clock.ends,
        "extended": clock.extended,
        "usdPerHour": clock.usd_per_hour,
        "usd": clock.cost_usd(now),
        "usdByThen": clock.cost_usd(clock.ends) if clock.ends else None,
    }


def _extended(client: KubeClient, settings: Settings, clock: DemoClock, more: str, now: datetime) -> DemoClock:
    try:
        longer = checked_span(more)
    except ValueError as error:
        raise Failure(f"--extend: {error}", code=2) from None
    if clock.ends is None:
        raise Failure("it has no end that could be later: set `ttl` in the stack file first")
    # A stack that is over gets the time from now on.
    until = max(clock.ends, now) + longer
    extend(client, settings, until)
    return DemoClock(clock.started, until, clock.usd_per_hour, extended=True)


def _end(stack: str, settings: Settings, clock: DemoClock, now: datetime, if_due: bool, yes: bool) -> None:
    if if_due and (clock.ends is None or now < clock.ends):
        print("nothing is due")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise Failure("nobody is there to be asked: --yes ends it all the same", code=2)
        typer.confirm(f"destroy stack {stack} with everything in it?", abort=True)
    if settings.traits.aws_account:
        # What bills most goes first, and stays gone if the rest takes long or fails.
        resize(stack, parked=True)
    command = [sys.executable, "-m", "mistral_on_l4", "down"] if settings.traits.embedded else _destroy(stack)
    ended = subprocess.run(command, cwd=project_folder(), check=False)
    if ended.returncode:
        raise Failure(f"the destroy ended with {ended.returncode}, see above: `demo sweep -s {stack}` says what still bills")
    if settings.traits.aws_account:
        print(f"`demo sweep -s {stack}` proves that nothing is left")


def _destroy(stack: str) -> list[str]:
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        raise Failure("pulumi is not on PATH: the GPU pools are at zero, and `pulumi destroy` is still to come")
    return [pulumi, "destroy", "--yes", "--skip-preview", "--stack", stack]


def _usd(value: float | None) -> str:
    return "an unknown sum" if value is None else f"${value:.2f}"
