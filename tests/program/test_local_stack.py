"""The whole graph on platform `local`, as the engine is told of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pulumi
import pytest
from pulumi.runtime.mocks import MockResourceArgs

from tests.support.configuration import only_pools, only_services
from tests.support.engine import Engine

pytestmark = pytest.mark.usefixtures("local_home")

SERVICES = ("mistral-24b-full", "mistral-24b-fp8")
KEY_MARK = "mistral-on-l4/keys"


def engine_answers() -> dict[str, Any]:
    ids = {"registeredModelId": "7", "modelVersionId": "9", "modelArtifactId": "11"}
    return {"kubernetes:core/v1:ConfigMap": {"data": ids}}


class KnownRandom(Engine):
    """An engine whose stack has made its random values before: by their name, or all from one seed."""

    def __init__(self, outputs: Any, seed: str = "seed", **known: str) -> None:
        super().__init__(outputs=outputs)
        self._seed, self._known = seed, {f"secrets-{name.replace('_', '-')}": text for name, text in known.items()}

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        name, state = super().new_resource(args)
        if args.typ == "pulumi:index:Stash":
            state["output"] = self._known.get(args.name, f"{self._seed} {args.name}")
        return name, state


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
    """(kind, metadata.name) of everything that an object waits for: by dependency, or because its component does."""
    by_urn = {found.urn: found for found in engine.resources}
    seen: set[str] = set()
    queue = [engine.named(kind, name).urn]
    while queue:
        waiting = by_urn[queue.pop()]
        for urn in (*waiting.depends_on, waiting.parent):
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
    engine = run_program(services=only_services(*services), pools={"groups": only_pools(*pools)})
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
        run_program(services=only_services(*services), engine=recorder)
    assert [found.token for found in recorder.resources if found.token != "pulumi:pulumi:Stack"] == []


def test_a_pool_with_too_few_gpus_stops_the_program_before_any_resource(run_program: Callable[..., Any], recorder: Any) -> None:
    services = [service_named("mistral-24b-full"), {**service_named("mistral-24b-full"), "name": "second"}]
    with pytest.raises(pulumi.RunError, match="no GPU is left in pool l4-4gpu"):
        run_program(services=only_services(*services), engine=recorder)
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
        engine = run_program(services=only_services(service_named("mistral-24b-full", **changes)))
        return next(name for job in engine.of("Job") if (name := job.inputs["metadata"]["name"]).startswith("check-"))

    assert check_job() == check_job()
    assert check_job() != check_job(maxModelLen=4096)


def test_a_service_loads_again_when_other_weights_come_under_its_prefix(run_program: Callable[..., Any]) -> None:
    def revision(**changes: Any) -> str:
        engine = run_program(services=only_services(service_named("mistral-24b-full", **changes)))
        service = engine.named("InferenceService", "mistral-24b-full").inputs
        found: str = service["metadata"]["annotations"]["mistral-on-l4/revision"]
        return found

    commit = "0123456789012345678901234567890123456789"
    assert revision() == revision(revision="main")
    assert revision() != revision(revision=commit)
    assert revision(revision=commit) != revision(revision=commit, repository="another/checkpoint")


def test_a_new_api_key_makes_new_pods_and_is_tried(run_program: Callable[..., Any]) -> None:
    def marks(**config: Any) -> tuple[Any, Any]:
        engine = run_program(
            services=only_services(service_named("mistral-24b-full")), engine=KnownRandom(engine_answers()), **config
        )
        service = engine.named("InferenceService", "mistral-24b-full").inputs["metadata"]["annotations"]
        check = next(job for job in engine.of("Job") if job.inputs["metadata"]["name"].startswith("check-"))
        return service[KEY_MARK], check.inputs["spec"]["template"]["metadata"]["annotations"][KEY_MARK]

    first = marks(apiKey="one")
    assert first == marks(apiKey="one")
    assert first[0] == first[1]
    assert first[0] != marks(apiKey="two")[0]
    assert KEY_MARK not in run_program(access={"auth": "none"}).of("InferenceService")[0].inputs["metadata"]["annotations"]


def test_nobody_can_try_keys_against_the_mark_that_pods_carry_of_theirs(run_program: Callable[..., Any]) -> None:
    def mark(salt: str) -> Any:
        engine = run_program(
            services=only_services(service_named("mistral-24b-full")), engine=KnownRandom(engine_answers(), salt), apiKey="one"
        )
        service = engine.named("InferenceService", "mistral-24b-full")
        # A secret among the annotations would hide all of them from a preview.
        assert service.secrets == frozenset()
        return service.inputs["metadata"]["annotations"][KEY_MARK]

    assert mark("a stack's own random value") != mark("another stack's")


def test_new_keys_of_the_store_reach_its_users_and_its_server(run_program: Callable[..., Any]) -> None:
    def marks(**known: str) -> tuple[Any, Any]:
        engine = run_program(engine=KnownRandom(engine_answers(), **known))
        server = engine.named("StatefulSet", "minio").inputs["spec"]["template"]["metadata"]
        setup = next(job for job in engine.of("Job") if job.inputs["metadata"]["name"].startswith("minio-setup-"))
        return server["annotations"][KEY_MARK], setup.inputs["spec"]["template"]["metadata"]["annotations"][KEY_MARK]

    assert marks() == marks()
    before, writer, root = marks(), marks(writer_secret="new"), marks(root_password="new")
    # A writer's key needs no new server, but a new user.
    assert (writer[0] == before[0], writer[1] == before[1]) == (True, False)
    assert (root[0] == before[0], root[1] == before[1]) == (False, False)


@pytest.mark.parametrize("prefix", ["Mistral_24B.v1/", "models/mistral-small-24b-instruct-2501-as-the-team-of-search-has-it/"])
@pytest.mark.parametrize("name", ["m" * 53, "mistral-24b-full"])
def test_every_job_has_a_name_that_its_pods_can_carry_as_a_label(run_program: Callable[..., Any], prefix: str, name: str) -> None:
    engine = run_program(services=only_services({**service_named("mistral-24b-full", prefix=prefix), "name": name}))
    names = [job.inputs["metadata"]["name"] for job in engine.of("Job")]
    assert len(set(names)) == 4
    assert [found for found in names if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", found)] == []


def test_jobs_of_services_whose_long_names_begin_alike_are_told_apart(run_program: Callable[..., Any]) -> None:
    services = [{**service_named("mistral-24b-full"), "name": "m" * 52 + last} for last in "ab"]
    pools = [{"name": "l4-4gpu", "instanceType": "g6.12xlarge", "count": 2}]
    engine = run_program(services=only_services(*services), pools={"groups": only_pools(*pools)})
    names = [job.inputs["metadata"]["name"] for job in engine.of("Job")]
    assert len(names) == len(set(names)) == 6


def test_a_job_is_named_after_what_it_does_so_that_an_unchanged_one_never_runs_twice(run_program: Callable[..., Any]) -> None:
    def seed_job(**changes: Any) -> str:
        engine = run_program(services=only_services(service_named("mistral-24b-full", **changes)))
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


def test_a_check_says_what_it_waited_for_before_its_job_is_ended(run_program: Callable[..., Any]) -> None:
    job = next(job for job in run_program().of("Job") if job.inputs["metadata"]["name"].startswith("check-"))
    environment = {entry["name"]: entry.get("value") for entry in job.inputs["spec"]["template"]["spec"]["containers"][0]["env"]}
    # The Job's clock runs while its pod is placed and its image pulled.
    assert job.inputs["spec"]["activeDeadlineSeconds"] >= int(environment["DEADLINE_SECONDS"]) + 300


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
