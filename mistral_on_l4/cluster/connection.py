"""A connection to the cluster of a stack, from the machine where a person sits.

The local cluster is reached directly: its certificate is in the stack's home, and its Services have addresses of this machine. Any
other cluster is reached as the person's own kubectl reaches it, so that whatever logs them in (SSO, exec plugins) works here too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO

from mistral_on_l4.cluster.client import KubeClient
from mistral_on_l4.cluster.live import service_address
from mistral_on_l4.cluster.local import LocalStack, NoLocalStack, local_stack
from mistral_on_l4.config.settings import Settings

_READY_SECONDS = 20.0


class NoConnection(Exception):
    """The cluster cannot be reached; one line that says what to do."""


@dataclass(frozen=True)
class Connection:
    """An open connection to a stack's cluster. `local`: the local stack, or None for a cluster elsewhere."""

    client: KubeClient
    settings: Settings
    local: LocalStack | None

    @contextmanager
    def service(self, name: str, namespace: str) -> Iterator[str]:
        """Base URL of a Service's first port, for as long as the context lasts. Raises NoConnection, ApiError."""
        if self.local is not None:
            yield service_address(self.client, name, namespace, self.local.port_shift)
            return
        port = self.client.get("v1", "Service", name, namespace)["spec"]["ports"][0]["port"]
        command = ["port-forward", "--address=127.0.0.1", "-n", namespace, f"service/{name}", f":{port}", *_context(self.settings)]
        with _running_kubectl(command, r"Forwarding from 127\.0\.0\.1:(\d+)") as local_port:
            yield f"http://127.0.0.1:{local_port}"

    def kubectl(self, arguments: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
        """A kubectl command for this cluster, and what to add to its environment. Raises NoConnection where there is none."""
        if self.local is not None:
            return [self.local.kubectl, *arguments], {"KUBECONFIG": str(self.local.kubeconfig)}
        return [_kubectl_on_path(), *_context(self.settings), *arguments], {}


@contextmanager
def connect(settings: Settings) -> Iterator[Connection]:
    """A connection to the cluster that the settings' platform names. Raises NoConnection."""
    if settings.traits.direct:
        try:
            local = local_stack()
            client = KubeClient.from_kubeconfig(local.kubeconfig)
        except NoLocalStack as error:
            raise NoConnection(str(error)) from None
        except FileNotFoundError as error:
            raise NoConnection(f"{error}: start the local cluster with `make up`") from None
        with closing(client):
            yield Connection(client, settings, local)
        return
    with (
        _running_kubectl(
            ["proxy", "--port=0", "--address=127.0.0.1", *_context(settings)], r"Starting to serve on 127\.0\.0\.1:(\d+)"
        ) as port,
        closing(KubeClient.at(f"http://127.0.0.1:{port}")) as client,
    ):
        yield Connection(client, settings, None)


def _context(settings: Settings) -> list[str]:
    """Of the kubeconfig, where the stack's file names one."""
    return [f"--context={settings.openshift.context}"] if settings.openshift.context else []


def _kubectl_on_path() -> str:
    # OpenShift's own client does the same.
    kubectl = shutil.which("kubectl") or shutil.which("oc")
    if kubectl is None:
        raise NoConnection("kubectl is not on PATH: install it, and log in to the stack's cluster")
    return kubectl


@contextmanager
def _running_kubectl(arguments: list[str], announcement: str) -> Iterator[int]:
    """Runs kubectl until the context ends; gives the port that its output announces."""
    command = [_kubectl_on_path(), *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        # A pipe that nobody reads fills up, and kubectl with it waits.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield _announced_port(process, arguments[0], announcement, errors)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def _announced_port(process: subprocess.Popen[str], command: str, announcement: str, errors: IO[str]) -> int:
    """The port, once the process prints it. Raises NoConnection with the last line of its errors."""
    ports: list[int] = []
    announced = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            if match := re.search(announcement, line):
                ports.append(int(match.group(1)))
                announced.set()
        announced.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    if not announced.wait(_READY_SECONDS):
        raise NoConnection(f"kubectl {command} did not come up within {_READY_SECONDS:.0f} s: does `kubectl get nodes` work?")
    if not ports:
        errors.seek(0)
        lines = errors.read().strip().splitlines()
        raise NoConnection(f"kubectl {command} failed: {lines[-1] if lines else 'it said nothing'}")
    return ports[0]
