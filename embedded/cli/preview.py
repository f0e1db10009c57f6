"""`demo preview`: what `pulumi up` would do. An AWS stack is previewed on stand-ins, so no credentials are asked for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from embedded import charts, plugins
from embedded.cli.local_pulumi import exit_code, local_pulumi, own_home
from embedded.home import PREVIEW, ClusterInfo, LocalHome
from embedded.openshift import handed_over
from embedded.plugins.aws import LEDGER_VARIABLE
from embedded.plugins.aws.assumed import assume
from embedded.plugins.aws.ledger import Ledger
from embedded.progress import console_report
from embedded.toolchain import ensure_tools
from embedded.toolchain.commands import ToolFailed
from mistral_on_l4.aws.account import cluster_name
from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, project_folder, stack_settings
from mistral_on_l4.config.names import ASSUMED_CLUSTER, REHEARSAL_CHARTS, UNREADABLE_SECRET
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.config.stack_file import read_stack_file
from mistral_on_l4.files import write_whole

app = typer.Typer(add_completion=False)

# A folder of its own: a rehearsal's or a local stack's state is no "before" of an AWS stack.
FOLDER = PREVIEW
PLACEHOLDER = UNREADABLE_SECRET


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def preview(context: typer.Context, stack: StackOption = "dev") -> None:
    """Preview a stack, on stand-in providers where there are no credentials. Further options go to `pulumi preview`."""
    settings = stack_settings(stack)
    console = terminal.console()
    if settings.traits.embedded:
        with local_pulumi(console) as environment:
            code = run_preview(stack, environment, context.args)
    else:
        home = LocalHome(own_home().root / FOLDER)
        environment = detached_environment(home, stack, console)
        if assumed := _assumed(home, settings, stack, environment):
            # Standard output is pulumi's: with --json it is a document.
            typer.echo(f"assumed to exist: {'; '.join(assumed)}", err=True)
        code = run_preview(stack, environment, ["--config-file", str(_readable_copy(home, stack)), *context.args])
    if code:
        raise Failure("`pulumi preview` did not finish, see above", code)


def _assumed(home: LocalHome, settings: Settings, stack: str, environment: dict[str, str]) -> list[str]:
    """What the settings say is there already, made up, in words; the environment is told where it lies."""
    if settings.traits.given_cluster:
        file = home.root / "assumed-cluster.json"
        write_whole(file, json.dumps(handed_over.objects(settings)))
        environment[ASSUMED_CLUSTER] = str(file)
        wanted = settings.openshift.operators.model_dump()
        there = ", ".join(name for name, how in wanted.items() if how == "existing") or "nothing"
        return [f"OpenShift {handed_over.OPENSHIFT_VERSION} on AWS in {settings.region}, which has of the operators: {there}"]
    return assume(Ledger(Path(environment[LEDGER_VARIABLE]), settings.region), cluster_name(settings, stack), settings)


def detached_environment(home: LocalHome, stack: str, console: object) -> dict[str, str]:
    """Pulumi with stand-in plugins and an empty account in `home`, without a cluster. Raises Failure."""
    try:
        with console_report(console) as report:  # type: ignore[arg-type]
            tools = {
                name: str(path) for name, path in ensure_tools(["pulumi", "kubectl", *plugins.provider_tools(home)], report).items()
            }
        home.make()
        info = ClusterInfo("", "", 0, "", "", "", True, 0, tools)
        plugins.install(home, tools)
        plugins.ensure_stack(home, info, _bare_project(home), stack, select=False)
    except (ToolFailed, plugins.PluginError) as error:
        raise Failure(str(error)) from None
    return {
        **plugins.command_environment(home, info),
        LEDGER_VARIABLE: str(home.root / "aws-account.json"),
        # The provider loads a chart where it knows the cluster, as it does an adopted one, and nothing can be downloaded here.
        REHEARSAL_CHARTS: str(charts.FOLDER),
    }


def _bare_project(home: LocalHome) -> Path:
    """The project without its stack files: one with secrets has a salt, which a stack of another passphrase cannot be made with."""
    folder = home.root / "project"
    folder.mkdir(mode=0o700, exist_ok=True)
    write_whole(folder / "Pulumi.yaml", (project_folder() / "Pulumi.yaml").read_text())
    return folder


def _readable_copy(home: LocalHome, stack: str) -> Path:
    """A copy of the stack's file for anyone without its passphrase: without its salt, a placeholder in place of each secret."""
    file = project_folder() / f"Pulumi.{stack}.yaml"
    config = read_stack_file(file).config
    hidden: list[str] = []
    copy = home.root / file.name
    write_whole(copy, yaml.safe_dump({"config": {key: _hidden(value, key, hidden) for key, value in config.items()}}))
    if hidden:
        typer.echo(f"not decrypted, a placeholder in each place: {', '.join(hidden)}", err=True)
    return copy


def _hidden(value: Any, path: str, hidden: list[str]) -> Any:
    """The value without what Pulumi has encrypted in it, at any depth; the paths of that are added to `hidden`."""
    if isinstance(value, dict):
        if set(value) == {"secure"}:
            hidden.append(path)
            return PLACEHOLDER
        return {key: _hidden(item, f"{path}.{key}", hidden) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item, f"{path}[{index}]", hidden) for index, item in enumerate(value)]
    return value


def run_preview(stack: str, environment: Mapping[str, str], arguments: list[str]) -> int:
    command = ["pulumi", "preview", "--stack", stack, "--suppress-permalink=true", *arguments]
    return exit_code(subprocess.call(command, cwd=project_folder(), env=dict(environment)), "preview")
