"""The command `demo`. One module per subcommand, imported only when it runs: `demo plan` never imports what `demo up` needs.

A module holds `app`, a typer application of one command or of several. Exit codes: 0 all is well; 1 it did not work, with one
line on standard error; 2 the command was given wrongly.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main
from typer.exceptions import TyperException

# What typer makes of Ctrl-C.
INTERRUPTED = 130

# Name -> (module, help), in the order of a stack's life. Those of the local stack and of rehearsals are `embedded`'s.
COMMANDS = {
    "init": ("mistral_on_l4.cli.init", "Write the stack file of a new environment."),
    "plan": ("mistral_on_l4.cli.plan", "Say whether each service fits, how fast it will be and what it costs."),
    "doctor": ("mistral_on_l4.cli.doctor", "Check an AWS account or an OpenShift cluster before anything is created."),
    "up": ("embedded.cli.up", "Bring the local stack up and ask both services a question."),
    "status": ("mistral_on_l4.cli.status", "Show a running stack from nodes to services."),
    "validate": ("mistral_on_l4.cli.validate", "Check a running stack: services, GPUs, registry, chat, keys, metrics."),
    "compare": ("mistral_on_l4.cli.compare", "Ask the services of a stack the same, side by side."),
    "chat": ("mistral_on_l4.cli.chat", "Talk to a service of a stack."),
    "web": ("mistral_on_l4.cli.web", "Serve the page for the projector, on this machine only."),
    "bench": ("mistral_on_l4.cli.bench", "Measure the services under load and keep the results."),
    "report": ("mistral_on_l4.cli.report", "Write the report: services side by side, measured beside planned."),
    "logs": ("mistral_on_l4.cli.logs", "Print the log of a pod of a stack's cluster."),
    "weights": ("mistral_on_l4.cli.weights", "Verify or prune the checkpoints in the bucket."),
    "preview": ("embedded.cli.preview", "Preview a stack, on stand-in providers where there are no credentials."),
    "rehearse": ("embedded.cli.rehearse", "Bring an AWS stack up and down on stand-in providers."),
    "park": ("mistral_on_l4.cli.park", "Bring the GPU pools to zero and keep everything else."),
    "unpark": ("mistral_on_l4.cli.unpark", "Bring the GPU pools back."),
    "expire": ("mistral_on_l4.cli.expire", "Show, extend or end a stack's time."),
    "sweep": ("mistral_on_l4.cli.sweep", "Prove after destroy that nothing billable is left."),
    "url": ("mistral_on_l4.cli.url", "Print where a stack's services are reached, and how to get their key."),
    "env": ("mistral_on_l4.cli.env", 'Print exports for curl and the openai client: eval "$(demo env SERVICE)".'),
    "hub": ("mistral_on_l4.cli.hub", "Name the hub that a stack's checkpoints come from."),
    "facts": ("mistral_on_l4.cli.facts", "Print what a first run has to confirm, with this run's values."),
    "pr-comment": ("mistral_on_l4.cli.pr_comment", "Write the comment of a pull request from a preview's events."),
    "eks-token": ("mistral_on_l4.cli.eks_token", "Print an ExecCredential for an EKS cluster."),
    "down": ("embedded.cli.down", "Destroy the local stack and stop its cluster."),
}
# Commands of Kubernetes' and Pulumi's machinery, not of people.
HIDDEN = {"eks-token"}


class Failure(Exception):
    """The command did not work; the text is one line for people (a second one may say what to do)."""

    def __init__(self, message: str, code: int = 1) -> None:
        self.code = code
        super().__init__(message)


class LazyGroup(typer.core.TyperGroup):
    """Subcommands from the table above; only the one that runs is imported, and the help imports none."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (typer's signature)
        return [name for name in COMMANDS if name not in HIDDEN]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, text = COMMANDS[cmd_name]
        if ctx.resilient_parsing or _only_help(ctx):
            return typer.core.TyperCommand(name=cmd_name, help=text, short_help=text)
        app: typer.Typer = import_module(module).app
        # Its boxes cut long option names off where a terminal has 80 columns.
        app.rich_markup_mode = None
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command


def _only_help(ctx: Any) -> bool:
    return len(sys.argv) == 2 and sys.argv[1] in ("--help", "-h") and ctx.parent is None


app = typer.Typer(
    cls=LazyGroup,
    help="Mistral-Small-24B on NVIDIA L4: plan it, bring it up, look at it, take it down.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Nothing happens before a command."""


def main() -> None:
    """Runs the command line; the only place where an error becomes a line on standard error and an exit code."""
    try:
        code = app(standalone_mode=False, prog_name="demo")
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
        sys.exit(failure.code)
    except TyperException as error:
        # A wrong word on the command line. `demo` alone has printed its help, and has nothing more to say.
        if said := " ".join(error.format_message().split()):
            print(f"demo: {said} (-h says what there is)", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:  # standard input ended at a question
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("demo: interrupted", file=sys.stderr)
    sys.exit(code)
