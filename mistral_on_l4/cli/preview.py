"""`demo preview`: what `pulumi up` would do. An AWS stack is previewed on stand-ins, so no credentials are asked for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

import typer

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.local_pulumi import local_pulumi
from mistral_on_l4.cli.stacks import StackOption, project_folder, stack_settings
from mistral_on_l4.embedded import plugins
from mistral_on_l4.embedded.home import ClusterInfo, LocalHome
from mistral_on_l4.embedded.plugins.aws import LEDGER_VARIABLE
from mistral_on_l4.embedded.progress import console_report
from mistral_on_l4.embedded.toolchain import ensure_tools
from mistral_on_l4.embedded.toolchain.commands import ToolFailed
from mistral_on_l4.settings import PlatformName

app = typer.Typer()

# A folder of its own: a rehearsal's or a local stack's state is no "before" of an AWS stack.
FOLDER = "preview"


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def preview(context: typer.Context, stack: StackOption = "dev") -> None:
    """Preview a stack, on stand-in providers where there are no credentials. Further options go to `pulumi preview`."""
    settings = stack_settings(stack)
    console = terminal.console()
    if settings.platform is PlatformName.LOCAL:
        with local_pulumi(console) as environment:
            code = run_preview(stack, environment, context.args)
    else:
        home = LocalHome(LocalHome.default().root / FOLDER)
        code = run_preview(stack, detached_environment(home, stack, console), context.args)
    if code:
        raise Failure("`pulumi preview` did not finish, see above", code)


def detached_environment(home: LocalHome, stack: str, console: object) -> dict[str, str]:
    """Pulumi with stand-in plugins and an empty account in `home`, without a cluster. Raises Failure."""
    try:
        with console_report(console) as report:  # type: ignore[arg-type]
            tools = {name: str(path) for name, path in ensure_tools(["pulumi", "kubectl"], report).items()}
        home.make()
        info = ClusterInfo("", "", 0, "", "", "", True, 0, tools)
        plugins.install(home, tools)
        plugins.ensure_stack(home, info, project_folder(), stack, select=False)
    except (ToolFailed, plugins.PluginError) as error:
        raise Failure(str(error)) from None
    environment = {
        **os.environ,
        **plugins.pulumi_environment(home, info),
        LEDGER_VARIABLE: str(home.root / "aws-account.json"),
    }
    environment.pop("PULUMI_CONFIG_PASSPHRASE", None)
    return environment


def run_preview(stack: str, environment: Mapping[str, str], arguments: list[str]) -> int:
    command = ["pulumi", "preview", "--stack", stack, "--suppress-permalink=true", *arguments]
    return subprocess.call(command, cwd=project_folder(), env=dict(environment))
