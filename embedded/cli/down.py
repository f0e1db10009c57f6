"""`demo down`: `pulumi destroy` of the local stack, then the cluster's processes; works from any half state."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from embedded import cluster
from embedded.cli.local_pulumi import alone, has_resources, pulumi_of, run_pulumi
from embedded.home import ClusterInfo, LocalHome, NoCluster
from embedded.leftovers import leftovers
from mistral_on_l4.cli import Failure, terminal

app = typer.Typer()


@app.command()
def down(
    purge: Annotated[bool, typer.Option("--purge", help="Also forget the cluster's data, certificates and logs.")] = False,
) -> None:
    """Destroy the local stack and stop its cluster."""
    console = terminal.console()
    home = LocalHome.default()
    if not home.root.exists():
        console.print(f"nothing to take down: there is no {home.root}")
        return
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


def _stop(home: LocalHome, purge: bool) -> list[str]:
    """Stops the cluster, and one that a rehearsal has left here; what is still there of them. Raises Failure."""
    info = _recorded(home)
    try:
        for inner in home.inner:
            cluster.stop(inner)
        cluster.stop(home)
        left = leftovers(home, info)
        if purge:
            # It looks at what it removes: a wrong $MISTRAL_ON_L4_HOME must not cost somebody's folder.
            cluster.stop(home, purge=True)
    except cluster.ClusterError as error:
        raise Failure(str(error)) from None
    return left


def _destroy(home: LocalHome, console: Console, lock: int) -> None:
    """`pulumi destroy`, if Pulumi's state holds anything. Raises Failure."""
    if not has_resources(home):
        return
    # Destroying needs the cluster: what a crash or a reboot stopped is started again first.
    with pulumi_of(home, console) as environment:
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
