"""The whole graph on platform `local`, as the engine is told of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pulumi
import pytest

pytestmark = pytest.mark.usefixtures("local_home")

SERVICES = ("mistral-24b-full", "mistral-24b-fp8")


def service_named(name: str, **changes: Any) -> dict[str, Any]:
    base = {
        "mistral-24b-full": {"variant": "bf16", "prefix": "mistral-24b/", "pool": "l4-4gpu", "tensorParallelSize": 4},
        "mistral-24b-fp8": {
            "variant": "fp8",
            "prefix": "mistral-24b-fp8/",
            "pool": "l4-1gpu",
            "kvCacheDtype": "fp8",
            "cpuOffload": "auto",
        },
    }
    return {"name": name, **base[name], **changes}


def upstream(engine: Any, kind: str, name: str) -> set[tuple[str, str]]:
    """(kind, metadata.name) of everything that an object depends on, directly or not."""
    by_urn = {found.urn: found for found in engine.resources}
    seen: set[str] = set()
    queue = [engine.named(kind, name).urn]
    while queue:
        for urn in by_urn[queue.pop()].depends_on:
            if urn not in seen and urn in by_urn:
                seen.add(urn)
                queue.append(urn)
    return {(by_urn[urn].token.rpartition(":")[2], (by_urn[urn].inputs.get("metadata") or {}).get("name", "")) for urn in seen}


def test_both_services_carry_the_seed_documents_names_and_arguments(run_program: Callable[..., Any]) -> None:
    engine = run_program()
    full = engine.named("InferenceService", "mistral-24b-full").inputs["spec"]["predictor"]["model"]
    fp8 = engine.named("InferenceService", "mistral-24b-fp8").inputs["spec"]["predictor"]["model"]
    assert _argument(full["args"], "--tensor-parallel-size") == "4"
    assert _argument(full["args"], "--dtype") == "bfloat16"
    assert _argument(fp8["args"], "--kv-cache-dtype") == "fp8"
    # vLLM refuses it on a compressed-tensors checkpoint, whatever the seed document says.
    assert not any(argument.startswith("--quantization") for argument in fp8["args"])
    assert (full["resources"]["limits"]["nvidia.com/gpu"], fp8["resources"]["limits"]["nvidia.com/gpu"]) == ("4", "1")
    assert [found.inputs["metadata"]["namespace"] for found in engine.of("InferenceService")] == ["private-ai"] * 2


def test_a_service_waits_for_its_weights_its_registration_its_nodes_and_its_credentials(run_program: Callable[..., Any]) -> None:
    engine = run_program()
    for service, prefix, pool in (
        ("mistral-24b-full", "mistral-24b", "l4-4gpu"),
        ("mistral-24b-fp8", "mistral-24b-fp8", "l4-1gpu"),
    ):
        before = upstream(engine, "InferenceService", service)
        jobs = {name.rpartition("-")[0] for kind, name in before if kind == "Job"}
        assert f"seed-{prefix}" in jobs
        assert f"register-{service}" in jobs
        assert ("Node", f"{pool}-0") in before
        assert ("Secret", "storage-config") in before
        assert ("ServingRuntime", "vllm-mistral-runtime") in before
        assert ("StatefulSet", "minio") in before


def test_the_store_and_the_registry_do_not_wait_for_each_other_nor_for_gpu_nodes(run_program: Callable[..., Any]) -> None:
    engine = run_program()
    store, registry = upstream(engine, "StatefulSet", "minio"), upstream(engine, "Deployment", "private-ai-registry")
    assert ("Deployment", "private-ai-registry") not in store
    assert ("StatefulSet", "minio") not in registry
    assert not any(kind == "Node" for kind, _ in store | registry)


def test_the_third_service_is_absent_until_it_is_enabled(run_program: Callable[..., Any]) -> None:
    names = [found.inputs["metadata"]["name"] for found in run_program().of("InferenceService")]
    assert sorted(names) == sorted(SERVICES)


def test_services_that_share_a_checkpoint_share_its_seed_job(run_program: Callable[..., Any]) -> None:
    services = [service_named("mistral-24b-full"), {**service_named("mistral-24b-full"), "name": "second"}]
    pools = [{"name": "l4-4gpu", "instanceType": "g6.12xlarge", "count": 2}]
    engine = run_program(services=services, pools={"groups": pools})
    assert len(engine.of("InferenceService")) == 2
    assert [job.inputs["metadata"]["name"].rpartition("-")[0] for job in engine.of("Job")].count("seed-mistral-24b") == 1


def test_no_secret_value_stands_in_clear_in_any_input(run_program: Callable[..., Any]) -> None:
    engine = run_program()
    values = [stash.inputs["input"] for stash in engine.of("Stash")]
    assert len(values) >= 7
    assert all("input" in stash.secrets for stash in engine.of("Stash"))
    for found in engine.resources:
        for path, text in _texts(found.inputs):
            if any(value in text for value in values):
                assert any(path == secret or path.startswith(f"{secret}.") for secret in found.secrets), f"{found.name}: {path}"


def test_a_preview_before_the_first_up_knows_neither_ids_nor_uids_and_still_declares_everything(
    run_program: Callable[..., Any],
) -> None:
    assert len(run_program(preview=True).resources) == len(run_program().resources)


def test_a_service_that_cannot_load_stops_the_program_before_any_resource(run_program: Callable[..., Any], recorder: Any) -> None:
    services = [service_named("mistral-24b-full"), service_named("mistral-24b-fp8", cpuOffload="off")]
    with pytest.raises(pulumi.RunError, match=r"mistral-24b-fp8 does not fit 1x L4: 23\.21 GiB"):
        run_program(services=services, engine=recorder)
    assert [found.token for found in recorder.resources if found.token != "pulumi:pulumi:Stack"] == []


def test_a_pool_with_too_few_gpus_stops_the_program_before_any_resource(run_program: Callable[..., Any], recorder: Any) -> None:
    services = [service_named("mistral-24b-full"), {**service_named("mistral-24b-full"), "name": "second"}]
    with pytest.raises(pulumi.RunError, match="no GPU is left in pool l4-4gpu"):
        run_program(services=services, engine=recorder)
    assert not recorder.of("Namespace")


def test_an_unknown_key_stops_the_program_with_one_line(run_program: Callable[..., Any], recorder: Any) -> None:
    with pytest.raises(pulumi.RunError, match=r"^Pulumi\.local\.yaml: objectStore\.buckt: unknown key; did you mean 'bucket'\?$"):
        run_program(objectStore={"buckt": "x"}, engine=recorder)
    assert recorder.resources == []


def test_an_external_store_without_its_keys_is_refused_in_words(run_program: Callable[..., Any]) -> None:
    with pytest.raises(pulumi.RunError, match="pulumi config set --secret storeAccessKeyId"):
        run_program(objectStore={"kind": "external", "endpoint": "https://s3.example.com"})


def test_an_external_store_makes_no_server_of_ours(run_program: Callable[..., Any]) -> None:
    engine = run_program(
        objectStore={"kind": "external", "endpoint": "https://s3.example.com"},
        storeAccessKeyId="AKIAEXAMPLE",
        storeSecretAccessKey="not-a-real-secret",
    )
    assert engine.of("StatefulSet") == []
    assert engine.named("Secret", "weights-writer").inputs["stringData"]["AWS_ACCESS_KEY_ID"] == "AKIAEXAMPLE"


@pytest.mark.parametrize("namespace_owners", [{"private-ai": "other"}])
def test_a_namespace_of_another_stack_is_refused_before_anything_is_declared(
    run_program: Callable[..., Any], recorder: Any, namespace_owners: dict[str, str]
) -> None:
    with pytest.raises(pulumi.RunError, match="namespace private-ai belongs to stack 'other'"):
        run_program(engine=recorder)
    assert not recorder.of("Namespace")


@pytest.mark.parametrize("namespace_owners", [{"private-ai": "local"}])
def test_a_namespace_of_this_very_stack_is_no_collision(run_program: Callable[..., Any], namespace_owners: dict[str, str]) -> None:
    assert run_program().of("Namespace")


def test_what_changes_in_a_service_changes_its_revision_and_its_check_job(run_program: Callable[..., Any]) -> None:
    def check_job(**changes: Any) -> str:
        engine = run_program(services=[service_named("mistral-24b-full", **changes)])
        return next(name for job in engine.of("Job") if (name := job.inputs["metadata"]["name"]).startswith("check-"))

    assert check_job() == check_job()
    assert check_job() != check_job(maxModelLen=4096)


def test_a_job_is_named_after_what_it_does_so_that_an_unchanged_one_never_runs_twice(run_program: Callable[..., Any]) -> None:
    def seed_job(**changes: Any) -> str:
        engine = run_program(services=[service_named("mistral-24b-full", **changes)])
        return next(name for job in engine.of("Job") if (name := job.inputs["metadata"]["name"]).startswith("seed-"))

    assert seed_job() == seed_job(maxModelLen=4096)
    assert seed_job() != seed_job(revision="0123456789012345678901234567890123456789")


def test_registry_ids_reach_the_service_as_annotations(run_program: Callable[..., Any]) -> None:
    annotations = run_program().named("InferenceService", "mistral-24b-full").inputs["metadata"]["annotations"]
    assert annotations["modelregistry.opendatahub.io/registered-model-id"] == "7"
    assert annotations["modelregistry.opendatahub.io/model-version-id"] == "9"


def test_every_job_has_a_deadline_and_none_expires_by_itself(run_program: Callable[..., Any]) -> None:
    jobs = run_program().of("Job")
    assert jobs
    for job in jobs:
        assert job.inputs["spec"]["activeDeadlineSeconds"] > 0
        assert "ttlSecondsAfterFinished" not in job.inputs["spec"]


def _argument(args: list[str], flag: str) -> str:
    for index, argument in enumerate(args):
        if argument == flag:
            return args[index + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    raise AssertionError(f"no {flag} in {args}")


def _texts(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _texts(item, f"{path}.{key}".lstrip("."))]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in _texts(item, f"{path}[{index}]")]
    return [(path, value if isinstance(value, str) else json.dumps(value))]


def test_an_external_store_is_asked_in_its_own_region(run_program: Callable[..., Any]) -> None:
    engine = run_program(
        objectStore={"kind": "external", "endpoint": "https://s3.eu-west-1.amazonaws.com", "region": "eu-west-1"},
        storeAccessKeyId="AKIAEXAMPLE",
        storeSecretAccessKey="not-a-real-secret",
    )
    regions = {
        entry["value"]
        for job in engine.of("Job")
        for entry in job.inputs["spec"]["template"]["spec"]["containers"][0]["env"]
        if entry["name"] == "AWS_DEFAULT_REGION"
    }
    assert regions == {"eu-west-1"}


def test_an_extra_authority_reaches_the_jobs_that_leave_the_cluster_and_no_other(run_program: Callable[..., Any]) -> None:
    engine = run_program(extraCa="-----BEGIN CERTIFICATE-----")
    trusting = {
        job.inputs["metadata"]["name"].partition("-")[0]
        for job in engine.of("Job")
        if any(entry["name"] == "EXTRA_CA_PEM" for entry in job.inputs["spec"]["template"]["spec"]["containers"][0]["env"])
    }
    assert trusting == {"seed", "register"}
