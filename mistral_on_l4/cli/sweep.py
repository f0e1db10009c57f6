"""`demo sweep`: after destroy, the proof that nothing is left in the account that bills or stands in the way."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from mistral_on_l4.aws.account import cluster_name
from mistral_on_l4.aws.leftovers import Leftover, Sweep
from mistral_on_l4.aws.session import AwsTrouble, Clients, in_words
from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_profile, stack_settings
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.openshift import leftovers
from mistral_on_l4.openshift.site import Site
from mistral_on_l4.planner.catalogue import load_catalogue

app = typer.Typer(add_completion=False)


@app.command()
def sweep(stack: StackOption = "dev", as_json: bool = typer.Option(False, "--json", help="Machine-readable.")) -> None:
    """Prove after destroy that nothing billable is left. Exit code 1 if anything is, or if it cannot be told."""
    settings = stack_settings(stack)
    if settings.traits.given_cluster:
        _sweep_cluster(settings, stack, as_json)
        return
    if not settings.traits.aws_account:
        raise Failure(
            f"stack {stack} runs on {settings.platform.value}: there is no AWS account to sweep (`demo down` checks for itself)"
        )
    clients = Clients(settings.region, stack_profile(stack))
    try:
        with in_words():
            who = clients("sts").get_caller_identity()["Account"]
    except AwsTrouble as error:
        raise Failure(str(error)) from None
    name, adopted = cluster_name(settings, stack), settings.cluster.existing
    found, unseen = Sweep(stack, name, settings.region, load_catalogue(), clients, adopted).run()
    if as_json:
        print(json.dumps({"account": who, "leftovers": [asdict(item) for item in found], "unseen": unseen}, indent=2))
    elif found:
        terminal.console().print(_table(found))
    for problem in unseen:
        typer.echo(f"not looked at: {problem}", err=True)
    if found:
        daily = sum(item.usd_per_day or 0 for item in found)
        raise Failure(
            f"{len(found)} leftovers of stack {stack} in account {who}, ${daily:.2f} a day: `pulumi destroy -s {stack}`, or by hand"
        )
    if unseen:
        raise Failure(f"nothing was found, but {len(unseen)} kinds of resources could not be looked at")
    if adopted:
        # Its drivers and EKS tag with the cluster's name alone, which the owner's own things bear as well.
        typer.echo(f"what bears only the name of {name} was left out: the cluster is not this stack's", err=True)
    if not as_json:
        print(f"nothing of stack {stack} is left in account {who}, {settings.region}")


def _sweep_cluster(settings: Settings, stack: str, as_json: bool) -> None:
    with connection_to(settings, stack) as connection:
        found, unseen = leftovers.sweep(Site(connection.client, settings, stack))
    if as_json:
        print(json.dumps({"leftovers": [asdict(item) for item in found], "unseen": unseen}, indent=2))
    elif found:
        table = Table("what", "name", "about", "bills", box=None, header_style="bold")
        for item in found:
            table.add_row(item.kind, *map(escape, (item.name, item.about)), "yes" if item.bills else "no")
        terminal.console().print(table)
    for problem in unseen:
        typer.echo(f"not looked at: {problem}", err=True)
    if found:
        bills = sum(item.bills for item in found)
        raise Failure(f"{len(found)} leftovers of stack {stack}, {bills} of which bill: `pulumi destroy -s {stack}`, or by hand")
    if unseen:
        raise Failure(f"nothing was found, but {len(unseen)} kinds of objects could not be looked at")
    if not as_json:
        print(f"nothing of stack {stack} is left in the cluster")


def _table(found: list[Leftover]) -> Any:
    table = Table(box=None, header_style="bold")
    for column in ("what", "id", "about", "$/day"):
        table.add_column(column, overflow="fold")
    for item in found:
        table.add_row(
            item.kind, *map(escape, (item.id, item.about)), "?" if item.usd_per_day is None else f"{item.usd_per_day:.2f}"
        )
    return table
