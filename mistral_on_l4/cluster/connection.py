"""Ways into the cluster of a stack, from the machine where a person sits.

The local cluster is reached directly: its certificate is in the stack's home, and its Services answer on addresses of this
machine. Any other cluster is reached as the person's own kubectl reaches it, so that whatever logs them in (SSO, exec plugins)
works here as well.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO

from embedded.home import LocalHome, NoCluster
from mistral_on_l4.cluster.client import KubeClient
from mistral_on_l4.cluster.live import service_address
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.config.traits import PlatformName

_READY_SECONDS = 20.0


class NoWay(Exception):
    """The cluster cannot be reached; one line that says what to do."""


@dataclass(frozen=True)
class Way:
    """An open way into a stack's cluster. `local` is its home, or None for a cluster elsewhere."""

    client: KubeClient
    settings: Settings
    local: LocalHome | None

    @contextmanager
    def service(self, name: str, namespace: str) -> Iterator[str]:
        """Base URL of a Service's first port, for as long as the context lasts. Raises NoWay, ApiError."""
        if self.local is not None:
            yield service_address(self.client, name, namespace, self.local.cluster().port_shift)
            return
        port = self.client.get("v1", "Service", name, namespace)["spec"]["ports"][0]["port"]
        command = ["port-forward", "--address=127.0.0.1", "-n", namespace, f"service/{name}", f":{port}"]
        with _kubectl(command, r"Forwarding from 127\.0\.0\.1:(\d+)") as local_port:
            yield f"http://127.0.0.1:{local_port}"


@contextmanager
def open_way(settings: Settings) -> Iterator[Way]:
    """A way into the cluster that the settings' platform names. Raises NoWay."""
    if settings.platform is PlatformName.LOCAL:
        home = LocalHome.default()
        try:
            home.cluster()
            client = KubeClient.from_kubeconfig(home.kubeconfig)
        except (NoCluster, FileNotFoundError) as error:
            raise NoWay(f"{error}: start it with `make up`") from None
        with closing(client):
            yield Way(client, settings, home)
        return
    with (
        _kubectl(["proxy", "--port=0", "--address=127.0.0.1"], r"Starting to serve on 127\.0\.0\.1:(\d+)") as port,
        closing(KubeClient.at(f"http://127.0.0.1:{port}")) as client,
    ):
        yield Way(client, settings, None)


@contextmanager
def _kubectl(arguments: list[str], announces: str) -> Iterator[int]:
    """Runs kubectl until the context ends; gives the port that its output announces."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise NoWay("kubectl is not on PATH: install it, and log in to the stack's cluster")
    with tempfile.TemporaryFile("w+") as errors:
        # A pipe that nobody reads fills up, and kubectl with it waits.
        process = subprocess.Popen([kubectl, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield _announced_port(process, arguments[0], announces, errors)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def _announced_port(process: subprocess.Popen[str], command: str, announces: str, errors: IO[str]) -> int:
    """The port, once the process tells it. Raises NoWay with its last words."""
    found: list[int] = []
    announced = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            if match := re.search(announces, line):
                found.append(int(match.group(1)))
                announced.set()
        announced.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    if not announced.wait(_READY_SECONDS):
        raise NoWay(f"kubectl {command} did not come up within {_READY_SECONDS:.0f} s: does `kubectl get nodes` work?")
    if not found:
        errors.seek(0)
        said = errors.read().strip().splitlines()
        raise NoWay(f"kubectl {command} failed: {said[-1] if said else 'it said nothing'}")
    return found[0]
