"""`demo bench`: a load test of the services as Jobs of the cluster, with progress as it runs; results are kept in the bucket."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from mistral_on_l4.cli import INTERRUPTED, Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, connection_to, stack_plan, stack_settings
from mistral_on_l4.cli.weights import store_of
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.live import ServiceState, condition, in_stack_order, pod_problem, services
from mistral_on_l4.config.images import image
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.jobs.measure_service import RESULT, Profile
from mistral_on_l4.manifests.jobs import job_name
from mistral_on_l4.manifests.measuring import ENGINE, PROBE, Bench, Measured, objects
from mistral_on_l4.manifests.serving import API_KEY_SECRET
from mistral_on_l4.measuring.results import QUICK, STANDARD, Measurement, problems_of, results_in
from mistral_on_l4.planner import ServicePlan, StackPlan
from mistral_on_l4.planner.request import Workload

app = typer.Typer(add_completion=False)

_LOOK_SECONDS = 2.0
# Of the CA of the store's certificate, in the services' namespace (components/store_certificate.py).
_CA_CONFIG_MAP = "minio-ca"
_OVERHEAD_SECONDS = 900


@dataclass
class Running:
    """One Job that measures. log: all that it has said; printed: lines of it that were shown; problems: what befell it."""

    state: ServiceState
    plan: ServicePlan
    job: str
    container: str
    log: str = ""
    printed: int = 0
    done: bool = False
    problems: list[str] = field(default_factory=list)


@app.command()
def bench(
    stack: StackOption = "local",
    service: Annotated[list[str] | None, typer.Option("--service", help="Only this one (repeatable).")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A minute instead of the profile; not comparable.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Measure the services under load and keep the results.

    One profile, so that results compare: 256 tokens in, 256 out, with 1, 5, 10 and 15 users. All services are measured at once,
    each on its own GPUs. Ctrl-C keeps what was measured.
    """
    settings = stack_settings(stack)
    profile = QUICK if quick else STANDARD
    plan = stack_plan(settings, stack, Workload(profile.levels, profile.input_tokens, profile.output_tokens))
    now = datetime.now(UTC)
    console = terminal.console()

    def say(line: str) -> None:
        if not as_json:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    interrupted = False
    with connection_to(settings, stack) as connection:
        states = _chosen(connection.client, settings, service or [], plan)
        running = [_start(connection.client, settings, state, plan.service(state.name), profile, now) for state in states]
        try:
            _follow(connection.client, settings, running, say)
        except KeyboardInterrupt:
            interrupted = True
            for one in running:
                if not one.done:
                    one.problems.append("interrupted")
                    _delete(connection.client, settings, one.job)
        after = {state.name: state for state in services(connection.client, settings.namespaces.services)}
    measured = [_measurement(one, after.get(one.state.name), profile, settings, stack, now) for one in running]
    kept = [result for result in measured if result.levels]
    with store_of(settings, stack) as store:
        for result in kept:
            store.put(result.key, result.to_json().encode())
            say(f"kept as s3://{settings.object_store.bucket}/{result.key}")
    if as_json:
        print("[" + ",\n".join(result.to_json() for result in measured) + "]")
    else:
        for result in kept:
            console.print(table(result, plan.service(result.service)))
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if problems := [f"{result.service}: {'; '.join(result.problems)}" for result in measured if result.problems]:
        raise Failure("; ".join(problems))


def table(measured: Measurement, plan: ServicePlan) -> Table:
    """Measured beside planned, one row for each number of users."""
    grid = Table(title=f"{measured.service}, {measured.tool}", title_justify="left", caption_justify="left")
    if measured.simulated:
        grid.caption = "simulated engine: the times are the plan's for one user, replayed"
    for column in ("users", "TTFT p95 ms", "planned", "TPOT ms", "planned", "output tok/s", "planned", "$/1M tokens"):
        grid.add_column(column, justify="right", overflow="fold")
    for result in measured.levels:
        users = int(result["max_concurrency"])
        point = next((point for point in plan.points if point.users == users), None)
        usd = usd_per_million(plan.usd_per_hour, float(result["output_throughput"]))
        grid.add_row(
            str(users),
            _number(result.get("p95_ttft_ms")),
            _number(point.ttft_ms if point else None),
            _number(result.get("mean_tpot_ms")),
            _number(point.tpot_ms if point else None),
            _number(result.get("output_throughput")),
            _number(point.output_tokens_per_s if point else None),
            "-" if usd is None else f"{usd:.2f}",
        )
    return grid


def usd_per_million(usd_per_hour: float | None, tokens_per_s: float) -> float | None:
    """Dollars for a million output tokens at a throughput."""
    return None if usd_per_hour is None or tokens_per_s <= 0 else usd_per_hour / (tokens_per_s * 3600) * 1e6


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _chosen(client: KubeClient, settings: Settings, names: Sequence[str], plan: StackPlan) -> list[ServiceState]:
    found = in_stack_order(services(client, settings.namespaces.services), settings)
    known = {state.name: state for state in found if state.ours and state.name in {service.name for service in plan.services}}
    if not known:
        raise Failure(f"no InferenceService in namespace {settings.namespaces.services}: bring the stack up first")
    if unknown := [name for name in names if name not in known]:
        raise Failure(f"no service {unknown[0]!r}; the services are {', '.join(known)}", code=2)
    chosen = [known[name] for name in names] if names else list(known.values())
    if waiting := [f"{state.name}: {state.problem}" for state in chosen if not state.ready]:
        raise Failure(f"not ready, so there is nothing to measure: {'; '.join(waiting)}")
    return chosen


def _start(
    client: KubeClient, settings: Settings, state: ServiceState, plan: ServicePlan, profile: Profile, now: datetime
) -> Running:
    namespace = settings.namespaces.services
    seconds = sum(
        profile.prompts(point.users) / point.users * (point.ttft_ms + point.tpot_ms * profile.output_tokens) / 1000
        for point in plan.points
    )
    measured = Measured(
        name=job_name("bench", state.name, now.strftime("%Y%m%d-%H%M%S")),
        service=state.name,
        namespace=namespace,
        url=f"http://{state.name}-predictor.{namespace}.svc",
        profile=profile,
        guarded=_guarded(client, namespace),
        image=image("jobs", settings.images),
        deadline_seconds=int(3 * seconds) + _OVERHEAD_SECONDS,
        pull_secret=settings.images.pull_secret,
        user_ids=settings.traits.pod_user_ids,
    )
    own = next(service for service in settings.enabled_services if service.name == state.name)
    ca = _CA_CONFIG_MAP if settings.object_store.kind == "minio" else None
    # A simulation has no tool of its own; any other engine brings the one of its version.
    tool = (
        None
        if settings.traits.embedded
        else Bench(image("engine", settings.images, plan.image), own.prefix, settings.traits.storage_key, ca)
    )
    scripts, job = objects(measured, tool)
    made = client.create(job, namespace)
    # The scripts go with the Job that uses them.
    meta = made["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
    scripts["metadata"]["ownerReferences"] = [owner]
    client.create(scripts, namespace)
    return Running(state, plan, measured.name, PROBE if tool is None else ENGINE)


def _guarded(client: KubeClient, namespace: str) -> bool:
    try:
        client.get("v1", "Secret", API_KEY_SECRET, namespace)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def _follow(client: KubeClient, settings: Settings, running: Sequence[Running], say: Callable[[str], None]) -> None:
    """Until every Job has ended; what each says is shown as it comes."""
    namespace = settings.namespaces.services
    said: dict[str, str] = {}
    while True:
        for one in running:
            if one.done:
                continue
            job = client.get("batch/v1", "Job", one.job, namespace)
            pods = client.list("v1", "Pod", namespace, label_selector=f"job-name={one.job}")["items"]
            pod = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
            if pod:
                one.log = _log(client, pod, one) or one.log
                problem = pod_problem(pod)
                if not one.log and problem and said.get(one.job) != problem:
                    said[one.job] = problem
                    say(f"{one.state.name}: {problem}")
            lines = one.log.splitlines()
            for line in lines[one.printed :]:
                if not line.startswith(RESULT):
                    say(f"{one.state.name}: {line}")
            one.printed = len(lines)
            failed = condition(job, "Failed") == "True"
            if failed or condition(job, "Complete") == "True":
                one.done = True
                if failed:
                    one.problems.append((pod and pod_problem(pod)) or "its Job failed: `demo logs` shows why")
        if all(one.done for one in running):
            return
        time.sleep(_LOOK_SECONDS)


def _log(client: KubeClient, pod: dict[str, Any], one: Running) -> str:
    meta = pod["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
    try:
        text = str(client.request("GET", path, params={"container": one.container}).get("text", ""))
    except ApiError:
        return ""  # not started yet, or gone with its node
    # The last line may be half written.
    return text if text.endswith("\n") else text.rpartition("\n")[0]


def _delete(client: KubeClient, settings: Settings, job: str) -> None:
    client.delete("batch/v1", "Job", job, settings.namespaces.services, propagation="Background")


def _measurement(
    one: Running, after: ServiceState | None, profile: Profile, settings: Settings, stack: str, now: datetime
) -> Measurement:
    levels = results_in(one.log)
    problems = [*one.problems, *problems_of(levels, profile)]
    if after is None or (after.pod, after.restarts) != (one.state.pod, one.state.restarts):
        problems.append("the service was restarted while it was measured")
    simulated = settings.traits.embedded and one.state.gpus > 0
    return Measurement(
        stack=stack,
        service=one.state.name,
        started=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool="probe of this project" if one.container == PROBE else "vllm bench serve",
        engine=one.plan.engine,
        image=one.plan.image,
        simulated=simulated,
        profile=replace(profile),
        levels=tuple(levels),
        problems=tuple(problems),
    )
