"""What commands share that work on one stack: reading its file, and a connection to its cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mistral_on_l4.cli import Failure
from mistral_on_l4.cluster.client import ApiError, Unreachable
from mistral_on_l4.cluster.connection import Connection, NoConnection, connect
from mistral_on_l4.config.names import STACK_LABEL
from mistral_on_l4.config.settings import Settings, SettingsError, load_stack_file
from mistral_on_l4.config.stack_file import read_stack_file

if TYPE_CHECKING:
    from mistral_on_l4.planner import StackPlan
    from mistral_on_l4.planner.request import Workload

# An API server whose etcd hangs responds after half a minute, or never.
_PROBE_SECONDS = 4.0

StackOption = Annotated[str, typer.Option("--stack", "-s", help="The stack: reads Pulumi.STACK.yaml.", show_default=True)]


def stack_settings(stack: str) -> Settings:
    """Settings of a stack, from the file in this folder or in the checkout; warns of what will be refused. Raises Failure."""
    try:
        settings = load_stack_file(stack, project_folder())
    except SettingsError as error:
        raise Failure(str(error), code=2) from None
    for text in settings.deprecations:
        typer.echo(f"demo: Pulumi.{stack}.yaml: {text}", err=True)
    return settings


def stack_profile(stack: str) -> str | None:
    """The AWS profile that the stack's file names, which signs for Pulumi and for tokens of the cluster; None without one.

    stack: one whose settings were read.
    """
    profile = read_stack_file(project_folder() / f"Pulumi.{stack}.yaml").config.get("aws:profile")
    return str(profile) if profile else None


def acting_on(stack: str, where: str) -> None:
    """Says which stack a command is about to change, and where; on standard error, before it does."""
    typer.echo(f"stack {stack} in {where}", err=True)


def whereabouts(connection: Connection) -> str:
    """Where a connection's cluster is, for people."""
    if connection.local is not None:
        return str(connection.local.home)
    return "the cluster that kubectl points at (KUBECONFIG)"


def project_folder() -> Path:
    """The folder of the Pulumi program: this one or the nearest above that holds Pulumi.yaml, else the package's checkout."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder
    return Path(__file__).resolve().parents[2]


@contextmanager
def connection_to(settings: Settings, stack: str) -> Iterator[Connection]:
    """`connect`, with its errors as Failures; refuses a cluster whose namespace belongs to another stack."""
    try:
        with connect(settings) as connection:
            if connection.local is not None and connection.local.outage:
                raise Failure(connection.local.outage)
            _refuse_another_stack(connection, stack)
            yield connection
    except Unreachable as error:
        raise Failure(f"{error}{': `make up` starts it again' if settings.traits.embedded else ''}") from None
    except (NoConnection, ApiError) as error:
        raise Failure(str(error)) from None


def _refuse_another_stack(connection: Connection, stack: str) -> None:
    """Raises Failure; Unreachable for an API that takes its time, as one without its etcd does."""
    namespace = connection.settings.namespaces.services
    try:
        found = connection.client.request("GET", f"/api/v1/namespaces/{namespace}", timeout=_PROBE_SECONDS)
    except ApiError as error:
        # None yet, or of somebody who may read what is in it and not the namespace itself.
        if error.status in (403, 404):
            return
        raise
    owner = (found["metadata"].get("labels") or {}).get(STACK_LABEL)
    if owner not in (None, stack):
        where = "the local cluster" if connection.local else whereabouts(connection)
        raise Failure(f"namespace {namespace} of {where} is stack {owner}'s, not {stack}'s: log in to the cluster of stack {stack}")


def stack_plan(settings: Settings, stack: str, workload: Workload | None = None) -> StackPlan:
    """What the planner says of a stack, under the usual load or another. Raises Failure."""
    from mistral_on_l4.planner import PlanError, plan_stack

    try:
        return plan_stack(settings, stack=stack, workload=workload)
    except PlanError as error:
        raise Failure(str(error), code=2) from None
