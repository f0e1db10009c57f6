"""Waits until the nodes of a GPU pool are ready and offer their GPUs: on OpenShift a Machine that runs is neither.

A node is Ready minutes before its driver is built and its device plugin says what there is; a service that is declared before that
waits for a GPU that nobody offers yet. What keeps a machine from coming is said in the Machine API's own words.

Runs as `python -m mistral_on_l4.jobs.await_gpus` in KServe's storage-initializer image (Python 3.11 with requests).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from mistral_on_l4.jobs.cluster_api import Call, in_cluster
from mistral_on_l4.jobs.last_words import say_why

POOL_LABEL = "mistral-on-l4/pool"
GPU_RESOURCE = "nvidia.com/gpu"
MACHINE_NAMESPACE = "openshift-machine-api"
_REPORT_SECONDS = 30.0


class NoGpus(Exception):
    """The pool does not offer its GPUs; the text says what was waited for."""


@dataclass(frozen=True)
class Wanted:
    """nodes of the pool, each with at least `gpus`; machine_set: whose Machines become those nodes."""

    pool: str
    nodes: int
    gpus: int
    machine_set: str
    deadline_seconds: float

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Wanted:
        return cls(
            env["POOL"],
            int(env["POOL_NODES"]),
            int(env["POOL_GPUS"]),
            env["MACHINE_SET"],
            float(env.get("DEADLINE_SECONDS", "1200")),
        )


def problem(wanted: Wanted, nodes: Sequence[Mapping[str, Any]], machines: Sequence[Mapping[str, Any]]) -> str | None:
    """What is missing, in words; None when the pool is usable."""
    ready = [node for node in nodes if _is_ready(node)]
    offering = [node for node in ready if _gpus(node) >= wanted.gpus]
    if len(offering) >= wanted.nodes:
        return None
    if len(ready) < wanted.nodes:
        failed = [why for machine in machines if (why := _failure(machine))]
        seen = f"{len(ready)} of {wanted.nodes} nodes of pool {wanted.pool} are ready"
        phases = ", ".join(f"{machine['metadata']['name']} is {_phase(machine)}" for machine in machines)
        return f"{seen} ({'; '.join(failed) or phases or f'MachineSet {wanted.machine_set} has no Machine yet'})"
    lacking = [f"{node['metadata']['name']} offers {_gpus(node)}" for node in ready if _gpus(node) < wanted.gpus]
    return (
        f"{len(offering)} of {wanted.nodes} nodes of pool {wanted.pool} offer {wanted.gpus} GPU ({', '.join(lacking)}): the GPU "
        "operator is still at its driver"
    )


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def _gpus(node: Mapping[str, Any]) -> int:
    text = str(((node.get("status") or {}).get("allocatable") or {}).get(GPU_RESOURCE, "0"))
    return int(text) if text.isdigit() else 0


def _phase(machine: Mapping[str, Any]) -> str:
    return str((machine.get("status") or {}).get("phase") or "new")


def _failure(machine: Mapping[str, Any]) -> str | None:
    """Why EC2 gave no instance, on one line; None while it may still come."""
    status = machine.get("status") or {}
    text = status.get("errorMessage")
    return f"{machine['metadata']['name']}: {' '.join(str(text).split())}" if text else None


def run(wanted: Wanted, call: Call, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep) -> None:
    """Returns when the pool is usable. Raises NoGpus at the deadline, or at once where every Machine has failed for good."""
    start = time.monotonic()
    said: tuple[str | None, float] = (None, float("-inf"))
    while True:
        hopeless = False
        try:
            nodes = _items(call, f"/api/v1/nodes?labelSelector={POOL_LABEL.replace('/', '%2F')}%3D{wanted.pool}")
            machines = [
                machine
                for machine in _items(call, f"/apis/machine.openshift.io/v1beta1/namespaces/{MACHINE_NAMESPACE}/machines")
                if (machine["metadata"].get("labels") or {}).get("machine.openshift.io/cluster-api-machineset")
                == wanted.machine_set
            ]
            missing = problem(wanted, nodes, machines)
            hopeless = len(machines) >= wanted.nodes and all(_phase(machine) == "Failed" for machine in machines)
        except requests.RequestException as error:
            missing = str(error) if isinstance(error, requests.HTTPError) else f"the API does not answer: {type(error).__name__}"
        if missing is None:
            say(f"pool {wanted.pool}: {wanted.nodes} nodes offer {wanted.gpus} GPU each")
            return
        now = time.monotonic()
        if hopeless or now - start > wanted.deadline_seconds:
            raise NoGpus(f"after {now - start:.0f} s: {missing}")
        if missing != said[0] or now - said[1] > _REPORT_SECONDS:
            say(f"waiting: {missing}")
            said = (missing, now)
        sleep(1.0)


def _items(call: Call, path: str) -> list[dict[str, Any]]:
    status, document = call("GET", path, None)
    if status != 200:
        raise requests.HTTPError(f"the Kubernetes API answers {status}: {document.get('message', '')}")
    items: list[dict[str, Any]] = document.get("items") or []
    return items


def main() -> int:
    try:
        call = in_cluster(os.environ)
        if call is None:
            raise NoGpus("there is no API server here: this script runs in a pod with a service account")
        run(Wanted.from_environment(os.environ), call, lambda line: print(line, flush=True))
        return 0
    except NoGpus as error:
        sentence = str(error)
    except Exception as error:  # the last line must name the reason, whatever it is
        sentence = f"the wait for GPUs failed: {type(error).__name__}: {error}"
    say_why(sentence)
    return 1


if __name__ == "__main__":
    sys.exit(main())
