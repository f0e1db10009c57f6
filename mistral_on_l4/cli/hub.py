"""`demo hub`: which hub a stack's checkpoints come from, and which checkpoints."""

from __future__ import annotations

import typer
from rich.table import Table

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, stack_settings
from mistral_on_l4.cluster.local import NoLocalStack, local_stack
from mistral_on_l4.config.names import PUBLIC_HUB
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner import PlanError, plan_stack

app = typer.Typer(add_completion=False)


@app.command()
def hub(stack: StackOption = "local") -> None:
    """Name the hub that a stack's checkpoints come from.

    Standard output has its address, for HF_ENDPOINT, and the checkpoints below it.
    """
    settings = stack_settings(stack)
    try:
        plan = plan_stack(settings, stack=stack)
    except PlanError as error:
        raise Failure(str(error), 2) from None
    address, what = _hub(settings)
    print(address)
    typer.echo(what, err=True)
    table = Table(box=None, header_style="bold")
    for column in ("checkpoint", "revision", "prefix in the bucket"):
        table.add_column(column, overflow="fold")
    for row in dict.fromkeys(
        (plan.service(each.name).checkpoint, each.revision, each.prefix) for each in settings.enabled_services
    ):
        table.add_row(*row)
    terminal.console().print(table)


def _hub(settings: Settings) -> tuple[str, str]:
    """(address, what it is). Raises Failure."""
    if settings.hub.endpoint:
        return settings.hub.endpoint, "as hub.endpoint of the stack's file says"
    if not settings.traits.embedded:
        return PUBLIC_HUB, "the public hub; the token for gated models is the Pulumi secret hubToken"
    try:
        return local_stack().hub_url, "the local stand-in: small generated checkpoints under the real names"
    except NoLocalStack as error:
        raise Failure(str(error)) from None
