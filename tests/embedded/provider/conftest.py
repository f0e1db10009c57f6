"""The official Kubernetes provider as the engine meets it: its process, spoken to by its protocol.

The cluster's API server and controllers are real. What a kubelet would report of pods on the node `played` is played by the tests.
"""

from __future__ import annotations

import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc, status_pb2

from embedded import plugins
from embedded.plugins.values import decode, encode
from mistral_on_l4.cluster.client import STRATEGIC_MERGE_PATCH, ApiError, KubeClient

NODE = "played"
SECONDS = 30.0


class Engine(engine_pb2_grpc.EngineServicer):
    """Listens to what a plugin says about its resources."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, bool]] = []
        self._said = threading.Condition()

    def Log(self, request: Any, context: Any) -> Any:
        severity = engine_pb2.LogSeverity.Name(request.severity)
        with self._said:
            self.lines.append((severity, request.message, request.ephemeral))
            self._said.notify_all()
        from google.protobuf.empty_pb2 import Empty

        return Empty()

    def hear(self, part: str, severity: str | None = None) -> str:
        """Waits for a line that contains `part`; returns it."""

        def found() -> str | None:
            return next((m for s, m, _ in self.lines if part in m and severity in (None, s)), None)

        with self._said:
            assert self._said.wait_for(lambda: found() is not None, SECONDS), f"nobody said {part!r}, but {self.lines}"
            line = found()
        assert line is not None
        return line


class InitFailed(Exception):
    """The provider's answer for an object that exists and did not become ready."""

    def __init__(self, detail: Any) -> None:
        super().__init__("; ".join(detail.reasons))
        self.identifier = detail.id
        self.outputs = decode(detail.properties)


class Failed(Exception):
    """Any other refusal of the provider."""


@dataclass
class Resource:
    """One resource's life, in the order of calls that the engine makes. Inputs go through check before anything else."""

    plugin: Plugin
    token: str
    name: str
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    identifier: str = ""

    @property
    def urn(self) -> str:
        return f"urn:pulumi:test::test::{self.token}::{self.name}"

    def check(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        answer = self.plugin.call(
            "Check",
            provider_pb2.CheckRequest(
                urn=self.urn,
                name=self.name,
                type=self.token,
                olds=encode(self.inputs),
                news=encode(inputs),
                randomSeed=secrets.token_bytes(32),
                **options,
            ),
        )
        if answer.failures:
            raise Failed(answer.failures[0].reason)
        return decode(answer.inputs)

    def create(self, inputs: dict[str, Any], timeout: float = 0.0) -> Resource:
        checked = self.check(inputs)
        try:
            answer = self._create(checked, timeout, preview=False)
        except InitFailed as failure:
            self.inputs, self.identifier, self.outputs = checked, failure.identifier, failure.outputs
            raise
        self.inputs, self.identifier, self.outputs = checked, answer.id, decode(answer.properties)
        return self

    def preview(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return decode(self._create(self.check(inputs), 0.0, preview=True).properties)

    def _create(self, checked: dict[str, Any], timeout: float, preview: bool) -> Any:
        return self.plugin.call(
            "Create",
            provider_pb2.CreateRequest(
                urn=self.urn, name=self.name, type=self.token, properties=encode(checked), timeout=timeout, preview=preview
            ),
        )

    def diff(self, inputs: dict[str, Any]) -> Any:
        return self.plugin.call(
            "Diff",
            provider_pb2.DiffRequest(
                id=self.identifier,
                urn=self.urn,
                name=self.name,
                type=self.token,
                olds=encode(self.outputs),
                old_inputs=encode(self.inputs),
                news=encode(self.check(inputs)),
            ),
        )

    def update(self, inputs: dict[str, Any], timeout: float = 0.0) -> Resource:
        checked = self.check(inputs)
        request = provider_pb2.UpdateRequest(
            id=self.identifier,
            urn=self.urn,
            name=self.name,
            type=self.token,
            olds=encode(self.outputs),
            old_inputs=encode(self.inputs),
            news=encode(checked),
            timeout=timeout,
        )
        self.outputs = decode(self.plugin.call("Update", request).properties)
        self.inputs = checked
        return self

    def read(self, identifier: str | None = None) -> Any:
        """(id, outputs, inputs): of an identifier without a state as `get` and import do, else as refresh does."""
        known = identifier is None
        answer = self.plugin.call(
            "Read",
            provider_pb2.ReadRequest(
                id=identifier or self.identifier,
                urn=self.urn,
                name=self.name,
                type=self.token,
                properties=encode(self.outputs if known else {}),
                inputs=encode(self.inputs if known else {}),
            ),
        )
        return answer.id, decode(answer.properties), decode(answer.inputs)

    def delete(self, timeout: float = 0.0) -> None:
        self.plugin.call(
            "Delete",
            provider_pb2.DeleteRequest(
                id=self.identifier,
                urn=self.urn,
                name=self.name,
                type=self.token,
                properties=encode(self.outputs),
                old_inputs=encode(self.inputs),
                timeout=timeout,
            ),
        )


class Plugin:
    """A running provider process."""

    def __init__(self, program: Path, engine: Engine, address: str) -> None:
        self.engine = engine
        self.process = subprocess.Popen([str(program), address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port = self.process.stdout.readline().strip()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = provider_pb2_grpc.ResourceProviderStub(self._channel)

    def call(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=120)
        except grpc.RpcError as error:
            for key, value in error.trailing_metadata() or ():
                if key == "grpc-status-details-bin":
                    detail = provider_pb2.ErrorResourceInitFailed()
                    status_pb2.Status.FromString(value).details[0].Unpack(detail)
                    raise InitFailed(detail) from None
            raise Failed(error.details()) from None

    def configure(self, **values: Any) -> Plugin:
        checked = self.call("CheckConfig", provider_pb2.CheckRequest(urn=PROVIDER_URN, news=encode(values)))
        if checked.failures:
            raise Failed(checked.failures[0].reason)
        # The provider reads the older of the protocol's two forms.
        variables = {f"kubernetes:config:{key}": str(value) for key, value in decode(checked.inputs).items()}
        self.call("Configure", provider_pb2.ConfigureRequest(variables=variables, args=checked.inputs, acceptSecrets=True))
        return self

    def resource(self, token: str, name: str = "thing") -> Resource:
        return Resource(self, token, name)

    def end(self) -> str:
        """Interrupts the process as the engine does; returns what it wrote to standard error."""
        self.process.send_signal(2)
        try:
            _, said = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, said = self.process.communicate()
            said += "panic: it did not end when it was interrupted"
        self._channel.close()
        return str(said)


PROVIDER_URN = "urn:pulumi:test::test::pulumi:providers:kubernetes::p"


@pytest.fixture(scope="session")
def program(cluster: Any) -> Path:
    """The installed provider."""
    plugins.install(cluster.home, cluster.info.tools)
    (program,) = cluster.home.pulumi_home.glob("plugins/resource-kubernetes-v*/pulumi-resource-kubernetes")
    return Path(program)


@pytest.fixture(scope="session")
def engine_address(ear: Engine) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    engine_pb2_grpc.add_EngineServicer_to_server(ear, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture(scope="session")
def ear() -> Engine:
    return Engine()


@pytest.fixture
def engine(ear: Engine) -> Engine:
    """What the plugin tells the engine in this test."""
    ear.lines.clear()
    return ear


@pytest.fixture(scope="session")
def start_plugin(program: Path, ear: Engine, engine_address: str) -> Iterator[Callable[[], Plugin]]:
    started: list[Plugin] = []

    def start() -> Plugin:
        started.append(Plugin(program, ear, engine_address))
        return started[-1]

    yield start
    said = "".join(plugin.end() for plugin in started)
    assert "panic" not in said, said


@pytest.fixture(scope="session")
def plugin(start_plugin: Callable[[], Plugin], cluster: Any) -> Plugin:
    """A provider configured for the cluster as the platforms configure theirs."""
    options = {"enableConfigMapMutable": "true", "enableSecretMutable": "true"}
    return start_plugin().configure(kubeconfig=str(cluster.home.kubeconfig), **options)


@pytest.fixture(scope="session")
def immutable_plugin(start_plugin: Callable[[], Plugin], cluster: Any) -> Plugin:
    """The same at the provider's defaults: data of ConfigMaps and Secrets are replaced."""
    return start_plugin().configure(kubeconfig=str(cluster.home.kubeconfig))


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Any]]]:
    """Runs a call beside the test, which changes the cluster meanwhile."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield pool.submit


class Kubelet:
    """Plays the kubelet of one node: a Node object that nothing else looks after, and statuses of the pods on it."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    def beat(self) -> None:
        """Keeps the node Ready: of a node that is silent for long, the controllers take every pod for not ready."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ready = [{"type": "Ready", "status": "True", "reason": "Played", "lastHeartbeatTime": now}]
        self._client.patch("v1", "Node", NODE, None, {"status": {"conditions": ready}}, STRATEGIC_MERGE_PATCH, "status")

    def pod(self, part: str) -> dict[str, Any]:
        """Waits for a pod whose name starts with `part`, newest first."""

        def find() -> dict[str, Any] | None:
            pods = self._client.list("v1", "Pod", self._namespace)["items"]
            mine = [p for p in pods if p["metadata"]["name"].startswith(part) and not p["metadata"].get("deletionTimestamp")]
            return max(mine, key=lambda p: int(p["metadata"]["resourceVersion"]), default=None)

        return until(find, f"a pod {part}*")

    def report(self, part: str, **status: Any) -> str:
        """Sets fields of a pod's status; returns its name."""
        self.beat()
        name = str(self.pod(part)["metadata"]["name"])
        self._client.patch("v1", "Pod", name, self._namespace, {"status": status}, STRATEGIC_MERGE_PATCH, "status")
        return name

    def run(self, part: str) -> str:
        started = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        containers = [
            {"name": c["name"], "ready": True, "started": True, "restartCount": 0, "image": "x", "imageID": "x", "state": started}
            for c in self.pod(part)["spec"]["containers"]
        ]
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "Initialized")]
        address = {"podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]}
        return self.report(part, phase="Running", conditions=ready, containerStatuses=containers, **address)

    def finish(self, part: str, code: int, message: str = "") -> str:
        ended = {"terminated": {"exitCode": code, "message": message, "reason": "Completed" if code == 0 else "Error"}}
        containers = [{"name": "main", "ready": False, "restartCount": 0, "image": "x", "imageID": "x", "state": ended}]
        return self.report(part, phase="Succeeded" if code == 0 else "Failed", containerStatuses=containers)

    def hold(self, part: str, reason: str, message: str) -> str:
        waiting = {"waiting": {"reason": reason, "message": message}}
        containers = [{"name": "main", "ready": False, "restartCount": 0, "image": "x", "imageID": "x", "state": waiting}]
        return self.report(part, phase="Pending", containerStatuses=containers)


def until(find: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while (found := find()) is None:
        assert time.monotonic() < deadline, f"{what} did not appear within {SECONDS:.0f} s"
        time.sleep(0.05)
    return found


@pytest.fixture
def kubelet(cluster: Any, namespace: str) -> Kubelet:
    tolerated = [{"key": "played", "effect": "NoSchedule"}]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": {"taints": tolerated}}
    with suppress(ApiError):
        cluster.client.create(node)
    played = Kubelet(cluster.client, namespace)
    played.beat()
    return played
