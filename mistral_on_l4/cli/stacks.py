"""What commands share that work on one stack: reading its file, and a connection to its cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml

from mistral_on_l4.cli import Failure
from mistral_on_l4.cluster.client import ApiError, Unreachable
from mistral_on_l4.cluster.connection import Connection, NoConnection, connect
from mistral_on_l4.config.settings import Settings, SettingsError, load_stack_file

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
    document = yaml.safe_load((project_folder() / f"Pulumi.{stack}.yaml").read_text()) or {}
    profile = (document.get("config") or {}).get("aws:profile")
    return None if profile is None else str(profile)


def project_folder() -> Path:
    """The folder of the Pulumi program: this one or the nearest above that holds Pulumi.yaml, else the package's checkout."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder
    return Path(__file__).resolve().parents[2]


@contextmanager
def connection_to(settings: Settings) -> Iterator[Connection]:
    """`connect`, with its errors as Failures."""
    try:
        with connect(settings) as connection:
            yield connection
    except Unreachable as error:
        raise Failure(f"{error}{': `make up` starts it again' if settings.traits.embedded else ''}") from None
    except (NoConnection, ApiError) as error:
        raise Failure(str(error)) from None
