"""`demo init`: writes the stack file of a new environment, from answers or from options."""

from __future__ import annotations

import getpass
import re
import sys
from typing import Annotated

import typer
import yaml

from mistral_on_l4.cli import Failure
from mistral_on_l4.cli.stacks import project_folder
from mistral_on_l4.config.settings import SettingsError, settings_of_config
from mistral_on_l4.config.traits import TRAITS, PlatformName
from mistral_on_l4.files import write_whole

app = typer.Typer(add_completion=False)

_HEADER = (
    "# yaml-language-server: $schema=docs/stack.schema.json\n# What is not named here is the default of mistral_on_l4/config/.\n"
)
_STACK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@app.command()
def init(
    environment: Annotated[str, typer.Argument(help="Name of the stack: writes Pulumi.ENVIRONMENT.yaml.")],
    platform: Annotated[str | None, typer.Option(help="local, eks or openshift.")] = None,
    region: Annotated[str | None, typer.Option(help="Of AWS.")] = None,
    profile: Annotated[str | None, typer.Option(help="Of AWS credentials; none for the environment's.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whom to ask about it: a tag on all that bills.")] = None,
    ttl: Annotated[str | None, typer.Option(help="How long it is meant to be up, such as 4h.")] = None,
    budget: Annotated[float | None, typer.Option(min=0.01, help="Dollars an hour that policies refuse to exceed.")] = None,
    third: Annotated[bool | None, typer.Option("--w4a16/--no-w4a16", help="The third service, on a GPU of its own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write the stack file of a new environment.

    At a terminal it asks for what no option says; in a script the defaults count.
    """
    if not _STACK.fullmatch(environment):
        raise Failure(f"{environment!r} is no name of a stack: letters, digits, '-', '_' and '.'", code=2)
    path = project_folder() / f"Pulumi.{environment}.yaml"
    if path.exists() and not force:
        raise Failure(f"{path.name} is there already: --force replaces it", code=2)
    built = [name.value for name in PlatformName]
    where = platform or _ask(f"platform ({', '.join(built)})", "eks")
    if where not in built:
        raise Failure(f"platform {where!r}: {', '.join(built)}", code=2)
    traits = TRAITS[PlatformName(where)]
    config: dict[str, object] = {}
    if traits.aws_account:
        config["aws:region"] = region or _ask("AWS region", "us-east-1")
        if named := profile or _ask("AWS profile (empty: the environment's credentials)", ""):
            config["aws:profile"] = named
    config["mistral-on-l4:platform"] = where
    config["mistral-on-l4:tags"] = {"owner": owner or _ask("owner", getpass.getuser())}
    if span := ttl or _ask("time to live, such as 4h (empty: none)", "4h" if traits.nodes_bill else ""):
        config["mistral-on-l4:ttl"] = span
    dollars = budget if budget is not None else _ask("budget in $ an hour", "12")
    try:
        config["mistral-on-l4:budget"] = {"maxHourlyUsd": float(dollars)}
    except ValueError:
        raise Failure(f"the budget is a number of dollars an hour, not {dollars!r}", code=2) from None
    if third if third is not None else _ask("third service, W4A16, for $0.98 an hour more (y/n)", "n").lower().startswith("y"):
        config["mistral-on-l4:services"] = {"mistral-24b-w4a16": {"enabled": True}}
        config["mistral-on-l4:pools"] = {"groups": {"l4-1gpu": {"count": 2}}}
    if not traits.nodes_bill:
        config["mistral-on-l4:objectStore"] = {"volumeSize": "10Gi"}
    try:
        settings_of_config(config, path.name)
    except SettingsError as error:
        raise Failure(str(error), code=2) from None
    write_whole(path, _HEADER + yaml.safe_dump({"config": config}, sort_keys=False), mode=0o644)
    print(f"{path.name} is written")
    print(
        f"next: `pulumi stack init {environment}`, `demo plan -s {environment}`"
        + (f", `demo doctor -s {environment}`" if traits.aws_account else "")
    )


def _ask(what: str, default: str) -> str:
    """What somebody types, or the default where nobody sits there."""
    if not sys.stdin.isatty():
        return default
    answer: str = typer.prompt(what, default=default, show_default=bool(default))
    return answer.strip()
