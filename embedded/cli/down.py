"""`demo down`: `pulumi destroy` of the local stack, then the cluster's processes; works from any half state."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from embedded import addresses, cluster, processes
from embedded.cli.local_pulumi import alone, own_home, pulumi_of, run_pulumi, set_right
from embedded.cli.states import has_resources, other_stacks
from embedded.home import INNER, ClusterInfo, LocalHome, NoCluster
from embedded.leftovers import leftovers
from mistral_on_l4.cli import Failure, terminal

app = typer.Typer(add_completion=False)


@app.command()
def down(
    purge: Annotated[bool, typer.Option("--purge", help="Also forget the cluster's data, certificates and logs.")] = False,
) -> None:
    """Destroy the local stack and stop its cluster."""
    console = terminal.console()
    home = LocalHome.default()
    if not home.root.exists():
        _stop_without_home(home, console)
        return
    home = own_home(console, purging=purge)
    if purge and (others := other_stacks(home)):
        raise Failure(
            f"a purge of {home.root} would also forget the state of {', '.join(others)}: `pulumi destroy --stack NAME` first, or "
            "`pulumi stack rm --force NAME` for one that may be forgotten"
        )
    # An `up` beside it would go on in a cluster that is being stopped.
    with alone(home, console) as lock:
        try:
            _destroy(home, console, lock)
        except Failure as error:
            if not purge:
                raise
            # The way out of every error must not end at one: what pulumi could not destroy goes with the cluster.
            console.print(f"{str(error).splitlines()[0]}; the purge goes on", style="yellow", markup=False, soft_wrap=True)
        left = _stop(home, purge)
    if left:
        raise Failure("left behind:\n  " + "\n  ".join(left))
    console.print("the cluster is stopped: no process, port, mount or volume of it is left" + (", nor its data" if purge else ""))


def _stop_without_home(home: LocalHome, console: Console) -> None:
    """Stops what still runs of a cluster whose home was removed under it: its data are gone. Raises Failure."""
    roots = [home.root, *(home.root / name for name in INNER)]
    try:
        ended = sum(processes.end_all_of(root) for root in roots)
    except processes.ProcessFailed as error:
        raise Failure(str(error)) from None
    if not ended:
        console.print(f"nothing to take down: there is no {home.root}")
        return
    if left := [line for root in roots for line in leftovers(LocalHome(root), None)]:
        raise Failure("left behind:\n  " + "\n  ".join(left))
    addresses.forget_range(home)
    console.print(f"{home.root} was removed under a running cluster: its {ended} processes are stopped")


def _stop(home: LocalHome, purge: bool) -> list[str]:
    """Stops the cluster, and one that a rehearsal has left here; what is still there of them. Raises Failure."""
    info = _recorded(home)
    try:
        for name in INNER:
            if (home.root / name).is_dir():
                cluster.stop(LocalHome(home.root / name))
            else:
                processes.end_all_of(home.root / name)
        cluster.stop(home)
        left = leftovers(home, info)
        if purge:
            # It looks at what it removes: a wrong $MISTRAL_ON_L4_HOME must not cost somebody's folder.
            cluster.stop(home, purge=True)
    except (cluster.ClusterError, processes.ProcessFailed) as error:
        raise Failure(str(error)) from None
    return left


def _destroy(home: LocalHome, console: Console, lock: int) -> None:
    """`pulumi destroy`, if Pulumi's state holds anything. Raises Failure."""
    if not has_resources(home):
        return
    # Destroying needs the cluster: what a crash or a reboot stopped is started again first.
    with pulumi_of(home, console) as environment:
        set_right(home, console, environment)
        console.rule("pulumi destroy", style="dim", align="left")
        code = run_pulumi(["destroy", "--yes", "--skip-preview", "--suppress-permalink=true"], environment, lock)
    if code:
        raise Failure(
            "`pulumi destroy` did not finish, see above\n"
            "run `make down` again, or `demo down --purge`, which drops the whole cluster with everything in it",
            code,
        )


def _recorded(home: LocalHome) -> ClusterInfo | None:
    try:
        return home.cluster()
    except NoCluster:
        return None
