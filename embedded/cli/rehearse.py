"""`demo rehearse`: an AWS stack up and down without an account, once in calm weather and once with delays and failures."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console

from embedded import cluster, crds, plugins
from embedded.cli.local_pulumi import alone, own_home
from embedded.cli.theatre import Theatre
from embedded.home import REHEARSAL, LocalHome
from embedded.plugins.aws.controllers import Controllers
from embedded.plugins.aws.faults import Switch, switches
from embedded.plugins.aws.ledger import Ledger
from embedded.progress import console_report
from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, project_folder, stack_settings
from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.config.settings import Settings

app = typer.Typer(add_completion=False)

FOLDER = REHEARSAL


@app.command()
def rehearse(
    stack: StackOption = "dev",
    seed: Annotated[int, typer.Option(help="Of the random delays.")] = 1,
    calm: Annotated[bool, typer.Option("--calm", help="Only the first round, without delays and failures.")] = False,
    with_: Annotated[
        list[str] | None, typer.Option("--with", help=f"A hardship of the account, with rounds of its own: {', '.join(Switch)}.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every hardship.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the embedded cluster running at the end.")] = False,
) -> None:
    """Bring an AWS stack up and down on stand-in providers. The last line is JSON; exit code 1 if anything was left or refused."""
    settings = stack_settings(stack)
    if not settings.traits.aws_account:
        raise Failure(
            f"stack {stack} runs on {settings.platform.value}: only AWS stacks are rehearsed (`make up` is the real thing)"
        )
    try:
        chosen = frozenset(Switch) if every else switches(with_ or ())
    except ValueError as error:
        raise Failure(str(error), 2) from None
    console = terminal.console()
    home = LocalHome(own_home().root / FOLDER)
    console.print(f"a rehearsal of stack {stack} in {home.root}", style="dim", markup=False, highlight=False, soft_wrap=True)
    _clear_away(home, console)
    with alone(home, console):
        theatre = _play(home, stack, settings, Script(seed, calm, chosen, keep), console)
    problems = theatre.problems()
    for problem in problems:
        console.print(problem, markup=False, highlight=False)
    print(theatre.summary())
    if problems:
        raise Failure(f"the rehearsal of stack {stack} found {len(problems)} problems")


def _clear_away(home: LocalHome, console: Console) -> None:
    """Ends what a killed rehearsal, or one with --keep, has left: its state knows of an account that is not there any more."""
    try:
        with alone(home, console):
            if home.cluster_file.exists():
                console.print("an earlier rehearsal was not taken down: taking it down first")
                cluster.stop(home, purge=True)
    except cluster.ClusterError as error:
        raise Failure(str(error)) from None


def _play(home: LocalHome, stack: str, settings: Settings, script: Script, console: Console) -> Theatre:
    """All rounds; what they showed. Raises Failure."""
    try:
        with console_report(console) as report:
            info = cluster.start(home, report)
            definitions = crds.ensure_crds(crds.KSERVE, report)
        plugins.install(home, info.tools)
        plugins.ensure_stack(home, info, project_folder(), stack)
        theatre = Theatre(home, info, stack, settings, console)
        theatre.configure()
        theatre.clear(definitions)
        with Controllers(home, Ledger(theatre.ledger, settings.region)):
            theatre.calm_round()
            if not script.calm:
                theatre.stormy_rounds(script.seed)
                theatre.killed_round()
            theatre.hard_rounds(script.switches)
        return theatre
    except (cluster.ClusterError, plugins.PluginError, ApiError) as error:
        raise Failure(str(error)) from None
    finally:
        if not script.keep:
            with suppress(cluster.ClusterError):
                cluster.stop(home, purge=True)


@dataclass(frozen=True)
class Script:
    """What is played: see the options of `demo rehearse`."""

    seed: int
    calm: bool
    switches: frozenset[Switch]
    keep: bool
