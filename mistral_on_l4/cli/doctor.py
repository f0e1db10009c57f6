"""`demo doctor`: an AWS account and the hub, or an OpenShift cluster, checked before anything is created."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from mistral_on_l4.aws.account import cluster_name
from mistral_on_l4.aws.doctor import Doctor, Finding, counts, today
from mistral_on_l4.aws.session import Clients
from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_profile, stack_settings
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.openshift.doctor import examine
from mistral_on_l4.openshift.site import Site
from mistral_on_l4.planner import PlanError, StackPlan, plan_stack
from mistral_on_l4.planner.catalogue import load_catalogue

app = typer.Typer(add_completion=False)

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@app.command()
def doctor(stack: StackOption = "dev", as_json: bool = typer.Option(False, "--json", help="Machine-readable.")) -> None:
    """Check an AWS account or an OpenShift cluster before anything is created. Exit code 1 if something would fail."""
    settings = stack_settings(stack)
    if not settings.traits.aws_account and not settings.traits.given_cluster:
        raise Failure(f"stack {stack} runs on {settings.platform.value}: the doctor looks at AWS accounts and OpenShift clusters")
    try:
        plan = plan_stack(settings, stack=stack)
    except PlanError as error:
        raise Failure(str(error), code=2) from None
    findings = _of_cluster(settings, stack) if settings.traits.given_cluster else _of_account(settings, stack, plan)
    findings += [Finding("fit", "fail", misfit, "see `demo plan`") for misfit in plan.misfits]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        terminal.console().print(_table(findings))
    if failed := counts(findings).get("fail"):
        raise Failure(f"{failed} of {len(findings)} checks failed: stack {stack} would not come up")


def _of_account(settings: Settings, stack: str, plan: StackPlan) -> list[Finding]:
    clients = Clients(settings.region, stack_profile(stack))
    return Doctor(stack, cluster_name(settings, stack), settings, plan, load_catalogue(), clients, _hub, today()).run()


def _of_cluster(settings: Settings, stack: str) -> list[Finding]:
    with connection_to(settings, stack) as connection:
        found = examine(Site(connection.client, settings, stack), load_catalogue())
    return [Finding(item.check, item.state, item.says, item.fix) for item in found]


def _hub(endpoint: str) -> Any:
    from huggingface_hub import HfApi

    # The token of HF_TOKEN or of `hf auth login`; the stack's own secret needs Pulumi and stays there.
    return HfApi(endpoint=endpoint)


def _table(findings: list[Finding]) -> Any:
    table = Table(box=None, header_style="bold")
    for column in ("", "check", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        colour = _COLOURS[finding.state]
        # AWS's own words may hold brackets, which are no markup.
        table.add_row(f"[{colour}]{finding.state}[/{colour}]", *map(escape, (finding.check, finding.says, finding.fix)))
    return table
