"""`demo url [SERVICE]`: where a stack's services are reached from this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_settings
from mistral_on_l4.cluster.live import service_address
from mistral_on_l4.cluster.reach import Endpoint, endpoints, key_command
from mistral_on_l4.config.settings import Settings

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Address:
    """name: of what is there; url: its base URL; forward: the command that has to run for it, None where it is reached directly."""

    name: str
    url: str
    forward: str | None


@app.command()
def url(
    service: Annotated[
        str | None, typer.Argument(help="A service, `registry` or `object-store`; without it all are listed.")
    ] = None,
    stack: StackOption = "local",
) -> None:
    """Print where a stack's services are reached, and how to get their key.

    Standard output has the base URL alone: curl "$(demo url SERVICE)/v1/models". What else there is to say goes to standard error.
    """
    settings = stack_settings(stack)
    found, key = addresses(settings, stack, service)
    if service is not None:
        [address] = found
        print(address.url)
        if address.forward is not None:
            typer.echo(f"while this runs: {address.forward}", err=True)
    else:
        terminal.console().print(_table(found))
    if key is not None:
        typer.echo(f"key: {key}", err=True)


def addresses(settings: Settings, stack: str, name: str | None) -> tuple[list[Address], str | None]:
    """(addresses of all endpoints, or of the one called `name`; the command that prints the services' key). Raises Failure."""
    chosen = choose(list(endpoints(settings)), name)
    if not settings.traits.direct:
        return [Address(each.name, each.forwarded, each.forward) for each in chosen], key_command(settings, None)
    with connection_to(settings, stack) as connection:
        local = connection.local
        shift = local.port_shift if local else 0
        found = [
            Address(each.name, service_address(connection.client, each.service, each.namespace, shift), None) for each in chosen
        ]
        return found, key_command(settings, local)


def choose(known: Sequence[Endpoint], name: str | None) -> list[Endpoint]:
    """Raises Failure with the names that there are."""
    if name is None:
        return list(known)
    if not (found := [each for each in known if each.name == name]):
        raise Failure(f"no service {name!r}; there are {', '.join(each.name for each in known)}", code=2)
    return found


def _table(found: Sequence[Address]) -> Table:
    table = Table(box=None, header_style="bold")
    for column in (
        ("service", "address", "while this runs") if any(address.forward for address in found) else ("service", "address")
    ):
        table.add_column(column, overflow="fold")
    for address in found:
        table.add_row(address.name, address.url, *([address.forward] if address.forward else []))
    return table
