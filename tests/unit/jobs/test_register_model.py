"""The registration job against our registry server and a recording Kubernetes API."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from embedded.images.model_registry.registry import Registry
from embedded.images.model_registry.store import Store
from mistral_on_l4.jobs import last_words
from mistral_on_l4.jobs import register_model as job

REGISTRATION = {
    "model": {
        "name": "Mistral-Small-24B-FP8",
        "description": "FP8",
        "owner": "ai-admin",
        "customProperties": {"mistral": "", "vllm": ""},
    },
    "version": {
        "name": "2501-fp8",
        "author": "me",
        "customProperties": {"precision": "fp8", "gpus": 1, "fits": False, "ttft_ms": 812.5},
    },
    "artifact": {
        "uri": "s3://rhoai-artifacts/mistral-24b-fp8/",
        "modelFormatName": "vLLM",
        "storageKey": "minio",
        "customProperties": {},
    },
}
FACTS = {"weights_digest": "sha256:ab", "weights_bytes": "24925000000", "weights_files": 12}


def wanted(**changes: Any) -> job.Registration:
    given = json.loads(json.dumps(REGISTRATION))
    for path, value in changes.items():
        part, name = path.split("__")
        given[part][name] = value
    return job.Registration.parse(json.dumps(given), FACTS)


def patient(seconds: float = 30) -> job.Clock:
    return job.Clock(seconds, pause=lambda _: None)


def content(url: str) -> dict[str, list[dict[str, Any]]]:
    """Everything in the registry but its times."""
    base = f"{url}{job.API}"
    kept: dict[str, list[dict[str, Any]]] = {}
    for collection in ("registered_models", "model_versions", "artifacts"):
        items = requests.get(f"{base}/{collection}", timeout=10).json()["items"]
        kept[collection] = [{k: v for k, v in item.items() if not k.endswith("SinceEpoch")} for item in items]
    return kept


def patch(url: str, path: str, body: dict[str, Any]) -> None:
    answer = requests.patch(f"{url}{job.API}/{path}", json=body, timeout=10)
    assert answer.status_code == 200, answer.text


def test_a_first_run_registers_model_version_and_artifact_with_the_facts_of_the_weights(registry_url: str) -> None:
    ids = job.Registry(registry_url, patient()).register(wanted())
    assert ids == job.Ids("1", "2", "1")
    kept = content(registry_url)
    (model,), (version,), (artifact,) = kept.values()
    assert (model["owner"], model["state"], version["registeredModelId"], version["author"]) == (
        "ai-admin",
        "LIVE",
        "1",
        "me",
    )
    assert (artifact["name"], artifact["state"], artifact["uri"]) == (
        model["name"],
        "LIVE",
        REGISTRATION["artifact"]["uri"],
    )
    for properties in (version["customProperties"], artifact["customProperties"]):
        assert properties["weights_bytes"] == {"metadataType": "MetadataStringValue", "string_value": "24925000000"}
        assert properties["weights_files"] == {"metadataType": "MetadataIntValue", "int_value": "12"}
    assert version["customProperties"]["fits"] == {"metadataType": "MetadataBoolValue", "bool_value": False}
    assert version["customProperties"]["ttft_ms"] == {"metadataType": "MetadataDoubleValue", "double_value": 812.5}


def test_a_second_run_changes_nothing_not_even_a_time(registry_url: str) -> None:
    first = job.Registry(registry_url, patient()).register(wanted())
    before = requests.get(f"{registry_url}{job.API}/model_versions", timeout=10).json()
    assert job.Registry(registry_url, patient()).register(wanted()) == first
    assert requests.get(f"{registry_url}{job.API}/model_versions", timeout=10).json() == before


def test_an_archived_model_and_version_are_brought_back_and_updated(registry_url: str) -> None:
    job.Registry(registry_url, patient()).register(wanted())
    patch(registry_url, "registered_models/1", {"state": "ARCHIVED"})
    patch(registry_url, "model_versions/2", {"state": "ARCHIVED"})
    patch(registry_url, "model_artifacts/1", {"artifactType": "model-artifact", "state": "ABANDONED"})
    job.Registry(registry_url, patient()).register(
        wanted(model__description="FP8, new", artifact__uri="s3://rhoai-artifacts/other/")
    )
    (model,), (version,), (artifact,) = content(registry_url).values()
    assert [model["state"], version["state"], artifact["state"]] == ["LIVE"] * 3
    assert (model["description"], artifact["uri"]) == ("FP8, new", "s3://rhoai-artifacts/other/")


def test_properties_that_others_added_stay_and_ours_are_renewed(registry_url: str) -> None:
    job.Registry(registry_url, patient()).register(wanted())
    theirs = {"reviewed_by": job.custom_property("ada"), "precision": job.custom_property("edited")}
    patch(registry_url, "model_versions/2", {"state": "LIVE", "customProperties": theirs})
    job.Registry(registry_url, patient()).register(wanted())
    properties = content(registry_url)["model_versions"][0]["customProperties"]
    assert properties["reviewed_by"] == theirs["reviewed_by"]
    assert properties["precision"] == job.custom_property("fp8")
    assert properties["weights_digest"] == job.custom_property("sha256:ab")


def test_a_new_version_of_a_known_model_leaves_the_old_one_alone(registry_url: str) -> None:
    job.Registry(registry_url, patient()).register(wanted())
    old = content(registry_url)["model_versions"][0]
    ids = job.Registry(registry_url, patient()).register(wanted(version__name="2503-fp8"))
    assert ids == job.Ids("1", "3", "2")
    assert content(registry_url)["model_versions"][0] == old


class Crash(BaseException):
    """The process dies here."""


class CrashingAdapter(HTTPAdapter):
    """Dies at the request with the given number: before it is sent, or after the server has answered it."""

    def __init__(self, at: int, after_answer: bool) -> None:
        super().__init__()
        self.left, self.after_answer = at, after_answer

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.left -= 1
        if self.left == 0 and not self.after_answer:
            raise Crash
        answer = super().send(*args, **kwargs)
        if self.left == 0:
            raise Crash
        return answer


def crash(url: str, at: int, after_answer: bool, registration: job.Registration) -> bool:
    """Runs the job until it dies. False: it finished before."""
    with requests.Session() as session:
        session.mount("http://", CrashingAdapter(at, after_answer))
        try:
            job.Registry(url, patient(), session).register(registration)
        except Crash:
            return True
    return False


def test_whatever_two_crashes_left_behind_the_next_run_ends_in_the_same_registry(fresh_registry: Any) -> None:
    with fresh_registry() as url:
        job.Registry(url, patient()).register(wanted())
        expected = content(url)
    requests_of_a_first_run = 6
    # Dying before a request is sent leaves what dying after the answer to the one before it leaves.
    points = [(1, False), *((at, True) for at in range(1, requests_of_a_first_run + 1))]
    died = 0
    for first, second in itertools.product(points, points):
        with fresh_registry() as url:
            died += crash(url, *first, wanted())
            died += crash(url, *second, wanted())
            job.Registry(url, patient()).register(wanted())
            assert content(url) == expected, (first, second)
    assert died > len(points) ** 2  # the second run is shorter where the first got far, but the first always dies


def test_a_crash_while_updating_ends_in_the_same_registry_too(fresh_registry: Any) -> None:
    newer = wanted(model__owner="somebody", version__author="else", artifact__uri="s3://rhoai-artifacts/moved/")
    with fresh_registry() as url:
        job.Registry(url, patient()).register(wanted())
        job.Registry(url, patient()).register(newer)
        expected = content(url)
    for at, after_answer in ((1, False), *((at, True) for at in range(1, 7))):
        with fresh_registry() as url:
            job.Registry(url, patient()).register(wanted())
            assert crash(url, at, after_answer, newer)
            job.Registry(url, patient()).register(newer)
            assert content(url) == expected, (at, after_answer)


class EmptyingAdapter(HTTPAdapter):
    """Before the request with the given number the registry has come back on an empty volume."""

    def __init__(self, at: int, empty: Any) -> None:
        super().__init__()
        self.left, self.empty = at, empty

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.left -= 1
        if self.left == 0:
            self.empty()
        return super().send(*args, **kwargs)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("at", range(1, 7))
def test_a_registry_that_comes_back_empty_midway_is_filled_from_the_start(
    registry_url: str, registry_server: Any, at: int, others: int
) -> None:
    def empty() -> None:
        registry_server.registry = Registry(Store(Path(":memory:")))
        # Another job was quicker, and its model has the id that ours had.
        for _ in range(others):
            job.Registry(registry_url, patient()).register(wanted(model__name="Another"))

    with requests.Session() as session:
        session.mount("http://", EmptyingAdapter(at, empty))
        ids = job.Registry(registry_url, patient(), session).register(wanted())
    base = f"{registry_url}{job.API}"
    names = [
        requests.get(f"{base}/{collection}/{number}", timeout=10).json()["name"]
        for collection, number in (("registered_models", ids.model), ("model_versions", ids.version), ("artifacts", ids.artifact))
    ]
    assert names == [REGISTRATION["model"]["name"], REGISTRATION["version"]["name"], REGISTRATION["model"]["name"]]
    assert requests.get(f"{base}/model_versions/{ids.version}", timeout=10).json()["registeredModelId"] == ids.model


def test_jobs_that_run_at_the_same_time_agree_on_one_set_of_ids(registry_url: str) -> None:
    together, ids, errors = threading.Barrier(6), [], []

    def run() -> None:
        together.wait()
        try:
            ids.append(job.Registry(registry_url, patient()).register(wanted()))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(ids) == {job.Ids("1", "2", "1")}
    assert [len(items) for items in content(registry_url).values()] == [1, 1, 1]


def test_a_registry_that_never_answers_is_named_with_the_reason() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(job.Failure, match=f"gave up after 2 s.*127.0.0.1:{port}.*refused"):
            job.Registry(f"http://127.0.0.1:{port}", job.Clock(2, pause=lambda _: None, started=-1e9)).register(wanted())


def test_a_server_that_speaks_another_api_is_not_waited_for(registry_url: str) -> None:
    with pytest.raises(job.Failure, match="speaks no v1alpha3"):
        job.Registry(f"{registry_url}/other", patient()).register(wanted())


def test_what_the_registry_refuses_is_said_in_its_own_words(registry_url: str) -> None:
    with pytest.raises(job.Failure, match='400 json: unknown field "tags"'):
        job.Registry(registry_url, patient()).register(wanted(model__tags=["x"]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("[]", "not JSON"),
        ('{"model": {}, "version": {}, "artifact": 5}', "not JSON"),
        ('{"model": {}, "version": {"name": "v"}, "artifact": {"uri": "s3://b/"}}', "no model.name"),
        ('{"model": {"name": "m"}, "version": {"name": "v"}, "artifact": {}}', "no artifact.uri"),
    ],
)
def test_a_registration_that_cannot_be_read_says_what_is_missing(text: str, reason: str) -> None:
    with pytest.raises(job.Failure, match=reason):
        job.Registration.parse(text, {})


def test_only_integers_that_every_client_can_read_stay_integers() -> None:
    assert job.custom_property(999_999_999)["int_value"] == "999999999"
    assert job.custom_property(1_000_000_000) == {"metadataType": "MetadataStringValue", "string_value": "1000000000"}
    assert job.custom_property({"metadataType": "MetadataBoolValue", "bool_value": True})["bool_value"] is True
    assert job.custom_property(["a"])["metadataType"] == "MetadataStringValue"


# -- the result in the cluster -----------------------------------------------------------------------------------------

RESULT = "/api/v1/namespaces/ns/configmaps/result"
ENVIRONMENT = {"JOB_NAME": "register", "JOB_UID": "u-1"}


@pytest.fixture
def cluster(kubernetes: Any) -> job.Cluster:
    def call(method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {kubernetes.token}"}
        answer = requests.request(method, kubernetes.url + path, json=body, headers=headers, timeout=10)
        return answer.status_code, answer.json()

    return job.Cluster("ns", call)


def test_the_result_is_created_owned_by_the_job(kubernetes: Any, cluster: job.Cluster) -> None:
    job.write_result(cluster, "result", {"registeredModelId": "1"}, ENVIRONMENT, patient())
    made = kubernetes.objects[RESULT]
    assert made["data"] == {"registeredModelId": "1"}
    assert made["metadata"]["ownerReferences"] == [{"apiVersion": "batch/v1", "kind": "Job", "name": "register", "uid": "u-1"}]
    assert kubernetes.calls == [("POST", RESULT.rsplit("/", 1)[0])]


def test_the_result_of_an_earlier_job_is_taken_over(kubernetes: Any, cluster: job.Cluster) -> None:
    job.write_result(cluster, "result", {"registeredModelId": "1", "gone": "x"}, {"JOB_NAME": "old", "JOB_UID": "u-0"}, patient())
    job.write_result(cluster, "result", {"registeredModelId": "7"}, ENVIRONMENT, patient())
    made = kubernetes.objects[RESULT]
    assert made["data"] == {"registeredModelId": "7"}
    assert [owner["uid"] for owner in made["metadata"]["ownerReferences"]] == ["u-1"]


def test_the_result_that_is_being_deleted_with_its_job_is_waited_for(kubernetes: Any, cluster: job.Cluster) -> None:
    job.write_result(cluster, "result", {"registeredModelId": "1"}, ENVIRONMENT, patient())
    kubernetes.objects[RESULT]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    waits: list[float] = []

    def collect(seconds: float) -> None:
        waits.append(seconds)
        del kubernetes.objects[RESULT]

    job.write_result(cluster, "result", {"registeredModelId": "2"}, ENVIRONMENT, job.Clock(30, pause=collect))
    assert len(waits) == 1
    assert kubernetes.objects[RESULT]["data"] == {"registeredModelId": "2"}


def test_a_config_map_of_somebody_else_is_not_overwritten(kubernetes: Any, cluster: job.Cluster) -> None:
    kubernetes.objects[RESULT] = {"metadata": {"name": "result", "resourceVersion": "1"}, "data": {"theirs": "x"}}
    with pytest.raises(job.Failure, match="ConfigMap ns/result exists"):
        job.write_result(cluster, "result", {"registeredModelId": "1"}, ENVIRONMENT, patient())
    assert kubernetes.objects[RESULT]["data"] == {"theirs": "x"}


def test_an_api_server_that_is_away_for_a_moment_is_asked_again(kubernetes: Any, cluster: job.Cluster) -> None:
    kubernetes.once[("POST", "configmaps")] = 503
    job.write_result(cluster, "result", {"registeredModelId": "1"}, ENVIRONMENT, patient())
    assert kubernetes.objects[RESULT]["data"] == {"registeredModelId": "1"}


def test_a_missing_right_is_said_with_the_object_it_is_missing_for(kubernetes: Any, cluster: job.Cluster) -> None:
    kubernetes.once[("POST", "configmaps")] = 403
    with pytest.raises(job.Failure, match="cannot write ConfigMap ns/result: 403"):
        job.write_result(cluster, "result", {}, ENVIRONMENT, patient())


def test_the_uid_of_the_job_is_read_when_nobody_gives_it(kubernetes: Any, cluster: job.Cluster) -> None:
    kubernetes.objects["/apis/batch/v1/namespaces/ns/jobs/register"] = {"metadata": {"uid": "from-the-api"}}
    assert job.job_owner(cluster, {"JOB_NAME": "register"})["uid"] == "from-the-api"
    with pytest.raises(job.Failure, match="cannot read Job ns/other: 404"):
        job.job_owner(cluster, {"JOB_NAME": "other"})


# -- the whole job -----------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(registry_url: str) -> dict[str, str]:
    return {
        **ENVIRONMENT,
        "REGISTRY_URL": registry_url,
        "REGISTRATION": json.dumps(REGISTRATION),
        "RESULT_CONFIGMAP": "result",
        "POD_NAMESPACE": "ns",
    }


def test_a_run_writes_what_the_program_reads(
    environment: dict[str, str], kubernetes: Any, cluster: job.Cluster, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(job.Cluster, "of", lambda _: cluster)
    environment["REGISTRY_NAME"] = "private-ai-registry"
    job.run(environment, facts=lambda _: dict(FACTS))
    assert kubernetes.objects[RESULT]["data"] == {
        "registeredModelId": "1",
        "modelVersionId": "2",
        "modelArtifactId": "1",
        "registryName": "private-ai-registry",
    }
    assert "model 1, version 2, artifact 1" in capsys.readouterr().out.splitlines()[-1]


def test_the_registry_is_called_after_its_internal_service() -> None:
    assert job.registry_name({}, "http://private-ai-registry-internal.rhoai-model-registries.svc:8080") == "private-ai-registry"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"REGISTRY_URL": ""}, "REGISTRY_URL is not set"),
        ({"REGISTRY_URL": "registry:8080"}, "no http address"),
        ({"RESULT_CONFIGMAP": ""}, "RESULT_CONFIGMAP is not set"),
        ({"DEADLINE_SECONDS": "soon"}, "soon"),
        ({"WEIGHTS_BUCKET": "b"}, "together"),
        ({"WEIGHTS_BUCKET": "b", "WEIGHTS_PREFIX": "p"}, "must end with '/'"),
        ({}, "KUBERNETES_SERVICE_HOST"),
    ],
)
def test_a_setting_that_cannot_work_is_one_clear_line_in_log_and_termination_log(
    environment: dict[str, str],
    change: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    tmp_path: Path,
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "WEIGHTS_BUCKET", "WEIGHTS_PREFIX", "REGISTRY_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**environment, **change}.items():
        monkeypatch.setenv(name, value)
    if "WEIGHTS_BUCKET" in change:
        monkeypatch.setattr(job.Cluster, "of", lambda _: None)
    monkeypatch.setattr(last_words, "TERMINATION_LOG", tmp_path / "termination-log")
    assert job.main() == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("registration failed: ")
    assert reason in line
    assert (tmp_path / "termination-log").read_text() == line


def test_a_bug_still_ends_in_one_line(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(job, "run", lambda _: 1 / 0)
    monkeypatch.setattr(last_words, "TERMINATION_LOG", tmp_path / "absent" / "termination-log")
    assert job.main() == 1
    assert capsys.readouterr().err.splitlines()[-1] == "registration failed: ZeroDivisionError: division by zero"


def test_a_pod_without_a_token_is_told_which_file_is_missing(tmp_path: Path) -> None:
    inside = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443", "POD_NAMESPACE": "ns"}
    with pytest.raises(job.Failure, match="token is missing"):
        job.Cluster.of(inside, tmp_path)
    (tmp_path / "token").write_text("t")
    assert job.Cluster.of(inside, tmp_path).namespace == "ns"


def test_the_api_server_is_called_with_the_token_of_now_and_not_through_the_hubs_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443", "POD_NAMESPACE": "ns"}
    sent: list[tuple[str, str, bool]] = []

    def request(self: requests.Session, _method: str, url: str, headers: dict[str, str], **_: Any) -> requests.Response:
        sent.append((url, headers["Authorization"], self.trust_env))
        raise requests.ConnectionError("refused")

    monkeypatch.setattr(requests.Session, "request", request)
    (tmp_path / "token").write_text("one\n")
    cluster = job.Cluster.of(inside, tmp_path)
    for token in ("one\n", "two\n"):
        (tmp_path / "token").write_text(token)
        with pytest.raises(job._Again, match="the Kubernetes API does not answer: refused"):
            cluster.call("GET", "/api")
    assert sent == [("https://[fd00::1]:443/api", f"Bearer {token}", False) for token in ("one", "two")]


@pytest.mark.parametrize("manifest", [{}, {"files": []}, {"digest": "x"}, {"files": 3, "digest": "x"}])
def test_an_object_that_is_no_manifest_is_refused(manifest: dict[str, Any]) -> None:
    with pytest.raises(job.Failure, match=r"s3://b/p/\.manifest\.json is not a weights manifest"):
        job.manifest_facts(manifest, "s3://b/p/.manifest.json")
