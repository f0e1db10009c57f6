"""What the program makes of an earlier `pulumi up`, which the engine's state holds: data that would be lost, and places taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pytest

from mistral_on_l4.config.names import UNREADABLE_SECRET
from mistral_on_l4.manifests.volumes import data_claim
from tests.program.conftest import answering_engine
from tests.support.engine import Engine

SERVICE = "mistral-on-l4:serving:InferenceService$kubernetes:serving.kserve.io/v1beta1:InferenceService"
STORE, REGISTRY = "store-data", "registry-data"


def urn(types: str, name: str) -> str:
    return f"urn:pulumi:local::mistral-on-l4::{types}::{name}"


def claim(key: Any, namespace: str, size: str) -> dict[str, Any]:
    found = data_claim(key, namespace, "local-path", size)
    found["metadata"]["name"] = f"{key}-data-0a1b2c3d"
    return found


def service(name: str, pool: str, gpus: int, prefix: str) -> dict[str, Any]:
    model = {"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}, "storage": {"path": prefix}}
    predictor = {"nodeSelector": {"mistral-on-l4/pool": pool}, "model": model}
    return {"metadata": {"name": name, "namespace": "private-ai"}, "spec": {"predictor": predictor}}


def shipped() -> dict[str, Mapping[str, Any]]:
    """The state after an `up` of the shipped local stack, as far as the program reads it."""
    claims = "kubernetes:core/v1:PersistentVolumeClaim"
    return {
        urn(f"mistral-on-l4:storage:ObjectStore${claims}", STORE): claim("store", "minio-storage", "10Gi"),
        urn(f"mistral-on-l4:registry:ModelRegistry${claims}", REGISTRY): claim("registry", "rhoai-model-registries", "5Gi"),
        urn(SERVICE, "mistral-24b-full-service"): service("mistral-24b-full", "l4-4gpu", 4, "mistral-24b/"),
        urn(SERVICE, "mistral-24b-fp8-service"): service("mistral-24b-fp8", "l4-1gpu", 1, "mistral-24b-fp8/"),
    }


@pytest.fixture
def up(run_program: Callable[..., Engine], local_home: Any) -> Callable[..., Engine]:
    """The local program, run again on the state of the shipped stack, or on another."""

    def again(state: Mapping[str, Mapping[str, Any]] | None = None, **config: Any) -> Engine:
        engine = answering_engine()
        engine.recorded = shipped() if state is None else state
        return run_program(engine=engine, **config)

    return again


LOSSES = [
    ({"objectStore": {"volumeSize": "5Gi"}}, "store", "minio-storage/store-data-0a1b2c3d shrinks from 10Gi to 5Gi"),
    ({"registry": {"volumeSize": "1Gi"}}, "registry", "shrinks from 5Gi to 1Gi"),
    ({"namespaces": {"objectStore": "store-b"}}, "store", "moves from namespace minio-storage to store-b"),
    ({"namespaces": {"registry": "reg-c"}}, "registry", "moves from namespace rhoai-model-registries to reg-c"),
]


@pytest.mark.parametrize(("config", "key", "says"), LOSSES)
def test_a_change_that_would_lose_data_is_refused_before_anything_is_declared(
    up: Callable[..., Engine], recorder: Engine, run_program: Callable[..., Engine], config: Any, key: str, says: str
) -> None:
    recorder.recorded = shipped()
    with pytest.raises(pulumi.RunError, match=says) as refused:
        run_program(engine=recorder, **{"objectStore": {"volumeSize": "10Gi"}, **config})
    assert f"`pulumi config set --path 'mistral-on-l4:allowDataLoss[0]' {key}`" in str(refused.value)
    assert recorder.resources == []
    assert up(**{"objectStore": {"volumeSize": "10Gi"}, **config}, allowDataLoss=[key]).resources


def test_leave_for_one_kind_of_data_is_none_for_the_other(up: Callable[..., Engine]) -> None:
    with pytest.raises(pulumi.RunError, match="the registry's data would be lost"):
        up(registry={"volumeSize": "1Gi"}, allowDataLoss=["store"])


def test_a_store_elsewhere_leaves_the_one_in_the_cluster_behind(up: Callable[..., Engine]) -> None:
    elsewhere = {"kind": "external", "endpoint": "https://s3.example.com"}
    with pytest.raises(pulumi.RunError, match="claim minio-storage/store-data-0a1b2c3d is no longer declared"):
        up(objectStore=elsewhere, storeAccessKeyId="a", storeSecretAccessKey="b")


def test_another_class_of_volumes_is_another_volume(up: Callable[..., Engine]) -> None:
    state = {key: json.loads(json.dumps(found).replace("local-path", "fast")) for key, found in shipped().items()}
    with pytest.raises(pulumi.RunError, match="moves from storage class fast to local-path"):
        up(state)


def test_a_claim_that_an_earlier_release_made_is_not_taken_over_in_silence(up: Callable[..., Engine]) -> None:
    template = {"spec": {"storageClassName": "local-path", "resources": {"requests": {"storage": "10Gi"}}}}
    labels = {"app.kubernetes.io/component": "object-store"}
    earlier = {
        "metadata": {"name": "minio", "namespace": "minio-storage", "labels": labels},
        "spec": {"volumeClaimTemplates": [template]},
    }
    state = {urn("mistral-on-l4:storage:ObjectStore$kubernetes:apps/v1:StatefulSet", "store-server"): earlier}
    with pytest.raises(pulumi.RunError, match="claim minio-storage/data-minio-0 was made by an earlier release"):
        up(state)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"objectStore": {"volumeSize": "20Gi"}},
        {"registry": {"volumeSize": "10Gi", "name": "another-name"}},
        {"namespaces": {"services": "ai-a"}},
    ],
)
def test_what_keeps_all_data_needs_no_leave(up: Callable[..., Engine], config: Any) -> None:
    claims = up(**{"objectStore": {"volumeSize": "10Gi"}, **config}).of("PersistentVolumeClaim")
    assert {found.name for found in claims} == {STORE, REGISTRY}
    # Without a name of its own in the configuration: nothing that people rename is part of it.
    assert all("name" not in found.inputs["metadata"] for found in claims)


def test_leave_that_nothing_needs_is_pointed_out(up: Callable[..., Engine], caplog: pytest.LogCaptureFixture) -> None:
    up(allowDataLoss=["registry"])
    assert "allowDataLoss [registry] is set, and no data would be lost" in caplog.text


def test_a_new_service_takes_the_place_of_the_one_that_leaves_and_says_so(
    up: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    swapped = {"mistral-24b-fp8": {"enabled": False}, "mistral-24b-w4a16": {"enabled": True}}
    engine = up(services=swapped)
    found = engine.named("InferenceService", "mistral-24b-w4a16")
    assert found.aliases == (urn(SERVICE, "mistral-24b-fp8-service"),)
    assert found.delete_before_replace
    assert not engine.named("InferenceService", "mistral-24b-full").aliases
    assert "mistral-24b-w4a16 takes the place of mistral-24b-fp8, which goes first" in caplog.text


def test_every_job_goes_before_the_one_in_its_place_comes(up: Callable[..., Engine]) -> None:
    engine = up({})
    assert [job.name for job in engine.of("Job") if not job.delete_before_replace] == []
    assert engine.named("Deployment", "private-ai-registry").delete_before_replace


def test_the_check_runs_again_when_the_links_that_reach_the_pods_change(
    run_program: Callable[..., Engine], local_home: Any
) -> None:
    def revisions(**config: Any) -> tuple[Any, Any]:
        engine = run_program(**config)
        annotations = engine.named("InferenceService", "mistral-24b-fp8").inputs["metadata"]["annotations"]
        (check,) = [job for job in engine.of("Job") if job.name == "mistral-24b-fp8-check"]
        env = {entry["name"]: entry.get("value") for entry in check.inputs["spec"]["template"]["spec"]["containers"][0]["env"]}
        return annotations["mistral-on-l4/revision"], env["SERVICE_REVISION"]

    first = revisions()
    assert first[0] == first[1]
    assert revisions() == first
    for config in ({"registry": {"name": "my-reg"}}, {"images": {"overrides": {"engine": "docker.io/vllm/vllm-openai:v0.11.1"}}}):
        other = revisions(**config)
        assert other[0] == other[1] != first[0]


def test_outputs_hold_an_address_of_this_machine_beside_the_clusters_own(
    up: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", exported.__setitem__)
    up({})
    assert set(exported["fromHere"]) == {"mistral-24b-full", "mistral-24b-fp8", "registry", "objectStore"}
    assert exported["usdPerHour"] == 5.58


@pytest.mark.usefixtures("local_home")
@pytest.mark.parametrize("key", ["apiKey", "hubToken"])
def test_a_secret_in_clear_is_refused_by_the_program_too_and_not_repeated(run_program: Callable[..., Engine], key: str) -> None:
    with pytest.raises(pulumi.RunError, match=f"`pulumi config set --secret mistral-on-l4:{key}` encrypts it") as refused:
        run_program(in_clear=[key], **{key: "hunter2"})
    assert "hunter2" not in str(refused.value)
    assert run_program(**{key: "hunter2"}).resources
    # What `demo preview` puts in its place where the passphrase is not at hand.
    assert run_program(in_clear=[key], **{key: UNREADABLE_SECRET}).resources
