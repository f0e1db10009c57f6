"""A stack from its nodes to its services in one reading: what is there, what is still coming, and what blocks it.

The lists are asked for at once, so a whole reading takes about as long as its slowest list.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mistral_on_l4.cluster.client import ApiError, KubeClient, Object
from mistral_on_l4.cluster.live import ServiceState, condition, in_stack_order, pod_problem, services
from mistral_on_l4.config.names import POOL_LABEL, SIMULATED_LABEL
from mistral_on_l4.config.settings import Settings

_AT_ONCE = 8


@dataclass(frozen=True)
class PoolState:
    """A pool of GPU nodes. wanted: as the stack file says; ready: nodes that are; simulated: of them, imitations."""

    name: str
    instance_type: str
    wanted: int
    ready: int
    simulated: int
    problem: str | None


@dataclass(frozen=True)
class JobState:
    """A Job. state: waiting, running, complete, failed; says: its last progress, or why it failed; created: RFC 3339."""

    name: str
    namespace: str
    state: str
    says: str
    created: str


@dataclass(frozen=True)
class Overview:
    """pools: None where the reader may not list nodes; missing: services of the stack file that are not in the cluster."""

    pools: tuple[PoolState, ...] | None
    jobs: tuple[JobState, ...]
    services: tuple[ServiceState, ...]
    missing: tuple[str, ...]

    @property
    def blocking(self) -> tuple[str, ...]:
        """What stands between the stack and its readiness, one line each, in the order of its graph; () when it is ready."""
        waiting = [f"{state.name}: {state.problem}" for state in self.services if state.ours and not state.ready]
        waiting += [f"{name}: not in the cluster yet" for name in self.missing]
        if not waiting:
            return ()  # a Job that failed long ago, or a node that is away, blocks nothing then
        lines = [f"pool {pool.name}: {pool.problem}" for pool in self.pools or () if pool.problem]
        lines += [f"Job {job.name}: {job.says or job.state}" for job in self.jobs if job.state != "complete"]
        return (*lines, *waiting)


def overview(client: KubeClient, settings: Settings) -> Overview:
    """Reads everything once. Raises ApiError."""
    spaces = settings.namespaces
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        nodes = threads.submit(_nodes, client)
        found = threads.submit(services, client, spaces.services)
        jobs = {
            name: threads.submit(client.list, "batch/v1", "Job", name)
            for name in (spaces.object_store, spaces.registry, spaces.services)
        }
        pods = {name: threads.submit(client.list, "v1", "Pod", name, label_selector="job-name") for name in jobs}
        rows = []
        for name, listed in jobs.items():
            mine = pods[name].result()["items"]
            rows += [threads.submit(_job, client, job, mine) for job in listed.result()["items"]]
        states = in_stack_order(found.result(), settings)
        there = {state.name for state in states}
        listed_nodes = nodes.result()
        return Overview(
            None if listed_nodes is None else _pools(listed_nodes, settings),
            tuple(sorted((row.result() for row in rows), key=lambda row: row.created)),
            tuple(states),
            tuple(service.name for service in settings.enabled_services if service.name not in there),
        )


def _nodes(client: KubeClient) -> list[Object] | None:
    try:
        items: list[Object] = client.list("v1", "Node", label_selector=POOL_LABEL)["items"]
    except ApiError as error:
        # Nodes are the cluster's; somebody with rights in the stack's namespaces alone may not see them.
        if error.status == 403:
            return None
        raise
    return items


def _pools(nodes: list[Object], settings: Settings) -> tuple[PoolState, ...]:
    used = {service.pool for service in settings.enabled_services}
    states = []
    for pool in settings.pools.groups:
        mine = [node for node in nodes if node["metadata"]["labels"].get(POOL_LABEL) == pool.name]
        ready = [node for node in mine if condition(node, "Ready") == "True"]
        simulated = sum(SIMULATED_LABEL in node["metadata"]["labels"] for node in mine)
        problem = None
        if pool.name in used and len(ready) < max(pool.count, 1):
            problem = "has no nodes (parked)" if not pool.count else f"{len(ready)} of {pool.count} nodes ready"
        states.append(PoolState(pool.name, pool.instance_type, pool.count, len(ready), simulated, problem))
    return tuple(states)


def _job(client: KubeClient, job: Object, pods: list[Object]) -> JobState:
    meta = job["metadata"]
    mine = [pod for pod in pods if pod["metadata"]["labels"].get("job-name") == meta["name"]]
    pod = max(mine, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    says = _says(client, pod) if pod else ""
    return JobState(meta["name"], meta["namespace"], _job_state(job), says, meta["creationTimestamp"])


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
