"""`demo facts`: what a first run in an account has to confirm (docs/first-run.md), with this run's values, to be sent back."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from mistral_on_l4.cli import terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_settings
from mistral_on_l4.cluster.facts import facts as facts_of

app = typer.Typer(add_completion=False)


@app.command()
def facts(stack: StackOption = "dev", as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False) -> None:
    """Print what a first run has to confirm, with this run's values.

    Nothing secret is among it. Please send it back in an issue: docs/first-run.md says what was assumed, and where each goes.
    """
    settings = stack_settings(stack)
    with connection_to(settings, stack) as connection:
        found = list(facts_of(connection))
        simulated = connection.local is not None
    day = datetime.now(UTC).date().isoformat()
    if as_json:
        told = {"region": settings.region, "date": day, "simulated": simulated, "facts": [asdict(fact) for fact in found]}
        print(json.dumps(told, indent=2))
        return
    print(f"{settings.region}, {day}{', simulated: no value of these is a real one' if simulated else ''}")
    table = Table(box=None, header_style="bold")
    for column in ("what", "value", "where it goes"):
        table.add_column(column, overflow="fold")
    for fact in found:
        table.add_row(*map(escape, (fact.what, fact.value or "not told", fact.place)))
    terminal.console().print(table)
