"""`demo status` and `demo validate` on a stack that is whole, on its way, and broken."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import create_autospec

import pytest

from mistral_on_l4.cli.stacks import stack_plan, stack_settings
from mistral_on_l4.cluster import metrics, validation
from mistral_on_l4.cluster.chat import Answer, ChatError
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.endpoints import Endpoint
from mistral_on_l4.cluster.live import services
from mistral_on_l4.cluster.overview import overview
from mistral_on_l4.cluster.registered import RegisteredVersion, RegistryReader

SETTINGS = stack_settings("local")
PART = {"app.kubernetes.io/part-of": "mistral-on-l4"}
LINK = "modelregistry.opendatahub.io"


def meta(name: str, namespace: str, labels: Mapping[str, str] = {}, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": dict(labels), **more}


def whole() -> dict[str, list[dict[str, Any]]]:
    """Everything of the default stack, as the API server lists it: kind -> objects."""
    isvcs, pods = [], []
    for name, gpus, number in (("mistral-24b-full", 4, 3), ("mistral-24b-fp8", 1, 1)):
        ids = {f"{LINK}/registered-model-id": str(number), f"{LINK}/model-version-id": str(number + 1)}
        conditions = [{"type": "Ready", "status": "True"}, {"type": "Stopped", "status": "False"}]
        isvcs.append({"metadata": meta(name, "private-ai", PART, annotations=ids), "status": {"conditions": conditions}})
        container = {"name": "kserve-container", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
        label = {"serving.kserve.io/inferenceservice": name}
        pods.append({"metadata": meta(f"{name}-0", "private-ai", label), "spec": {"containers": [container], "nodeName": "n"}})
    job = {"metadata": meta("seed-1", "minio-storage"), "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    nodes = [{"metadata": meta(f"{pool}-0", "", {"mistral-on-l4/pool": pool}), "status": ready} for pool in ("l4-1gpu", "l4-4gpu")]
    return {"InferenceService": isvcs, "Pod": pods, "Job": [job], "Node": nodes}


def client_of(objects: Mapping[str, list[dict[str, Any]]], forbidden: tuple[str, ...] = ()) -> Any:
    def listed(api_version: str, kind: str, namespace: str | None = None, label_selector: str | None = None) -> dict[str, Any]:
        if kind in forbidden:
            raise ApiError(403, "Forbidden", f"cannot list {kind}")
        items = [item for item in objects[kind] if namespace in (None, item["metadata"]["namespace"])]
        return {"items": [item for item in items if not label_selector or label_selector in item["metadata"]["labels"]]}

    client = create_autospec(KubeClient, instance=True)
    client.list.side_effect = listed
    client.request.side_effect = lambda *_, **__: {"text": "43 of 100 MB\n"}
    return client


def test_a_stack_that_is_ready_is_blocked_by_nothing() -> None:
    seen = overview(client_of(whole()), SETTINGS)
    assert seen.blocking == ()
    assert [(pool.name, pool.ready) for pool in seen.pools or ()] == [("l4-1gpu", 1), ("l4-4gpu", 1)]


def test_a_job_that_failed_long_ago_does_not_block_services_that_are_ready() -> None:
    objects = whole()
    objects["Job"][0]["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    assert overview(client_of(objects), SETTINGS).blocking == ()


def test_what_blocks_is_said_from_nodes_over_weights_to_services() -> None:
    objects = whole()
    objects["Node"].pop()
    objects["Job"][0]["status"] = {"active": 1}
    objects["Pod"].append(
        {"metadata": meta("seed-1-x", "minio-storage", {"job-name": "seed-1"}), "spec": {}, "status": {"phase": "Running"}}
    )
    objects["InferenceService"].pop(0)
    objects["InferenceService"][0]["status"] = {"conditions": [{"type": "Ready", "status": "False", "message": "no weights"}]}
    assert overview(client_of(objects), SETTINGS).blocking == (
        "pool l4-4gpu: 0 of 1 nodes ready",
        "Job seed-1: 43 of 100 MB",
        "mistral-24b-fp8: Ready: no weights",
        "mistral-24b-full: not in the cluster yet",
    )


def test_who_may_not_see_nodes_sees_the_rest() -> None:
    seen = overview(client_of(whole(), forbidden=("Node",)), SETTINGS)
    assert seen.pools is None
    assert len(seen.services) == 2


# -- validate ------------------------------------------------------------------------------------------------------------------

ENGINE = "".join(f"# TYPE {name} gauge\n{name} 1\n" for name in metrics.ENGINE_SAMPLES)


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """validated(objects, facts=, engine=) -> {(check, service): (result, why)} on a stack whose services answer."""

    def run(objects: Mapping[str, Any], facts: Any = None, engine: str = ENGINE, stranger: int = 401) -> Any:
        given = dict.fromkeys(validation.FACTS, "x") if facts is None else facts
        registry = create_autospec(RegistryReader, instance=True)
        registry.version_of.side_effect = lambda state: RegisteredVersion("M", "1", "LIVE", "v", given, "s3://b/p/")

        @contextmanager
        def registry_of(_: Any) -> Iterator[Any]:
            yield registry

        def ask(url: str, name: str, *_: Any) -> Answer:
            if name == "mistral-24b-fp8" and objects.get("dead"):
                raise ChatError("it does not answer: refused")
            return Answer("Hi", 100.0, None, 1)

        monkeypatch.setattr(validation, "registry_of", registry_of)
        monkeypatch.setattr(validation, "ask", ask)
        monkeypatch.setattr(metrics, "engine_metrics", lambda _: metrics.parsed(engine))
        monkeypatch.setattr(validation, "status_without_key", lambda _: stranger)
        client = client_of(objects)
        connection = create_autospec(Connection, instance=True, client=client, settings=SETTINGS, local=None)
        plan = stack_plan(SETTINGS, "local")
        states = services(client, "private-ai")
        endpoints = [Endpoint(state, "http://127.0.0.1:9", "key", plan.service(state.name)) for state in states]
        return {(check.check, check.service): (check.result, check.why) for check in validation.validate(connection, endpoints)}

    return run


def test_a_whole_stack_passes_every_check_and_says_what_could_not_be_looked_at(validated: Any) -> None:
    checks = validated(whole())
    assert {result for result, _ in checks.values()} == {"pass", "skip"}
    assert checks["GPU metrics", None] == ("skip", "nodes are simulated: there is no GPU")
    assert checks["GPU limit", "mistral-24b-full"] == ("pass", "nvidia.com/gpu: 4")


def test_a_pod_with_too_few_gpus_fails_by_both_numbers(validated: Any) -> None:
    objects = copy.deepcopy(whole())
    objects["Pod"][0]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "2"
    assert validated(objects)["GPU limit", "mistral-24b-full"] == ("fail", "nvidia.com/gpu: 2, and the stack file asks for 4")


def test_an_entry_without_its_facts_fails_by_their_names(validated: Any) -> None:
    result, why = validated(whole(), facts={"precision": "FP8", "source_model": "m", "fits": "yes"})["registry", "mistral-24b-fp8"]
    assert (result, why.rpartition(": ")[2]) == ("fail", f"says nothing of {validation.FACTS[2]}")


def test_a_service_that_is_not_there_is_named(validated: Any) -> None:
    objects = whole()
    objects["InferenceService"].pop()
    assert validated(objects)["ready", "mistral-24b-fp8"][0] == "fail"


def test_a_service_that_anybody_may_ask_fails(validated: Any) -> None:
    assert validated(whole(), stranger=200)["key", "mistral-24b-full"] == ("fail", "answers 200 without the key: anybody may ask")


def test_one_service_that_does_not_answer_hides_no_other_check(validated: Any) -> None:
    checks = validated({**whole(), "dead": True})
    assert checks["chat", "mistral-24b-fp8"] == ("fail", "it does not answer: refused")
    assert checks["chat", "mistral-24b-full"][0] == "pass"


def test_metrics_count_under_the_names_of_an_older_engine_too(validated: Any) -> None:
    former = ENGINE
    for new, old in metrics.FORMER_SAMPLES.items():
        former = former.replace(new, old)
    assert validated(whole(), engine=former)["engine metrics", "mistral-24b-full"][0] == "pass"
    assert validated(whole(), engine="vllm:num_requests_running 0\n")["engine metrics", "mistral-24b-full"][0] == "fail"
