"""Pulumi against the local stack: a started cluster, the stand-in plugins in their own PULUMI_HOME, a stack that exists."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console

from embedded import cluster, plugins, processes
from embedded.agent import syscalls
from embedded.cli.recovery import drop_broken_attributes, end_orphaned_plugins, forget_locks_of_the_dead, recover
from embedded.cli.states import LOCAL_STACK, begun, state_of
from embedded.home import LocalHome, NotOurs
from embedded.progress import console_report
from embedded.toolchain.locks import LockBusy, held, name_holder
from mistral_on_l4.cli import Failure
from mistral_on_l4.cli.stacks import project_folder
from mistral_on_l4.cluster.client import ApiError, KubeClient

# As long as a first `up` with all its builds may take.
_OTHER_COMMAND_SECONDS = 3600.0
# How often a waiting command looks whether what holds the lock is still of use.
_LOOK_SECONDS = 5.0


def own_home(console: Console | None = None, stack: str = LOCAL_STACK, purging: bool = False) -> LocalHome:
    """The home of this checkout's stack. With a console it says which home and stack a command acts on. Raises Failure."""
    home = LocalHome.default()
    try:
        home.check_owner(purging)
    except NotOurs as error:
        raise Failure(str(error)) from None
    if console is not None:
        console.print(f"stack {stack} in {home.root}", style="dim", markup=False, highlight=False, soft_wrap=True)
    return home


@contextmanager
def local_pulumi(console: Console) -> Iterator[Mapping[str, str]]:
    """Starts what does not run yet; gives the environment in which `pulumi` works on the local stack. Raises Failure."""
    home = own_home()
    with alone(home, console), pulumi_of(home, console) as environment:
        yield environment


@contextmanager
def alone(home: LocalHome, console: Console) -> Iterator[int]:
    """Waits for a command that brings this stack up or down, and keeps others waiting until the context ends.

    Gives the descriptor of the lock. Raises Failure.
    """

    said = False

    def waiting(pid: str) -> None:
        nonlocal said
        if not said:
            console.print(f"process {pid} is bringing this stack up or down: waiting for it")
        said = True

    end = time.monotonic() + _OTHER_COMMAND_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                # A plugin that outlives its pulumi holds the lock that it inherited, for ever.
                end_orphaned_plugins(home)
                lock = stack.enter_context(held(home.command_lock, waiting, _LOOK_SECONDS))
                break
            except LockBusy as error:
                if time.monotonic() > end:
                    raise Failure(str(error)) from None
            except processes.ProcessFailed as error:
                raise Failure(str(error)) from None
        yield lock


@contextmanager
def pulumi_of(home: LocalHome, console: Console, more: Sequence[str] = ()) -> Iterator[Mapping[str, str]]:
    """What local_pulumi does, for a command that is alone. more: tools beside those that every local stack needs."""
    try:
        drop_broken_attributes(home)
        with console_report(console) as report:
            started = cluster.start(home, report, more)
        plugins.install(home, started.tools)
        plugins.ensure_stack(home, started, project_folder(), LOCAL_STACK)
        forget_locks_of_the_dead(home, LOCAL_STACK)
        yield plugins.command_environment(home, started)
    except (cluster.ClusterError, plugins.PluginError, ApiError) as error:
        raise Failure(str(error)) from None


def set_right(home: LocalHome, console: Console, environment: Mapping[str, str]) -> None:
    """Sets right what a killed pulumi has left in the local stack's state, and says what. Raises Failure."""
    # Somebody's own pulumi at work is none of our business: ours will say that the stack is locked.
    if not forget_locks_of_the_dead(home, LOCAL_STACK) or not any(begun(state_of(home))):
        return
    try:
        done = recover(LOCAL_STACK, KubeClient.from_kubeconfig(home.kubeconfig), environment, project_folder())
    except ApiError as error:
        raise Failure(str(error)) from None
    for line in done:
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)


def exit_code(returned: int, what: str, then: str = "run it again") -> int:
    """Of an ended pulumi. then: what to do next.

    Raises Failure where a signal ended it, which a shell shows as 128 and the signal's number.
    """
    if returned >= 0:
        return returned
    name = signal.Signals(-returned).name
    why = ": the kernel does that when memory is short" if name == "SIGKILL" else ""
    raise Failure(f"`pulumi {what}` was ended by {name}{why}; {then}", 128 - returned)


def run_pulumi(arguments: Sequence[str], environment: Mapping[str, str], lock: int) -> int:
    """Runs pulumi in the project on this terminal and returns its exit code. An interrupt goes to pulumi, which ends tidily.

    So it does when this command is killed; until then pulumi holds `lock`, and the next command waits. Raises Failure for a
    pulumi that a signal ended.
    """
    command = ["pulumi", *arguments, "--stack", LOCAL_STACK]
    process = subprocess.Popen(
        command,
        cwd=project_folder(),
        env=dict(environment),
        pass_fds=(lock,),
        preexec_fn=lambda: syscalls.end_with_parent(signal.SIGINT),  # noqa: PLW1509  (one system call, no lock)
    )
    name_holder(lock, process.pid)
    while True:
        try:
            then = "`make up` goes on from here, and what was half made is set right"
            return exit_code(process.wait(), arguments[0], then)
        except KeyboardInterrupt:
            # The terminal has sent the signal to pulumi as well; it cancels what runs and saves its state.
            continue
