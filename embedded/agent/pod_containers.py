"""The containers of one pod: started in order, restarted with back-off, probed and asked to end, on the pod's own thread."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
from functools import partial
from typing import Any

from embedded.agent import launch, probes
from embedded.agent.container_reader import last_words
from embedded.agent.containers import Container, epoch, timestamp
from embedded.agent.context import Context, NoLocalProgram, pod_name
from embedded.agent.environment import ConfigProblem
from embedded.agent.memory import Limited
from embedded.agent.probes import Outcome, Probe
from embedded.agent.sandbox import Sandbox, SandboxFailed, SandboxGone
from embedded.agent.status import HOST_IP
from embedded.agent.volumes import Prepared, VolumeProblem, Volumes
from mistral_on_l4.cluster.client import Object

_log = logging.getLogger(__name__)
_CONFIG_RETRY = 3.0
PROGRAM_RETRY = 30.0
_HOOK_SECONDS = 30.0


class PodContainers:
    """What a PodWorker knows of its containers and does to them. `ending`: nothing is started or restarted any more."""

    def __init__(self, context: Context, pod: Object) -> None:
        self._context = context
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.folder = context.pod_folder(self.uid)
        spec = pod["spec"]
        first = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
        self.containers = [Container(each, True, first) for each in spec.get("initContainers") or []]
        self.containers += [Container(each, False, first) for each in spec["containers"]]
        self._policy: str = spec.get("restartPolicy", "Always")
        self._messages: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.pod_ip = ""
        self.sandbox: Sandbox | None = None
        lookup = context.lookup(pod["metadata"]["namespace"])
        self._volumes = Volumes(context.api, self.folder / "volumes", lookup, lambda: context.node(self.node_name))
        self._prepared: dict[str, Prepared] = {}
        self._ending = False
        self._gone = False

    @property
    def node_name(self) -> str:
        return str(self.pod["spec"].get("nodeName", ""))

    def pod_with_addresses(self) -> Object:
        """The pod as the downward API sees it."""
        known = {**(self.pod.get("status") or {}), "podIP": self.pod_ip, "hostIP": HOST_IP}
        return {**self.pod, "status": known}

    # -- containers ----------------------------------------------------------------------------------------------------

    def _drive(self, now: float) -> None:
        """Starts whatever is due: init containers one after the other, then all the others."""
        for container in self.containers:
            if container.init:
                if container.sidecar:
                    self._keep(container, now)
                    if not container.started:
                        return
                elif not container.succeeded:
                    if not any(each.begun for each in self.containers if not each.init):
                        self._keep(container, now)
                        return
            else:
                self._keep(container, now)

    def _keep(self, container: Container, now: float) -> None:
        if container.running or now < container.retry_at:
            return
        ended = container.terminated
        if ended is not None and not container.restarts_after(ended["exitCode"], self._policy):
            return
        self._start(container, now)

    def _start(self, container: Container, now: float) -> None:
        assert self.sandbox is not None
        attempt = container.restarts + 1 if container.launched else 0
        field = self._field(container)
        try:
            if len(self._prepared) < len(self.pod["spec"].get("volumes") or []):
                self._prepared = self._volumes.prepare(self.pod_with_addresses())
            request, program = launch.request(self._context, self.pod_with_addresses(), container.spec, attempt, self._prepared)
        except NoLocalProgram as problem:
            container.retry_at = now + PROGRAM_RETRY
            if container.wait("NoLocalProgram", str(problem)):
                self._warn("NoLocalProgram", str(problem), field)
            return
        except (ConfigProblem, VolumeProblem) as problem:
            container.retry_at = now + _CONFIG_RETRY
            if container.wait("CreateContainerConfigError", str(problem)):
                self._warn("Failed", f"Error: {problem}", field)
            return
        container.program = program.name
        if program.note:
            self._event("Normal", "LocalProgram", program.note, field)
        termination = launch.termination_file(self.folder, container.name, attempt)
        termination.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        termination.write_bytes(b"")
        termination.chmod(0o666)
        self._forget_old_files(container, attempt)
        container.restarts = attempt
        container.launched = container.begun = True
        container.container_id = self._container_id(container)
        try:
            reply = self.sandbox.call(request)
        except SandboxGone:
            return  # heard of by its closed connection as well
        except SandboxFailed as problem:
            self._event("Warning", "Failed", f"Error: failed to start container: {problem}", field)
            self._ended(container, 128, None, time.time(), time.time(), "StartError", f"failed to start container: {problem}")
            return
        self._event("Normal", "Created", f"Container created: {container.name}", field)
        container.begin(reply["state"]["started"], now, reply["state"]["mounts"])
        self._event("Normal", "Started", f"Container started: {container.name}", field)
        if (hook := (container.spec.get("lifecycle") or {}).get("postStart")) is not None:
            outcome = self._hook(hook, container, _HOOK_SECONDS, self.sandbox)
            if not outcome.success:
                self._warn("FailedPostStartHook", outcome.message, field)
                self._kill(container)

    def _forget_old_files(self, container: Container, attempt: int) -> None:
        """The log of the last attempt stays for `kubectl logs --previous`; older ones go."""
        for old in launch.log_file(self.folder, container.name, attempt).parent.glob("*.log*"):
            number = old.name.partition(".")[0]
            if number.isdigit() and int(number) < attempt - 1:
                old.unlink(missing_ok=True)

    def _ended(
        self,
        container: Container,
        code: int,
        number: int | None,
        started: float,
        finished: float,
        reason: str = "",
        message: str = "",
        back_off: bool = True,
    ) -> None:
        said = message or last_words(self.folder, container.spec, container.restarts, code)
        terminated: dict[str, Any] = {
            "exitCode": code,
            "reason": reason or ("OOMKilled" if container.over_limit and code == 137 else "Completed" if code == 0 else "Error"),
            "startedAt": timestamp(started),
            "finishedAt": timestamp(finished),
            "containerID": container.container_id,
        }
        if number:
            terminated["signal"] = number
        if said:
            terminated["message"] = said
        restart = container.restarts_after(code, self._policy) and not self._ending
        now = time.monotonic()
        delay = container.end(terminated, finished - started, now, restart)
        if restart and delay and back_off:
            words = f"restarting failed container={container.name} pod={pod_name(self.pod).replace('/', '_')}({self.uid})"
            container.wait("CrashLoopBackOff", f"back-off {delay:.0f}s {words}")
            self._warn("BackOff", f"Back-off {words}", self._field(container))
        if not back_off:
            container.retry_at = 0.0

    def _kill(self, container: Container) -> None:
        """Ends one container of a pod that goes on: asked, and killed after the pod's grace."""
        if self.sandbox is None or container.stopping:
            return
        container.stopping = True
        container.probes = []
        container.ready = False
        grace = float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        box, attempt = self.sandbox, container.restarts

        def end() -> None:
            self._ask_to_end(box, container, grace)
            deadline = time.monotonic() + grace
            while time.monotonic() < deadline and container.running and container.restarts == attempt:
                time.sleep(0.1)
            if container.running and container.restarts == attempt:
                box.signal(container.name, signal.SIGKILL, everyone=True)

        threading.Thread(target=end, name=f"kill-{container.name}", daemon=True).start()

    def _ask_to_end(self, box: Sandbox, container: Container, grace: float) -> None:
        hook = (container.spec.get("lifecycle") or {}).get("preStop")
        if hook is not None and grace > 0:
            outcome = self._hook(hook, container, grace, box)
            if not outcome.success:
                self._warn("FailedPreStopHook", outcome.message, self._field(container))
        with contextlib.suppress(SandboxFailed):
            box.signal(container.name, _stop_signal(container))

    def _hook(self, hook: dict[str, Any], container: Container, seconds: float, box: Sandbox) -> Outcome:
        if "sleep" in hook:
            time.sleep(min(float(hook["sleep"].get("seconds") or 0), seconds))
            return Outcome(True)
        return probes.run(hook, container.spec, box, self.pod_ip, seconds)

    def limited(self) -> dict[str, Limited]:
        """Running containers with a memory limit, by mount namespace. From any thread."""
        return {
            container.mounts: Limited(limit, partial(self._exceeded, container, container.restarts))
            for container in self.containers
            if container.running and container.mounts and (limit := container.memory_limit_bytes) is not None
        }

    def _exceeded(self, container: Container, attempt: int, used_bytes: int) -> None:
        """A container was found above its memory limit. From any thread."""
        box = self.sandbox
        if box is None or container.restarts != attempt or not container.running:
            return
        container.over_limit = True
        limit = container.spec["resources"]["limits"]["memory"]
        _log.info("pod %s: container %s uses %d MiB, its limit is %s", pod_name(self.pod), container.name, used_bytes >> 20, limit)
        with contextlib.suppress(SandboxFailed):
            box.signal(container.name, signal.SIGKILL, everyone=True)

    # -- probes --------------------------------------------------------------------------------------------------------

    def _probe(self, now: float) -> None:
        for container in self.containers:
            for probe in container.probes:
                if probe.running or now < probe.due or not container.running:
                    continue
                if container.started == (probe.kind == "startup"):
                    probe.due = now + 0.5 if probe.kind != "startup" else float("inf")
                    continue
                probe.running = True
                self._context.executor.submit(self._try, probe, container, container.restarts)

    def _try(self, probe: Probe, container: Container, attempt: int) -> None:
        box = self.sandbox
        if box is None:
            return
        try:
            outcome = probes.run(probe.spec, container.spec, box, self.pod_ip, probe.timeout)
        except Exception as error:
            _log.exception("probe of %s", pod_name(self.pod))
            outcome = Outcome(False, f"{type(error).__name__}: {error}")
        self._messages.put(("probe", probe, container, attempt, outcome))

    def _probed(self, probe: Probe, container: Container, attempt: int, outcome: Outcome) -> None:
        if probe not in container.probes or container.restarts != attempt or not container.running:
            return
        now = time.monotonic()
        early = probe.early(now)
        verdict = probe.record(outcome, now)
        if not outcome.success and not early:
            self._warn("Unhealthy", probes.describe(probe.kind, outcome), self._field(container))
        if probe.kind == "readiness":
            container.ready = container.ready if verdict is None else verdict
        elif probe.kind == "startup" and verdict:
            container.started = True
            container.ready = not any(each.kind == "readiness" for each in container.probes)
            for each in container.probes:
                each.due = float("inf") if each is probe else now
        if verdict is False and probe.kind != "readiness":
            message = f"Container {container.name} failed {probe.kind} probe, will be restarted"
            self._event("Normal", "Killing", message, self._field(container))
            self._kill(container)

    # -- telling -------------------------------------------------------------------------------------------------------

    def _warn(self, reason: str, message: str, field: str = "") -> None:
        self._event("Warning", reason, message, field)

    def _event(self, kind: str, reason: str, message: str, field: str = "") -> None:
        if self._gone:
            return
        tell = self._context.recorder.warning if kind == "Warning" else self._context.recorder.normal
        tell(self.pod, reason, message, field)

    @staticmethod
    def _field(container: Container) -> str:
        return f"spec.{'initContainers' if container.init else 'containers'}{{{container.name}}}"

    def _container_id(self, container: Container) -> str:
        return f"mistral-on-l4://{self.uid}-{container.name}-{container.restarts}"


def _stop_signal(container: Container) -> int:
    name = (container.spec.get("lifecycle") or {}).get("stopSignal")
    return int(getattr(signal, name, signal.SIGTERM)) if name else int(signal.SIGTERM)


def began(container: Container, otherwise: float) -> float:
    """When a running container was started, in epoch seconds."""
    started = container.state.get("running", {}).get("startedAt")
    return epoch(started) if started else otherwise
