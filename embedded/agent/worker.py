"""One pod, from binding to removal: a thread that brings what runs in line with what the API server says, as kubelet does."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from typing import Any

from embedded.agent import launch, sandbox, status
from embedded.agent.containers import Container, epoch
from embedded.agent.context import Context, pod_name
from embedded.agent.pod_containers import PROGRAM_RETRY, PodContainers, began
from embedded.agent.sandbox import Sandbox, SandboxFailed, SandboxGone
from embedded.agent.volumes import VolumeProblem
from mistral_on_l4.cluster.client import ApiError, Object

_log = logging.getLogger(__name__)

_REFRESH_SECONDS = 60.0
_MOUNT_RETRY = 2.0
_SANDBOX_RETRY = 5.0
_API_RETRY = 2.0
# On a regular end of the agent, however long the pods' own grace is.
_SHUTDOWN_GRACE = 8.0
_FORCED_GRACE = 1.0
_UNKNOWN = "The container was not there any more when the node agent was started"
_UNSUPPORTED = ("hostNetwork", "hostPID", "hostIPC")


class PodWorker(PodContainers):
    """Owned by the agent; everything happens on its own thread, which messages wake."""

    def __init__(self, context: Context, pod: Object) -> None:
        super().__init__(context, pod)
        self._conditions = status.restore_conditions(pod.get("status") or {})
        self._written: Object | None = None
        self._retry_at = 0.0
        self._refresh_at = 0.0
        self._failed: tuple[str, str] | None = None
        self._deadline: float | None = None  # when what is still running is killed
        self._killed = False
        self._leaving = False
        self._finished = False
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pod-{pod['metadata']['name'][:30]}", daemon=True)

    # -- messages, from any thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def update(self, pod: Object) -> None:
        self._messages.put(("pod", pod))

    def removed(self) -> None:
        """The pod object is gone."""
        self._messages.put(("gone",))

    def node_lost(self) -> None:
        """The pod's node is gone: the pod ends and is deleted."""
        self._messages.put(("lost",))

    def leave(self) -> None:
        """The agent ends regularly: processes end, the API server's objects stay."""
        self._messages.put(("leave",))

    @property
    def sandbox_up(self) -> bool:
        return self.sandbox is not None

    @property
    def taken_ports(self) -> list[int]:
        """Ports of Services that cannot be listened on inside the pod because its containers say that they do.

        None where Services have a network of their own; else the kernel refuses a second listener beside one on every address.
        """
        box = self.sandbox
        if box is None or box.separate:
            return []
        return sorted({int(port["containerPort"]) for each in self.containers for port in each.spec.get("ports") or []})

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._restore()
        except Exception:
            _log.exception("pod %s: taking over what ran before failed", pod_name(self.pod))
        timeout = 0.0
        while not self.done.is_set():
            with contextlib.suppress(queue.Empty):
                self._receive(self._messages.get(timeout=max(0.0, timeout)) if timeout > 0 else self._messages.get_nowait())
                while True:
                    self._receive(self._messages.get_nowait())
            try:
                timeout = self._sync(time.monotonic())
            except ApiError as error:
                _log.info("pod %s: %s", pod_name(self.pod), error)
                timeout = _API_RETRY
            except Exception:
                _log.exception("pod %s", pod_name(self.pod))
                timeout = _API_RETRY
        if self._gone:
            self._context.addresses.release(self.uid)
            sandbox.remove(self.folder)

    def _receive(self, message: tuple[Any, ...]) -> None:
        what = message[0]
        if what == "pod":
            self.pod = message[1]
            if self._written is not None and _ready(self.pod.get("status") or {}) != _ready(self._written):
                self._written = None  # the node controller says so of pods whose node it gave up for a while
        elif what == "gone":
            self._gone = True
        elif what == "lost":
            if not self.pod["metadata"].get("deletionTimestamp"):
                with contextlib.suppress(ApiError):
                    self._delete(grace_seconds=None)
        elif what == "leave":
            self._leaving = True
        elif what == "state" and message[1] is self.sandbox:
            self._container_changed(message[2])
        elif what == "probe":
            self._probed(*message[1:])

    def _sync(self, now: float) -> float:
        """One round. Returns how long nothing will be due."""
        if self._finished:
            return self._end_of_finished()
        if self._gone or self._leaving or self.pod["metadata"].get("deletionTimestamp"):
            return self._stop(now)
        limit = self._active_until()
        if self._failed is None and limit is not None and time.time() >= limit:
            self._failed = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            self._ending = True
        if self._failed is not None:
            return self._stop(now)
        if status.phase(self.containers, self._policy) in ("Succeeded", "Failed"):
            return self._stop(now)  # sidecars may still run
        if self._furnish(now):
            self._drive(now)
            self._probe(now)
            if now >= self._refresh_at:
                self._refresh(now)
        self._write_status()
        return self._next(now)

    def _next(self, now: float) -> float:
        due = [self._refresh_at, self._retry_at]
        for container in self.containers:
            due += [probe.due for probe in container.probes if not probe.running]
            if not container.running:
                due.append(container.retry_at)
        if (limit := self._active_until()) is not None:
            due.append(now + limit - time.time())
        later = [at for at in due if at > now]
        if status.phase(self.containers, self._policy) in ("Succeeded", "Failed"):
            return 0.01
        return min(30.0, *(at - now for at in later)) if later else 30.0

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Takes up a pod that an earlier agent ran, or what a dead machine left of it."""
        known = self.pod.get("status") or {}
        if known.get("phase") in ("Succeeded", "Failed"):
            self._finished = True
            self._load_statuses(known)
            sandbox.end(self.folder)
            return
        self._load_statuses(known)
        self.pod_ip = self._context.addresses.take(self.uid, known.get("podIP", ""))
        earlier = Sandbox(self.folder, lambda state: self._messages.put(("state", earlier, state)))
        if sandbox.alive(self.folder):
            try:
                states = {state["name"]: state for state in earlier.attach()}
            except SandboxGone as error:
                _log.warning("pod %s: its first process does not answer and is ended: %s", pod_name(self.pod), error)
                sandbox.end(self.folder)
            else:
                self.sandbox = earlier
                launch.write_pod_files(self._context, self.pod_with_addresses())
                self._adopt(states)
                self._context.network_changed(False)
                return
        self._lost_processes("ContainerStatusUnknown", _UNKNOWN)

    def _load_statuses(self, known: Object) -> None:
        by_name = {each["name"]: each for kind in ("containerStatuses", "initContainerStatuses") for each in known.get(kind) or []}
        for container in self.containers:
            if (said := by_name.get(container.name)) is not None:
                container.restore(said)

    def _adopt(self, states: dict[str, dict[str, Any]]) -> None:
        now = time.monotonic()
        for container in self.containers:
            container.begun = container.launched
            state = states.get(container.name)
            if state is None or (container.terminated and not self._newer(state, container)):
                continue
            container.restarts = state["attempt"]
            container.begin(state["started"], now - (time.time() - state["started"]), state.get("mounts", ""))
            container.container_id = self._container_id(container)
            if state["finished"] is not None:
                self._container_changed(state)
        for container in self.containers:
            if container.running and container.name not in states:
                self._ended(container, 137, 9, began(container, time.time()), time.time(), "ContainerStatusUnknown", _UNKNOWN)

    @staticmethod
    def _newer(state: dict[str, Any], container: Container) -> bool:
        return bool(state["attempt"] > container.restarts)

    def _furnish(self, now: float) -> bool:
        """Volumes and namespaces. False while something is missing; the pod's events say what."""
        if self.sandbox is not None:
            return True
        if now < self._retry_at:
            return False
        wanted = [field for field in _UNSUPPORTED if self.pod["spec"].get(field)]
        if wanted:
            self._warn("FailedCreatePodSandBox", f"{', '.join(wanted)}: not supported by the local node agent")
            self._retry_at = now + PROGRAM_RETRY
            return False
        if not self.pod_ip:
            self.pod_ip = self._context.addresses.take(self.uid)
        launch.write_pod_files(self._context, self.pod_with_addresses())
        try:
            self._prepared = self._volumes.prepare(self.pod_with_addresses())
        except VolumeProblem as problem:
            self._warn("FailedMount", str(problem))
            self._retry_at = now + (PROGRAM_RETRY if problem.final else _MOUNT_RETRY)
            return False
        tmpfs = [
            {"path": str(each.path), "bytes": each.memory_bytes}
            for each in self._prepared.values()
            if each.memory_bytes is not None
        ]
        made = Sandbox(self.folder, lambda state: self._messages.put(("state", made, state)))
        try:
            made.start(launch.hostname(self.pod), self.pod_ip, tmpfs)
        except (SandboxFailed, SandboxGone, OSError) as error:
            self._warn("FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            self._retry_at = now + _SANDBOX_RETRY
            return False
        self.sandbox = made
        self._refresh_at = now + _REFRESH_SECONDS
        self._context.network_changed(True)
        return True

    def _refresh(self, now: float) -> None:
        self._refresh_at = now + _REFRESH_SECONDS
        try:
            self._volumes.refresh(self.pod_with_addresses())
        except VolumeProblem as problem:
            self._warn("FailedMount", str(problem))

    # -- what pod_init says --------------------------------------------------------------------------------------------

    def _container_changed(self, state: dict[str, Any] | None) -> None:
        """pod_init says that a container ended, or (None) has ended itself."""
        if state is None:
            if self.sandbox is not None and not self._killed:
                _log.warning("pod %s: its first process ended", pod_name(self.pod))
                self._event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
                with contextlib.suppress(SandboxFailed):
                    self.sandbox.kill()
                self.sandbox = None
                self._context.network_changed(False)
                self._lost_processes("Error", "The pod's first process ended, and the container with it")
            return
        for container in self.containers:
            if container.name == state["name"] and container.running and container.restarts == state["attempt"]:
                self._ended(container, state["code"], state["signal"], state["started"], state["finished"])

    def _lost_processes(self, reason: str, message: str) -> None:
        """The namespaces are gone, and every container with them; init containers run again if a new sandbox is made."""
        now = time.time()
        for container in self.containers:
            if container.running:
                self._ended(container, 137, 9, began(container, now), now, reason, message, back_off=False)
        restart = status.phase(self.containers, self._policy) not in ("Succeeded", "Failed")
        for container in self.containers if restart else ():
            container.begun = False
            if container.init and container.terminated:
                container.last = {"terminated": container.terminated}
                container.wait("PodInitializing")

    # -- ending --------------------------------------------------------------------------------------------------------

    def _active_until(self) -> float | None:
        """When the pod will have been active for too long, in epoch seconds."""
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        start = (self._written or self.pod.get("status") or {}).get("startTime")
        return epoch(start) + float(seconds) if seconds is not None and start else None

    def _grace(self) -> float:
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        grace = float(metadata.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds", 30)))
        if self._gone:
            return min(grace, _FORCED_GRACE)
        return min(grace, _SHUTDOWN_GRACE) if self._leaving else grace

    def _stop(self, now: float) -> float:
        """Ends everything: asked at first, killed when the grace is over. Then what is left to say is said."""
        running = [each for each in self.containers if each.running]
        if self._deadline is None:
            self._ending = True
            self._deadline = now + self._grace()
            box = self.sandbox
            for container in running:
                container.probes = []
                if not container.stopping and box is not None:
                    container.stopping = True
                    if not self._leaving:
                        self._event("Normal", "Killing", f"Stopping container {container.name}", self._field(container))
                    threading.Thread(
                        target=self._ask_to_end, args=(box, container, self._grace()), name=f"stop-{container.name}", daemon=True
                    ).start()
        else:
            self._deadline = min(self._deadline, now + self._grace())
        if running and self.sandbox is not None and now < self._deadline:
            if not self._leaving:
                self._write_status()
            return min(self._deadline - now, 5.0)
        self._end_sandbox(running)
        if self._leaving:
            self.done.set()
            return 0.0
        self._write_status()
        self._finished = True
        return 0.01

    def _end_sandbox(self, running: list[Container]) -> None:
        self._killed = True
        if self.sandbox is not None:
            self.sandbox.kill()
            self.sandbox = None
            self._context.network_changed(False)
        if not self._leaving:
            now = time.time()
            for container in running:
                if container.running:
                    self._ended(container, 137, 9, began(container, now), now)
            for container in self.containers:
                if "waiting" in container.state and container.last and container.launched:
                    container.state, container.last = container.last, {}

    def _end_of_finished(self) -> float:
        """A pod whose containers have all ended waits for its deletion, and is then removed."""
        if self._gone or self._leaving:
            self.done.set()
            return 0.0
        if self.pod["metadata"].get("deletionTimestamp"):
            try:
                self._delete(grace_seconds=0)
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
            # Finalizers may keep the object: then the agent hears of its removal later.
        return 30.0

    def _delete(self, grace_seconds: int | None) -> None:
        metadata = self.pod["metadata"]
        self._context.api.delete(
            "v1", "Pod", metadata["name"], metadata["namespace"], "Background", grace_seconds=grace_seconds, uid=self.uid
        )

    # -- telling -------------------------------------------------------------------------------------------------------

    def _write_status(self) -> None:
        if self._gone:
            return
        wanted = status.build(self.pod, self.containers, self.pod_ip, self.sandbox_up, self._conditions, time.time(), self._failed)
        if self._written is not None:
            wanted["startTime"] = self._written["startTime"]
        if wanted == self._written:
            return
        metadata = self.pod["metadata"]
        body = {"metadata": {"uid": self.uid}, "status": wanted}
        try:
            self._context.api.patch("v1", "Pod", metadata["name"], metadata["namespace"], body, subresource="status")
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            # Another pod of that name, or none: the watch will say so.
            _log.info("pod %s: status not written: %s", pod_name(self.pod), error)
            return
        # A copy: container states are shared with what changes next.
        self._written = wanted


def _ready(known: Object) -> str | None:
    return next((each["status"] for each in known.get("conditions") or [] if each["type"] == "Ready"), None)
