"""What a careful person does without Pulumi: the same manifests by kubectl, in an order that works, waiting where one must."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from bench.stack.measured import MeasuredStack
from embedded import cluster
from embedded.progress import Quiet
from mistral_on_l4.cluster.chat import ask
from mistral_on_l4.cluster.client import KubeClient
from mistral_on_l4.cluster.live import api_key, service_address

_WAIT = "--timeout=300s"


@dataclass(frozen=True)
class Manifests:
    """The objects that the program declared, by the step at which a person applies them."""

    first: list[dict[str, Any]]
    store_setup: list[dict[str, Any]]
    seeds: list[dict[str, Any]]
    registrations: list[dict[str, Any]]
    services: list[dict[str, Any]]
    services_namespace: str


class ByHand:
    def __init__(self, stack: MeasuredStack) -> None:
        self._stack = stack

    def manifests(self) -> Manifests:
        """From the state of the running stack: what it applied, secrets in clear, without Pulumi's own annotations."""
        state = json.loads(self._stack.run("pulumi", "stack", "export", "--stack", "local", "--show-secrets"))
        objects = [
            _manifest(resource["inputs"])
            for resource in state["deployment"]["resources"]
            if resource["type"].startswith("kubernetes:") and not resource.get("external")
        ]
        jobs = [item for item in objects if item["kind"] == "Job"]

        def named(word: str) -> list[dict[str, Any]]:
            return [job for job in jobs if job["metadata"]["name"].startswith(word)]

        services = [item for item in objects if item["kind"] == "InferenceService"]
        rest = [item for item in objects if item["kind"] not in ("Job", "InferenceService")]
        order = {"Namespace": 0, "Node": 1, "ServiceAccount": 2, "Secret": 3, "ConfigMap": 3, "Role": 3}
        rest.sort(key=lambda item: order.get(item["kind"], 4))
        return Manifests(
            rest, named("minio-setup"), named("seed-"), named("register-"), services, services[0]["metadata"]["namespace"]
        )

    def up(self, manifests: Manifests) -> None:
        """From a stopped cluster to a chat answer of every service."""
        cluster.start(self._stack.home, Quiet())
        self._apply(manifests.first)
        self._rollout("statefulset/minio", manifests.store_setup)
        self._apply(manifests.store_setup)
        self._complete(manifests.store_setup)
        self._apply(manifests.seeds)
        self._complete(manifests.seeds)
        self._apply(manifests.registrations)
        self._complete(manifests.registrations)
        self._apply(manifests.services)
        for service in manifests.services:
            name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
            self._stack.run("kubectl", "wait", f"inferenceservice/{name}", "-n", namespace, "--for=condition=Ready", _WAIT)
        self._chat(manifests)

    def down(self, manifests: Manifests) -> None:
        every = [
            *manifests.services,
            *manifests.registrations,
            *manifests.seeds,
            *manifests.store_setup,
            *reversed(manifests.first),
        ]
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": every})
        self._stack.run("kubectl", "delete", "--ignore-not-found", "--wait", _WAIT, "-f", "-", stdin=listed)
        client = KubeClient.from_kubeconfig(self._stack.home.kubeconfig)
        end = time.monotonic() + 120
        while client.list("v1", "PersistentVolume")["items"] and time.monotonic() < end:
            time.sleep(0.2)
        cluster.stop(self._stack.home)

    def _apply(self, objects: list[dict[str, Any]]) -> None:
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        # KServe's schema asks for a container name that its own webhook fills in; kubectl would refuse before it gets there.
        self._stack.run("kubectl", "apply", "--server-side", "--validate=ignore", "-f", "-", stdin=listed)

    def _rollout(self, what: str, beside: list[dict[str, Any]]) -> None:
        self._stack.run("kubectl", "rollout", "status", what, "-n", beside[0]["metadata"]["namespace"], _WAIT)

    def _complete(self, jobs: list[dict[str, Any]]) -> None:
        for job in jobs:
            meta = job["metadata"]
            self._stack.run("kubectl", "wait", f"job/{meta['name']}", "-n", meta["namespace"], "--for=condition=Complete", _WAIT)

    def _chat(self, manifests: Manifests) -> None:
        client = KubeClient.from_kubeconfig(self._stack.home.kubeconfig)
        namespace, shift = manifests.services_namespace, self._stack.home.cluster().port_shift
        key = api_key(client, namespace)
        for service in manifests.services:
            name = service["metadata"]["name"]
            ask(service_address(client, f"{name}-predictor", namespace, shift), name, "Explain FP8.", key, max_tokens=12)


def _manifest(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs of a resource as a manifest for kubectl."""
    plain: dict[str, Any] = _plain({key: value for key, value in inputs.items() if not key.startswith("__")})
    annotations = plain["metadata"].get("annotations") or {}
    plain["metadata"]["annotations"] = {key: text for key, text in annotations.items() if not key.startswith("pulumi.com/")}
    return plain


def _plain(value: Any) -> Any:
    """Without Pulumi's envelope around secrets, whose plaintext is JSON text; whole numbers as integers."""
    if isinstance(value, dict):
        if "plaintext" in value and "4dabf18193072939515e22adb298388d" in value:
            return _plain(json.loads(value["plaintext"]))
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
