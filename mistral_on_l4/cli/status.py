"""`demo status`: services, weights and registry entries of a running stack, and why something is not ready."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import requests
import typer
from rich.table import Table

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_settings
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.connection import Connection, NoConnection
from mistral_on_l4.cluster.live import ServiceState, condition, in_stack_order, pod_problem, services
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.manifests.registry import API, service_name

app = typer.Typer(add_completion=False)


@app.command()
def status(
    stack: StackOption = "local",
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """Show services, weights and registry entries of a running stack. Exit code 1 if a service is not ready."""
    settings = stack_settings(stack)
    with connection_to(settings, stack) as connection:
        states = in_stack_order(services(connection.client, settings.namespaces.services), settings)
        jobs = _jobs(connection.client, settings)
        try:
            models: list[dict[str, str]] | None = registered_models(connection)
            problems = []
        except (requests.RequestException, NoConnection) as error:
            # What else is known is shown all the same.
            models, problems = None, [registry_problem(connection, error)]
    if as_json:
        print(json.dumps({"services": [vars(state) for state in states], "jobs": jobs, "registeredModels": models}, indent=2))
    else:
        console = terminal.console()
        for table in (_services_table(states), _jobs_table(jobs), *([] if models is None else [_models_table(models)])):
            console.print(table)
    if not states:
        problems.insert(0, f"no InferenceService in namespace {settings.namespaces.services}: bring the stack up first")
    problems[:0] = [f"{state.name}: {state.problem}" for state in states if state.ours and not state.ready]
    if connection.local is not None and connection.local.down:
        names = ", ".join(connection.local.down)
        problems.insert(0, f"{names} of the local cluster does not run, so what is shown may be old: `make up` starts it again")
    if problems:
        raise Failure("; ".join(problems))


def _jobs(client: KubeClient, settings: Settings) -> list[dict[str, Any]]:
    """The stack's Jobs, oldest first: {"name", "namespace", "state", "says"}; says is the last progress or the failure."""
    rows = []
    spaces = settings.namespaces
    for namespace in (spaces.object_store, spaces.registry, spaces.services):
        pods = client.list("v1", "Pod", namespace, label_selector="job-name")["items"]
        for job in client.list("batch/v1", "Job", namespace)["items"]:
            name = job["metadata"]["name"]
            mine = [pod for pod in pods if pod["metadata"]["labels"].get("job-name") == name]
            pod = max(mine, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
            rows.append(
                {
                    "name": name,
                    "namespace": namespace,
                    "state": _job_state(job),
                    "says": _says(client, pod) if pod else "",
                    "created": job["metadata"]["creationTimestamp"],
                }
            )
    return sorted(rows, key=lambda row: str(row["created"]))


def _job_state(job: Mapping[str, Any]) -> str:
    for kind, word in (("Complete", "complete"), ("Failed", "failed")):
        if condition(job, kind) == "True":
            return word
    return "running" if (job.get("status") or {}).get("active") else "waiting"


def _says(client: KubeClient, pod: Mapping[str, Any]) -> str:
    if (pod.get("status") or {}).get("phase") != "Running" and (problem := pod_problem(pod)):
        return problem
    meta = pod["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
    try:
        text = str(client.request("GET", path, params={"tailLines": "1"}).get("text", ""))
    except ApiError:
        # The log goes with its node or its pod; the Job's state is still worth showing.
        return ""
    return text.strip()


def registered_models(connection: Connection) -> list[dict[str, str]]:
    """Name, id and state of every model in the registry, over its v1alpha3 REST API. Raises RequestException, NoConnection."""
    settings = connection.settings
    try:
        with connection.service(service_name(settings.registry.name), settings.namespaces.registry) as url:
            response = requests.get(f"{url}{API}/registered_models", timeout=10)
            response.raise_for_status()
            items = response.json()["items"]
    except ApiError as error:
        if error.status == 404:
            return []
        raise
    return [{"name": item["name"], "id": item["id"], "state": item.get("state", "")} for item in items]


def registry_problem(connection: Connection, error: Exception) -> str:
    """Why the registry does not answer, by its pod where that knows it."""
    selector = f"app.kubernetes.io/name={connection.settings.registry.name}"
    pods = connection.client.list("v1", "Pod", connection.settings.namespaces.registry, label_selector=selector)["items"]
    pod = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    return f"the model registry does not answer: {(pod and pod_problem(pod)) or type(error).__name__}"


def _services_table(states: list[ServiceState]) -> Table:
    table = Table(title="services", title_justify="left")
    for column in ("service", "ready", "GPUs", "node", "restarts", "why not"):
        table.add_column(column, overflow="fold")
    for state in states:
        ready = "[green]True[/green]" if state.ready else "[red]False[/red]"
        table.add_row(state.name, ready, str(state.gpus), state.node or "-", str(state.restarts), _why_not(state))
    return table


def _why_not(state: ServiceState) -> str:
    return (state.problem or "") if state.ours else f"not of this stack{f': {state.problem}' if state.problem else ''}"


def _jobs_table(jobs: list[dict[str, Any]]) -> Table:
    table = Table(title="jobs", title_justify="left")
    for column in ("job", "namespace", "state", "says"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        table.add_row(job["name"], job["namespace"], job["state"], job["says"])
    return table


def _models_table(models: list[dict[str, str]]) -> Table:
    table = Table(title="registered models", title_justify="left")
    for column in ("model", "id", "state"):
        table.add_column(column, overflow="fold")
    for model in models:
        table.add_row(model["name"], model["id"], model["state"])
    return table
