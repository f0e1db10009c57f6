"""The agent: follows the API server and passes every change on to nodes, pods, proxy and provisioner."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from embedded.agent import launch, logs_server, proxy, sandbox
from embedded.agent.admission import Admission
from embedded.agent.context import Context, NoLocalProgram, ProgramLike, pod_name
from embedded.agent.events import Recorder
from embedded.agent.informer import Informer
from embedded.agent.logs_server import NoSuchLog, Source
from embedded.agent.memory import Limited, MemoryWatch
from embedded.agent.nodes import NodeKeeper
from embedded.agent.provisioner import Provisioner
from embedded.agent.streaming import NoSuchContainer, Target
from embedded.agent.worker import PodWorker
from embedded.home import SIMULATED_LABEL, ClusterInfo, LocalHome
from mistral_on_l4.cluster.client import ApiError, KubeClient, Object

_log = logging.getLogger(__name__)
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


def program_for(image: str, cluster: ClusterInfo) -> ProgramLike:
    """What stands for an image on this machine. Raises NoLocalProgram."""
    from embedded.images import table

    try:
        program: ProgramLike = table.program_for(image, cluster)
    except table.NoProgram as problem:
        raise NoLocalProgram(str(problem)) from problem
    return program


class Agent:
    """One for all simulated nodes of a home."""

    def __init__(self, home: LocalHome, cluster: ClusterInfo, programs: Any = program_for) -> None:
        self._home, self._cluster = home, cluster
        self._api = KubeClient.from_kubeconfig(home.kubeconfig)
        self._recorder = Recorder(self._api)
        self._workers: dict[str, PodWorker] = {}
        self._lock = threading.RLock()
        self._nodes = Informer(self._api, "v1", "Node", self._node_changed, label_selector=SIMULATED_LABEL)
        self._pods = Informer(self._api, "v1", "Pod", self._pod_changed)
        self._services = Informer(self._api, "v1", "Service", self._service_changed)
        self._slices = Informer(self._api, "discovery.k8s.io/v1", "EndpointSlice", self._network_changed)
        self._policies = Informer(self._api, "networking.k8s.io/v1", "NetworkPolicy", self._network_changed)
        self._namespaces = Informer(self._api, "v1", "Namespace", self._network_changed)
        self._provisioner = Provisioner(self._api, self._recorder, home)
        self._claims = Informer(self._api, "v1", "PersistentVolumeClaim", self._provisioner.claim_changed)
        self._volumes = Informer(self._api, "v1", "PersistentVolume", self._provisioner.volume_changed)
        self._keeper = NodeKeeper(self._api, self._recorder, home, cluster)
        self._proxy = proxy.Proxy(self._proxy_state, self._cannot_listen, home.logs / "service-proxy.log")
        self._context = Context(
            home=home,
            cluster=cluster,
            api=self._api,
            recorder=self._recorder,
            program_for=lambda image: programs(image, cluster),
            services=self._services.all,
            node=self._nodes.get,
            network_changed=self._proxy.changed,
        )
        self._memory = MemoryWatch(self._limited)
        self._started = False
        self._stopping = False

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns once everything is being watched. Raises ApiError, OSError (a port is taken), TimeoutError."""
        self._servers = [
            logs_server.serve(self._cluster.ports["agent"], self._find_log, self._enter, self._problem, None),
            logs_server.serve(self._cluster.ports["kubelet"], self._find_log, self._enter, self._problem, self._home.pki),
        ]
        self._wait_for_api()
        self._keeper.start()
        self._provisioner.start()
        # Nodes and Services first: a pod that starts needs both, and nobody connects to it before its policies are known.
        self._sync(self._nodes, self._services, self._slices, self._policies, self._namespaces)
        self._proxy.start()
        self._sync(self._pods, self._claims, self._volumes)
        self._remove_leftovers()
        self._memory.start()
        self._started = True
        _log.info("watching %d nodes and %d pods", len(self._nodes.all()), len(self._pods.all()))

    def _wait_for_api(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._keeper.ensure_local_node()
                return
            except ApiError as error:
                if (error.status not in (0, 403, 429) and error.status < 500) or time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def _sync(self, *informers: Informer) -> None:
        for informer in informers:
            informer.start()
        for informer in informers:
            if not informer.synced.wait(_START_SECONDS):
                raise TimeoutError(f"the list of every {informer.kind} did not come within {_START_SECONDS:.0f} s")

    def _remove_leftovers(self) -> None:
        """Ends pods that were deleted while no agent ran, or that the API server never knew."""
        sandbox.end_unrecorded(self._home.pods)
        for folder in sorted(self._home.pods.iterdir()) if self._home.pods.is_dir() else ():
            if folder.is_dir() and folder.name not in self._workers:
                if sandbox.end(folder):
                    _log.info("ended pod %s, which the API server knows no more", folder.name)
                sandbox.remove(folder)

    def stop(self) -> None:
        """Ends every pod's processes and the proxy; the API server's objects stay as they are."""
        self._stopping = True
        self._memory.stop()
        network = (self._services, self._slices, self._policies, self._namespaces)
        for informer in (self._nodes, self._pods, *network, self._claims, self._volumes):
            informer.stop()
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.leave()
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in workers:
            if not worker.done.wait(max(0.1, deadline - time.monotonic())):
                _log.warning("pod %s did not end in time and is killed", pod_name(worker.pod))
        sandbox.end_all(self._home.pods)
        self._keeper.stop()
        self._proxy.stop()

    def _problem(self) -> str:
        return "" if self._started else "not watching yet"

    # -- what the API server says --------------------------------------------------------------------------------------

    def _node_changed(self, what: str, node: Object) -> None:
        name = node["metadata"]["name"]
        if what != "DELETED":
            self._keeper.update(node)
            if what == "ADDED":
                for pod in self._pods.all():
                    if pod["spec"].get("nodeName") == name:
                        self._pod_changed("ADDED", pod)
            return
        self._keeper.forget(name)
        with self._lock:
            lost = [worker for worker in self._workers.values() if worker.node_name == name]
        for worker in lost:
            worker.node_lost()

    def _pod_changed(self, what: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            if self._stopping:
                return
            worker = self._workers.get(uid)
            if what == "DELETED":
                if worker is not None:
                    worker.removed()
                    del self._workers[uid]
                return
            if worker is not None:
                if worker.pod["metadata"].get("labels") != pod["metadata"].get("labels"):
                    self._proxy.changed()
                worker.update(pod)
                return
            node = pod["spec"].get("nodeName")
            if not node or self._nodes.get(node) is None:
                return
            if self._pods.get(pod["metadata"]["name"], pod["metadata"]["namespace"]) is not pod:
                return  # told of by a node that appeared, and gone or replaced in the meantime
            worker = self._workers[uid] = PodWorker(self._context, pod)
        worker.start()

    def _network_changed(self, *_: Any) -> None:
        self._proxy.changed()

    def _service_changed(self, *_: Any) -> None:
        self._proxy.changed()
        with self._lock:
            workers = [worker for worker in self._workers.values() if worker.sandbox_up]
        for worker in workers:
            launch.write_hosts(self._context, worker.pod_with_addresses())

    def _limited(self) -> dict[str, Limited]:
        with self._lock:
            workers = [worker for worker in self._workers.values() if worker.sandbox_up]
        return {mounts: each for worker in workers for mounts, each in worker.limited().items()}

    # -- what others ask -----------------------------------------------------------------------------------------------

    def _proxy_state(self) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        with self._lock:
            up = {uid: worker for uid, worker in self._workers.items() if worker.sandbox_up}
        by_address = {worker.pod_ip: uid for uid, worker in up.items()}
        addresses = {uid: worker.pod_ip for uid, worker in up.items()}
        known = {uid: self._labelled(worker) for uid, worker in up.items()}
        admission = Admission(self._policies.all(), self._namespaces.all(), known, addresses)
        rules = proxy.rules(self._services.all(), self._slices.all(), by_address.get, self._cluster, admission.clients)
        pods = {uid: {"folder": str(worker.folder), "skip": worker.taken_ports} for uid, worker in up.items()}
        return rules, pods

    def _labelled(self, worker: PodWorker) -> Object:
        """The worker's pod as the API server has it now: its labels may have changed since."""
        metadata = worker.pod["metadata"]
        known = self._pods.get(metadata["name"], metadata["namespace"])
        return known if known is not None and known["metadata"]["uid"] == worker.uid else worker.pod

    def _cannot_listen(self, ip: str, port: int, message: str) -> None:
        _log.warning("service address %s:%d: %s", ip, port, message)
        for service in self._services.all():
            if service["spec"].get("clusterIP") == ip:
                self._recorder.warning(service, "CannotListen", f"the local service proxy cannot listen: {message}")

    def _enter(self, namespace: str, name: str, container: str) -> Target:
        pod = self._pods.get(name, namespace)
        worker = self._workers.get(pod["metadata"]["uid"]) if pod is not None else None
        if worker is None or worker.sandbox is None:
            raise NoSuchContainer(f'pod "{name}" in namespace "{namespace}" does not run on a simulated node')
        if not container:
            return Target(worker.sandbox, "", {}, worker.pod_ip)
        holder = next((each for each in worker.containers if each.name == container), None)
        if holder is None or not holder.running:
            raise NoSuchContainer(f'container "{container}" of pod "{name}" does not run')
        return Target(worker.sandbox, container, holder.spec, worker.pod_ip)

    def _find_log(self, namespace: str, name: str, container: str, previous: bool) -> Source:
        pod = self._pods.get(name, namespace)
        worker = self._workers.get(pod["metadata"]["uid"]) if pod is not None else None
        if worker is None:
            raise NoSuchLog(f'pod "{name}" in namespace "{namespace}" does not run on a simulated node')
        holder = next((each for each in worker.containers if each.name == container), None)
        if holder is None:
            raise NoSuchLog(f'container "{container}" is not valid for pod "{name}"')
        attempt = holder.restarts
        if not previous and "waiting" in holder.state and not holder.launched:
            waiting = holder.state["waiting"]
            raise NoSuchLog(
                f'container "{container}" in pod "{name}" is waiting to start: {waiting.get("message") or waiting["reason"]}'
            )
        if previous:
            attempt -= 1
        path = launch.log_file(worker.folder, container, attempt)
        if attempt < 0 or not path.exists():
            which = "previous terminated container" if previous else "log of container"
            raise NoSuchLog(f'{which} "{container}" in pod "{name}" not found')
        return Source(path, lambda: not previous and holder.running and holder.restarts == attempt)
