"""The local cluster as a whole: start it, stop it, ask it what is wrong. Every step can be repeated from any state."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from embedded import addresses, control_plane, crds, kserve, plugins, preflight, processes
from embedded.agent import sandbox
from embedded.control_plane import GENERATION, START_SECONDS, Component
from embedded.home import CHECKOUT, STORAGE_CLASS, ClusterInfo, LocalHome, NoCluster
from embedded.pki import ensure_pki
from embedded.progress import FAILED, Quiet, Report
from embedded.toolchain import NAMES, ToolFailed, ensure_tools, found_tool
from embedded.toolchain.locks import LockBusy, held
from embedded.toolchain.pins import SMALL_MODELS
from mistral_on_l4.cluster.client import ApiError, KubeClient

# A start or stop of another command takes this long at most, each of its waits having a deadline of its own.
LOCK_SECONDS = 600.0
# How long a process that runs already may take to respond before it counts as hung and is started again.
HUNG_SECONDS = 10.0
# The agent ends its pods first, each with the grace that its manifest gives it.
AGENT_GRACE = 60.0
GRACE = 15.0
# Without etcd the API server hangs for minutes on SIGTERM, and without the API server so do the controllers. None of them
# holds anything that is not in etcd, so then they are not asked twice.
NO_GRACE = 0.5
LOG_BYTES = 20 * 2**20
# Stopped in this order; those of one line at once.
STOP_ORDER = (("agent",), ("kube-scheduler", "kube-controller-manager", "kserve-manager"), ("kube-apiserver",), ("etcd", "hub"))


class ClusterError(Exception):
    """The cluster could not be started or stopped. One line for people, with what to do or the log to read."""


def start(home: LocalHome, report: Report | None = None, more: Sequence[str] = ()) -> ClusterInfo:
    """Brings the cluster of this home up and returns its addresses; what runs and is well is left as it is.

    more: tools beside those that every local stack needs. The first start builds the tools (minutes). Objects of an earlier run are
    still there. Raises ClusterError.
    """
    report = report or Quiet()
    if (why_not := preflight.refusal() or (preflight.vllm_refusal() if more else None)) is not None:
        raise ClusterError(why_not)
    with _one_line_errors():
        wanted = [name for name in NAMES if name != plugins.PROVIDER]
        tools = ensure_tools([*plugins.provider_tools(home), *wanted, *more], report)
        definitions = crds.ensure_crds(crds.KSERVE, report)
        with _locked(home, report):
            home.make()
            processes.end_strays(home)
            if processes.find(home, "agent") is None:
                # One that runs may be about to write a pod down.
                sandbox.end_unrecorded(home.pods)
            for log in home.logs.glob("*.log"):
                _keep_small(log)
            cluster = _prepare(home, {name: str(path) for name, path in tools.items()})
            _start_all(home, cluster, definitions, report)
    return cluster


def stop(home: LocalHome, report: Report | None = None, purge: bool = False) -> None:
    """Stops every process of this home, in an order in which none waits for another; with `purge` removes the home as well.

    Works from every state: parts missing, hung or killed, a machine that was restarted, a home that never was. Raises ClusterError.
    """
    report = report or Quiet()
    if not home.root.is_dir():
        return
    if purge:
        for inner in home.inner:
            stop(inner, report, purge=True)
    with _one_line_errors(), _locked(home, report):
        _stop_all(home, report)
        processes.end_strays(home)
        for socket in home.run.glob("*.sock"):
            socket.unlink(missing_ok=True)
        kserve.remove_certificates(home)
        if purge:
            _purge(home)


def health(home: LocalHome) -> list[str]:
    """What is wrong with the cluster, one line each; empty if all is well."""
    try:
        cluster = home.cluster()
    except NoCluster as error:
        return [str(error)]
    problems = []
    for component in _components(home, cluster):
        running = processes.find(home, component.name)
        if running is None:
            problems.append(f"{component.name} is not running (log: {home.logs / component.name}.log)")
        elif not component.healthy():
            problems.append(f"{component.name} (pid {running.pid}) runs but is not healthy (log: {running.log})")
    return problems


# -- start -----------------------------------------------------------------------------------------------------------------


def _prepare(home: LocalHome, tools: dict[str, str]) -> ClusterInfo:
    """Addresses, certificates and kubeconfig: those of the last start, renewed where they cannot be kept."""
    try:
        before: ClusterInfo | None = home.cluster()
    except NoCluster:
        before = None
    service_cidr = addresses.choose_range(home, before.service_cidr if before else None)
    hub_host = addresses.hub_host(service_cidr)
    ports = addresses.choose_ports(before.ports if before else {}, _port_holders(home), hub_host)
    privileged = addresses.may_use_privileged_ports(hub_host)
    api_server_port = ports["kube-apiserver"]
    cluster = ClusterInfo(
        service_cidr=service_cidr,
        api_server_url=f"https://127.0.0.1:{api_server_port}",
        api_server_port=api_server_port,
        hub_url=f"http://{hub_host}:{ports['hub']}",
        hub_address=f"{hub_host}:{ports['hub']}",
        storage_class=STORAGE_CLASS,
        privileged_ports=privileged,
        port_shift=0 if privileged else addresses.PORT_SHIFT,
        tools=tools,
        ports=ports,
    )
    ensure_pki(home, addresses.first_address(service_cidr))
    control_plane.write_kubeconfig(home, cluster)
    home.record(cluster)
    return cluster


def _port_holders(home: LocalHome) -> set[str]:
    """Names of ports that running processes of ours hold."""
    running = {name for name in processes.names(home) if processes.find(home, name) is not None}
    held_by = {
        "kserve-manager": {"kserve-webhook", "kserve-metrics", "kserve-health"},
        "agent": {"agent", "kubelet"},
    }
    return {port for name in running for port in held_by.get(name, {name})}


def _start_all(home: LocalHome, cluster: ClusterInfo, definitions: Path, report: Report) -> None:
    generation = control_plane.generation(home)
    components = {component.name: component for component in _components(home, cluster)}
    _stop_outdated(home, components.values(), generation)
    with ThreadPoolExecutor(len(components)) as pool, _interruptible(components):

        def ensure(*names: str) -> list[Future[None]]:
            return [pool.submit(_ensure, home, components[name], generation, report) for name in names]

        def kserve_manager() -> None:
            report.begin("cluster objects")
            try:
                kserve.ensure_objects(home, cluster, definitions, KubeClient.from_kubeconfig(home.kubeconfig))
            finally:
                report.end("cluster objects")
            _ensure(home, components["kserve-manager"], generation, report)

        # The API server waits for etcd itself, and its own start takes far longer.
        beside = ensure("hub")
        storage, server = ensure("etcd", "kube-apiserver")
        if storage.exception() is not None:
            # It would wait for etcd until its own time is over.
            processes.stop(home, "kube-apiserver", NO_GRACE)
        _results([storage, server])
        beside += [*ensure("kube-controller-manager", "kube-scheduler", "agent"), pool.submit(kserve_manager)]
        _results(beside)


@contextmanager
def _interruptible(components: dict[str, Component]) -> Iterator[None]:
    """Makes the threads that wait for a component's health give up once the main thread was interrupted."""
    interrupted = threading.Event()

    def unless_interrupted(component: Component) -> Component:
        def healthy() -> bool:
            if interrupted.is_set():
                raise processes.ProcessFailed(f"waiting for {component.name} was interrupted")
            return component.healthy()

        return dataclasses.replace(component, healthy=healthy)

    components.update({name: unless_interrupted(component) for name, component in components.items()})
    try:
        yield
    except BaseException:
        interrupted.set()
        raise


def _results(futures: Iterable[Future[Any]]) -> None:
    """Waits for all, then raises the first error: what is beside a failure has ended too."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]


def _components(home: LocalHome, cluster: ClusterInfo) -> list[Component]:
    host, _, port = cluster.hub_address.rpartition(":")
    models = found_tool(SMALL_MODELS)
    branch = ("--small-models", str(models)) if models else ()
    hub = Component(
        "hub",
        (sys.executable, "-m", "embedded.hub", "--home", str(home.root), "--listen", cluster.hub_address, *branch),
        lambda: addresses.is_listening(host, int(port)),
        START_SECONDS,
        cwd=CHECKOUT,
    )
    agent_port = cluster.ports["agent"]
    agent = Component(
        "agent",
        (sys.executable, "-m", "embedded.agent", "--home", str(home.root)),
        lambda: control_plane.http_ok(agent_port, "/healthz"),
        START_SECONDS,
        cwd=CHECKOUT,
    )
    return [
        control_plane.etcd(home, cluster),
        control_plane.api_server(home, cluster),
        control_plane.controller_manager(home, cluster),
        control_plane.scheduler(home, cluster),
        kserve.manager(home, cluster),
        hub,
        agent,
    ]


def _stop_outdated(home: LocalHome, components: Iterable[Component], generation: str) -> None:
    """Ends processes that were started with other flags or certificates, or hang, in the order of a stop."""
    outdated = set()
    for component in components:
        running = processes.find(home, component.name)
        if running is not None and _generation_of(running) != component.environment(generation)[GENERATION]:
            outdated.add(component.name)
    if "etcd" in outdated:
        outdated.add("kube-apiserver")
    for together in STOP_ORDER:
        for name in together:
            if name in outdated:
                processes.stop(home, name, _grace(home, name))


def _ensure(home: LocalHome, component: Component, generation: str, report: Report) -> None:
    """Starts a component unless it runs and is healthy, and returns once it is."""
    report.begin(component.name)
    ending = FAILED
    try:
        running = processes.find(home, component.name)
        if running is not None:
            try:
                processes.wait_healthy(running, component.healthy, HUNG_SECONDS, "answering")
                ending = "runs"
                return
            except processes.ProcessFailed:
                processes.stop(home, component.name, NO_GRACE)
        running = processes.start(home, component.name, component.command, component.environment(generation), component.cwd)
        processes.wait_healthy(running, component.healthy, component.seconds, "becoming healthy")
        ending = f"started, pid {running.pid}"
    except OSError as error:
        raise processes.ProcessFailed(f"{component.name} cannot be started: {error}") from None
    finally:
        report.end(component.name, ending)


def restart(home: LocalHome, name: str) -> None:
    """Ends a component of a started cluster and starts it again; returns once it is healthy. Raises ClusterError."""
    with _one_line_errors():
        processes.stop(home, name, NO_GRACE)
        component = next(found for found in _components(home, home.cluster()) if found.name == name)
        _ensure(home, component, control_plane.generation(home), Quiet())


def _generation_of(running: processes.Running) -> str | None:
    with suppress(OSError):
        for entry in Path(f"/proc/{running.pid}/environ").read_bytes().split(b"\0"):
            name, _, text = entry.partition(b"=")
            if name.decode(errors="replace") == GENERATION:
                return text.decode(errors="replace")
    return None


# -- stop ------------------------------------------------------------------------------------------------------------------


def _stop_all(home: LocalHome, report: Report) -> None:
    known = {name for together in STOP_ORDER for name in together}
    # What others started here goes right after the agent: pods, and servers that use the API server.
    others = tuple(name for name in processes.names(home) if name not in known)
    for together in (STOP_ORDER[0], others, *STOP_ORDER[1:]):
        present = [name for name in together if name in processes.names(home)]
        if not present:
            continue
        for name in present:
            report.begin(f"stopping {name}")
        with ThreadPoolExecutor(len(present)) as pool:
            futures = {name: pool.submit(processes.stop, home, name, _grace(home, name)) for name in present}
            for name, future in futures.items():
                future.exception()
                report.end(f"stopping {name}")
        _results(futures.values())
    # Pods of an agent that was killed; one that was asked to end has ended them itself.
    sandbox.end_all(home.pods)
    sandbox.end_unrecorded(home.pods)


def _grace(home: LocalHome, name: str) -> float:
    if name == "agent":
        return AGENT_GRACE
    if name not in ("etcd", "hub") and any(processes.find(home, needed) is None for needed in ("etcd", "kube-apiserver")):
        return NO_GRACE
    return GRACE


def _purge(home: LocalHome) -> None:
    """Removes the home, if it is one: a wrong $MISTRAL_ON_L4_HOME must not cost somebody's folder."""
    last = {home.pki, home.run, home.cluster_lock, home.command_lock}
    # Of a start that failed early, or a purge that was killed, nothing but these is left.
    if not (home.pki.is_dir() and home.run.is_dir()) and not last.issuperset(home.root.iterdir()):
        raise ClusterError(
            f"{home.root} does not look like a local stack's home (no pki, no run): remove it yourself if you mean it"
        )
    addresses.forget_range(home)
    try:
        for entry in sorted(set(home.root.iterdir()) - last):
            sandbox.remove(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.rmtree(home.root)
    except OSError as error:
        raise ClusterError(f"{home.root} could not be removed: {error}") from None


# -- both ------------------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(home: LocalHome, report: Report) -> Iterator[None]:
    def waiting(pid: str) -> None:
        report.note(f"process {pid} is starting or stopping the cluster in {home.root}: waiting for it")

    with held(home.cluster_lock, waiting, LOCK_SECONDS):
        yield


# What says in one line what is wrong.
_NAMED = (
    ToolFailed,
    LockBusy,
    addresses.NoAddress,
    kserve.ObjectsFailed,
    processes.ProcessFailed,
    sandbox.SandboxFailed,
    ApiError,
)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except _NAMED as error:
        raise ClusterError(" ".join(str(error).split())) from None
    except PermissionError as error:
        raise ClusterError(f"no permission for {error.filename}: was it made by another user (sudo)?") from None
    except OSError as error:
        raise ClusterError(f"{error.filename or 'the local stack'}: {error.strerror or error}") from None


def _keep_small(log: Path) -> None:
    """A log that has grown is put aside once, over the one put aside before. A running process goes on writing to it."""
    if log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.old"))
