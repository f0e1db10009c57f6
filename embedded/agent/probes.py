"""Startup, readiness and liveness probes: what one try says, and what a row of tries means."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedded.agent.sandbox import Sandbox, SandboxFailed, SandboxGone

_MOST_OUTPUT = 1024
_EXEC_KINDS = ("exec", "httpGet", "tcpSocket")
# A program here is up in a fraction of a second: waiting a whole period for the second try would be most of a pod's start.
_EAGER_SECONDS = 0.25


@dataclass(frozen=True)
class Outcome:
    """The result of one try. message: kubelet's words for a failure."""

    success: bool
    message: str = ""


@dataclass
class Probe:
    """One probe of a running container. Times are those of time.monotonic().

    Until `counts_from`, one period after the first try, a startup or readiness probe is tried again soon and failures do not
    count: the one deviation from kubelet, which makes pods ready sooner and none fail that would not have failed a period later.
    """

    kind: str  # startup, readiness or liveness
    spec: Mapping[str, Any]
    due: float
    counts_from: float
    running: bool = False
    successes: int = 0
    failures: int = 0

    @classmethod
    def of(cls, kind: str, spec: Mapping[str, Any], started: float) -> Probe:
        first = started + float(spec.get("initialDelaySeconds") or 0)
        period = float(spec.get("periodSeconds") or 10)
        return cls(kind, spec, first, counts_from=first if kind == "liveness" else first + period)

    def early(self, now: float) -> bool:
        """Whether a failure now would not count."""
        return now < self.counts_from

    @property
    def timeout(self) -> float:
        return float(self.spec.get("timeoutSeconds") or 1)

    def record(self, outcome: Outcome, now: float) -> bool | None:
        """Counts a try. True: the success threshold is reached; False: the failure threshold; None: neither."""
        self.running = False
        if not outcome.success and self.early(now):
            self.due = min(now + _EAGER_SECONDS, self.counts_from)
            return None
        self.due = now + float(self.spec.get("periodSeconds") or 10)
        if outcome.success:
            self.successes, self.failures = self.successes + 1, 0
            return True if self.successes >= int(self.spec.get("successThreshold") or 1) else None
        self.failures, self.successes = self.failures + 1, 0
        return False if self.failures >= int(self.spec.get("failureThreshold") or 3) else None


def run(action: Mapping[str, Any], container: Mapping[str, Any], sandbox: Sandbox, pod_ip: str, timeout: float) -> Outcome:
    """One try of a probe (or the action of a lifecycle hook), through the pod's own network and namespaces."""
    try:
        if "exec" in action:
            return _exec(action["exec"], container["name"], sandbox, timeout)
        if "httpGet" in action:
            return _http(action["httpGet"], container, sandbox, pod_ip, timeout)
        if "tcpSocket" in action:
            return _tcp(action["tcpSocket"], container, sandbox, pod_ip, timeout)
    except (SandboxFailed, SandboxGone) as error:
        return Outcome(False, str(error))
    except ValueError as error:
        return Outcome(False, str(error))
    kinds = ", ".join(sorted(set(action) - {"periodSeconds", "timeoutSeconds"}))
    return Outcome(False, f"the local node agent runs probes of kind {', '.join(_EXEC_KINDS)}, not: {kinds}")


def port_number(port: Any, container: Mapping[str, Any]) -> int:
    """A port given as number or by the name the container declares. Raises ValueError."""
    if isinstance(port, int):
        return port
    if str(port).isdigit():
        return int(port)
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    raise ValueError(f"container {container['name']} declares no port named {port!r}")


def _exec(action: Mapping[str, Any], name: str, sandbox: Sandbox, timeout: float) -> Outcome:
    try:
        code, output = sandbox.execute(name, action.get("command") or [], timeout)
    except TimeoutError:
        return Outcome(False, f"command timed out after {timeout:g}s")
    return Outcome(code == 0, output.strip()[:_MOST_OUTPUT])


def _tcp(action: Mapping[str, Any], container: Mapping[str, Any], sandbox: Sandbox, pod_ip: str, timeout: float) -> Outcome:
    host, port = action.get("host") or pod_ip, port_number(action["port"], container)
    with sandbox.socket() as connection:
        connection.settimeout(timeout)
        try:
            connection.connect((host, port))
        except OSError as error:
            return Outcome(False, f"dial tcp {host}:{port}: {_words(error)}")
    return Outcome(True)


def _http(action: Mapping[str, Any], container: Mapping[str, Any], sandbox: Sandbox, pod_ip: str, timeout: float) -> Outcome:
    host, port = action.get("host") or pod_ip, port_number(action["port"], container)
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    if not path.startswith("/"):
        path = f"/{path}"
    headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
    headers |= {entry["name"]: entry["value"] for entry in action.get("httpHeaders") or []}
    url = f"{scheme}://{host}:{port}{path}"
    raw = sandbox.socket()
    raw.settimeout(timeout)
    try:
        raw.connect((host, port))
        if scheme == "https":
            # As kubelet: a probe asks whether the server responds, not who it is.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            raw = context.wrap_socket(raw)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = raw
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read(_MOST_OUTPUT)
    except TimeoutError:
        return Outcome(False, f'Get "{url}": context deadline exceeded (no answer within {timeout:g}s)')
    except OSError as error:
        return Outcome(False, f'Get "{url}": dial tcp {host}:{port}: {_words(error)}')
    except http.client.HTTPException as error:
        return Outcome(False, f'Get "{url}": {type(error).__name__} {error}')
    finally:
        raw.close()
    if 200 <= response.status < 400:
        return Outcome(True, body.decode(errors="replace"))
    return Outcome(False, f"HTTP probe failed with statuscode: {response.status}")


def _words(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    return (error.strerror or str(error)).lower()


def declared(container: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The container's probes by kind."""
    kinds = {"startup": "startupProbe", "readiness": "readinessProbe", "liveness": "livenessProbe"}
    return {kind: container[field] for kind, field in kinds.items() if container.get(field)}


def describe(kind: str, outcome: Outcome) -> str:
    return f"{kind.capitalize()} probe failed: {outcome.message}"
