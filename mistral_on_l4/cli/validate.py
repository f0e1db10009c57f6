"""`demo validate`: the demo's validation list on a running stack, each check with its result and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_plan, stack_settings
from mistral_on_l4.cluster.connection import NoConnection
from mistral_on_l4.cluster.endpoints import NoService, open_endpoints
from mistral_on_l4.cluster.validation import Check, validate

app = typer.Typer(add_completion=False)

_COLOURS = {"pass": "green", "fail": "red", "skip": "yellow"}


@app.command()
def validate_stack(
    stack: StackOption = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Check a running stack: services, GPUs, registry, chat, keys, metrics. Exit code 1 if a check fails."""
    settings = stack_settings(stack)
    console = terminal.console()
    checks: list[Check] = []
    with connection_to(settings, stack) as connection:
        try:
            with open_endpoints(connection, stack_plan(settings, stack)) as endpoints:
                for check in validate(connection, endpoints):
                    checks.append(check)
                    if not as_json:
                        _show(console, check)
        except (NoService, NoConnection) as error:
            raise Failure(str(error)) from None
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    failed = [check for check in checks if check.result == "fail"]
    if failed:
        raise Failure(f"{len(failed)} of {len(checks)} checks failed: {'; '.join(_said(check) for check in failed)}")
    if not as_json:
        skipped = sum(check.result == "skip" for check in checks)
        console.print(f"{len(checks) - skipped} checks passed" + (f", {skipped} skipped" if skipped else ""), highlight=False)


def _show(console: Console, check: Check) -> None:
    line = Text()
    line.append(f"{check.result:<5}", _COLOURS[check.result])
    line.append(f"{check.check:<15} {check.service or '-':<18} {check.why}")
    console.print(line, soft_wrap=True, highlight=False)


def _said(check: Check) -> str:
    return f"{check.service or check.check}: {check.why}"
