"""The REST API by plain HTTP: what it keeps, and what it refuses in which words."""

from __future__ import annotations

import base64
import threading
from typing import Any

import pytest
import requests

from embedded.images.model_registry.server import RegistryServer


def text(value: str) -> dict[str, str]:
    return {"metadataType": "MetadataStringValue", "string_value": value}


def refusal(answer: requests.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.json()["code"], answer.json()["message"]


@pytest.fixture
def model(make: Any) -> dict[str, Any]:
    return make("registered_models", {"name": "mistral", "owner": "ai-admin"})


@pytest.fixture
def version(make: Any, model: dict[str, Any]) -> dict[str, Any]:
    return make("model_versions", {"name": "v3", "registeredModelId": model["id"]})


def test_a_created_model_is_live_and_has_ids_and_times_as_strings(model: dict[str, Any]) -> None:
    assert model["id"] == "1"
    assert model["state"] == "LIVE"
    assert model["owner"] == "ai-admin"
    assert model["createTimeSinceEpoch"].isdigit()
    assert len(model["createTimeSinceEpoch"]) == 13
    assert model["lastUpdateTimeSinceEpoch"] == model["createTimeSinceEpoch"]


def test_models_and_versions_share_one_sequence_of_ids_and_artifacts_have_their_own(make: Any, version: dict[str, Any]) -> None:
    artifact = make(
        f"model_versions/{version['id']}/artifacts",
        {"artifactType": "model-artifact", "name": "mistral", "uri": "s3://b/p/"},
    )
    environment = make("serving_environments", {"name": "private-ai"})
    assert (version["id"], artifact["id"], environment["id"]) == ("2", "1", "3")


def test_both_names_of_the_api_answer_the_same(call: Any, model: dict[str, Any]) -> None:
    assert call("GET", "registered_models/1", version="v1").json() == call("GET", "registered_models/1").json() == model


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("registered_models", {"name": "m", "id": "7"}, "id"),
        ("registered_models", {"name": "m", "createTimeSinceEpoch": "1"}, "createTimeSinceEpoch"),
        ("registered_models", {"name": "m", "tags": []}, "tags"),
        ("model_versions", {"name": "v", "registeredModelId": "1", "owner": "x"}, "owner"),
        ("serving_environments", {"name": "e", "state": "LIVE"}, "state"),
    ],
)
def test_an_unknown_field_is_refused_by_name(call: Any, path: str, body: dict[str, Any], field: str) -> None:
    assert refusal(call("POST", path, json=body)) == (400, "Bad Request", f'json: unknown field "{field}"')


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("registered_models", {}, "name"),
        ("registered_models", {"name": ""}, "name"),
        ("model_versions", {"name": "v"}, "registeredModelId"),
        ("inference_services", {"name": "s", "servingEnvironmentId": "1"}, "registeredModelId"),
    ],
)
def test_a_missing_required_field_is_422_and_called_a_bad_request(call: Any, path: str, body: dict[str, Any], field: str) -> None:
    assert refusal(call("POST", path, json=body)) == (422, "Bad Request", f"required field '{field}' is zero value.")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"name"', b"null"])
def test_a_body_that_is_no_json_object_is_400(call: Any, body: bytes) -> None:
    assert call("POST", "registered_models", data=body).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"name": 5},
        {"name": "m", "owner": True},
        {"name": "m", "state": "GONE"},
        {"name": "m", "customProperties": []},
        {"name": "m", "tasks": "t"},
    ],
)
def test_a_value_of_the_wrong_type_is_400(call: Any, body: dict[str, Any]) -> None:
    assert refusal(call("POST", "registered_models", json=body))[:2] == (400, "Bad Request")


@pytest.mark.parametrize(
    "entry",
    [
        {"metadataType": "MetadataIntValue", "int_value": "2147483648"},
        {"metadataType": "MetadataIntValue", "int_value": "49923563520"},
        {"metadataType": "MetadataIntValue", "int_value": "12.5"},
        {"metadataType": "MetadataIntValue", "int_value": 12},
        {"metadataType": "MetadataStringValue"},
        {"metadataType": "MetadataStringValue", "string_value": "x", "int_value": "1"},
        {"metadataType": "MetadataBoolValue", "bool_value": "true"},
        {"metadataType": "MetadataDoubleValue", "double_value": True},
        {"metadataType": "MetadataTextValue", "string_value": "x"},
        {"string_value": "x"},
        "x",
    ],
)
def test_a_custom_property_that_the_server_cannot_keep_is_400(call: Any, entry: Any) -> None:
    answer = call("POST", "registered_models", json={"name": "m", "customProperties": {"bytes": entry}})
    assert answer.status_code == 400
    assert "customProperties.bytes" in answer.json()["message"]
    assert call("GET", "registered_model", name="m").status_code == 404


def test_custom_properties_of_every_type_come_back_as_they_were_sent(make: Any, call: Any) -> None:
    properties = {
        "text": text(""),
        "whole": {"metadataType": "MetadataIntValue", "int_value": "-2147483648"},
        "real": {"metadataType": "MetadataDoubleValue", "double_value": 1.5},
        "flag": {"metadataType": "MetadataBoolValue", "bool_value": False},
        "struct": {"metadataType": "MetadataStructValue", "struct_value": "e30="},
        "proto": {"metadataType": "MetadataProtoValue", "type": "t", "proto_value": "e30="},
    }
    created = make("registered_models", {"name": "m", "customProperties": properties})
    assert call("GET", f"registered_models/{created['id']}").json()["customProperties"] == properties


def test_a_name_that_is_taken_is_409_even_when_archived(call: Any, model: dict[str, Any]) -> None:
    assert call("PATCH", "registered_models/1", json={"state": "ARCHIVED"}).status_code == 200
    taken = call("POST", "registered_models", json={"name": "mistral"})
    assert refusal(taken) == (409, "Conflict", "registered model with name mistral already exists")


def test_a_version_name_is_taken_only_within_its_model(call: Any, make: Any, version: dict[str, Any]) -> None:
    other = make("registered_models", {"name": "other"})
    make("model_versions", {"name": "v3", "registeredModelId": other["id"]})
    again = call("POST", "model_versions", json={"name": "v3", "registeredModelId": version["registeredModelId"]})
    assert refusal(again) == (409, "Conflict", "model version with name v3 already exists")


def test_an_artifact_name_is_taken_only_within_its_version(
    call: Any, make: Any, model: dict[str, Any], version: dict[str, Any]
) -> None:
    body = {"artifactType": "model-artifact", "name": "mistral", "uri": "s3://b/p/"}
    newer = make("model_versions", {"name": "v4", "registeredModelId": model["id"]})
    for parent in (version, newer):
        make(f"model_versions/{parent['id']}/artifacts", body)
    again = call("POST", f"model_versions/{version['id']}/artifacts", json=body)
    assert refusal(again) == (409, "Conflict", "model artifact with name mistral already exists")


def test_an_external_id_is_taken_across_a_whole_table(call: Any, make: Any) -> None:
    make("registered_models", {"name": "a", "externalId": "x"})
    assert call("POST", "serving_environments", json={"name": "b", "externalId": "x"}).status_code == 409
    assert call("POST", "model_artifacts", json={"name": "c", "externalId": "x"}).status_code == 201


def test_of_many_simultaneous_creates_of_one_name_exactly_one_wins(server: RegistryServer) -> None:
    url = f"http://127.0.0.1:{server.port}/api/model_registry/v1alpha3/registered_models"
    statuses: list[int] = []
    together = threading.Barrier(12)

    def create() -> None:
        together.wait()
        statuses.append(requests.post(url, json={"name": "m"}, timeout=10).status_code)

    threads = [threading.Thread(target=create) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [409] * 11


def test_an_update_keeps_what_it_does_not_name_and_replaces_custom_properties_as_a_whole(call: Any, make: Any) -> None:
    made = make("registered_models", {"name": "m", "owner": "me", "customProperties": {"a": text("1"), "b": text("2")}})
    path = f"registered_models/{made['id']}"
    kept = call("PATCH", path, json={"description": "new", "customProperties": None}).json()
    assert (kept["owner"], kept["description"], set(kept["customProperties"])) == ("me", "new", {"a", "b"})
    replaced = call("PATCH", path, json={"customProperties": {"c": text("3")}}).json()
    assert set(replaced["customProperties"]) == {"c"}
    assert replaced["description"] == "new"
    assert int(replaced["lastUpdateTimeSinceEpoch"]) > int(made["lastUpdateTimeSinceEpoch"])
    assert replaced["createTimeSinceEpoch"] == made["createTimeSinceEpoch"]


def test_an_update_without_a_state_resets_it(call: Any, make: Any, version: dict[str, Any]) -> None:
    artifact = make(f"model_versions/{version['id']}/artifacts", {"artifactType": "model-artifact", "name": "m", "state": "LIVE"})
    call("PATCH", "registered_models/1", json={"state": "ARCHIVED"})
    assert call("PATCH", "registered_models/1", json={"owner": "x"}).json()["state"] == "LIVE"
    body = {"artifactType": "model-artifact", "uri": "s3://b/q/"}
    assert call("PATCH", f"model_artifacts/{artifact['id']}", json=body).json()["state"] == "UNKNOWN"


def test_a_name_cannot_be_updated(call: Any, model: dict[str, Any]) -> None:
    assert refusal(call("PATCH", "registered_models/1", json={"name": "n"})) == (
        400,
        "Bad Request",
        'json: unknown field "name"',
    )


def test_an_artifact_body_with_an_id_updates_that_artifact(call: Any, make: Any, version: dict[str, Any]) -> None:
    path = f"model_versions/{version['id']}/artifacts"
    made = make(path, {"artifactType": "model-artifact", "name": "m", "uri": "s3://b/old/"})
    answer = call("POST", path, json={"artifactType": "model-artifact", "id": made["id"], "name": "ignored", "uri": "s3://b/new/"})
    assert (answer.status_code, answer.json()["uri"], answer.json()["name"]) == (200, "s3://b/new/", "m")
    assert call("POST", path, json={"artifactType": "doc-artifact", "id": made["id"]}).status_code == 400


def test_an_artifact_without_a_name_gets_one(make: Any, version: dict[str, Any]) -> None:
    path = f"model_versions/{version['id']}/artifacts"
    names = {make(path, {"artifactType": "model-artifact", "uri": "s3://b/p/"})["name"] for _ in range(2)}
    assert len(names) == 2
    assert all(len(name) == 36 for name in names)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("registered_model", {}, 400),
        ("registered_model", {"name": ""}, 400),
        ("registered_model", {"name": "mistral"}, 200),
        ("registered_model", {"name": "absent"}, 404),
        ("registered_model", {"externalId": "absent"}, 404),
        ("model_version", {"name": "v3"}, 400),
        ("model_version", {"name": "v3", "parentResourceId": "1"}, 200),
        ("model_version", {"name": "v3", "parentResourceId": "2"}, 404),
        ("model_version", {"name": "v3", "parentResourceId": "one"}, 400),
        ("model_artifact", {"name": "m"}, 400),
        ("model_artifact", {"name": "m", "parentResourceId": "2"}, 404),
        ("artifact", {}, 400),
        ("serving_environment", {}, 400),
        ("inference_service", {"name": "s"}, 400),
        ("registered_models/9", {}, 404),
        ("registered_models/2", {}, 404),
        ("registered_models/one", {}, 400),
        ("registered_models/99999999999", {}, 400),
        ("model_versions/2", {}, 200),
    ],
)
def test_finding_says_bad_request_for_missing_criteria_and_not_found_for_none(
    call: Any, version: dict[str, Any], path: str, query: dict[str, str], status: int
) -> None:
    assert call("GET", path, **query).status_code == status


def test_a_doc_artifact_is_not_found_as_a_model_artifact(call: Any, make: Any, version: dict[str, Any]) -> None:
    made = make(
        f"model_versions/{version['id']}/artifacts",
        {"artifactType": "doc-artifact", "name": "card", "uri": "s3://b/README.md"},
    )
    where = {"name": "card", "parentResourceId": version["id"]}
    assert call("GET", "artifact", **where).json() == made
    assert call("GET", "model_artifact", **where).status_code == 404
    assert call("GET", f"model_artifacts/{made['id']}").status_code == 404
    assert call("PATCH", f"model_artifacts/{made['id']}", json={"uri": "s3://x/"}).status_code == 404


def test_nothing_can_be_deleted(call: Any, version: dict[str, Any]) -> None:
    for path in ("registered_models/1", "registered_models", "model_versions/2", "model_version"):
        assert call("DELETE", path).status_code == 405
    assert call("GET", "model_versions/2").status_code == 200


def test_a_path_that_does_not_exist_is_a_plain_404(call: Any) -> None:
    for path, version in (
        ("nope", "v1alpha3"),
        ("registered_models", "v1alpha2"),
        ("registered_models/1/2/3", "v1"),
        ("", "v1"),
    ):
        answer = call("GET", path, version=version)
        assert (answer.status_code, answer.text) == (404, "404 page not found\n")


def test_pages_join_to_the_whole_list_in_either_direction(call: Any, make: Any) -> None:
    for number in range(7):
        make("registered_models", {"name": f"m{number}"})
    for key in ("", "ID", "CREATE_TIME", "LAST_UPDATE_TIME"):
        for direction in ("ASC", "DESC"):
            query = {"orderBy": key, "sortOrder": direction, "pageSize": "3"}
            seen: list[str] = []
            sizes = []
            token = ""
            while True:
                page = call("GET", "registered_models", nextPageToken=token, **query).json()
                seen += [item["id"] for item in page["items"]]
                sizes.append((page["size"], page["pageSize"]))
                if not (token := page["nextPageToken"]):
                    break
            expected = [str(number) for number in range(1, 8)]
            assert seen == (expected if direction == "ASC" else expected[::-1]), (key, direction)
            assert sizes == [(3, 3), (3, 3), (1, 3)]


def test_a_full_last_page_has_no_next_token(call: Any, make: Any) -> None:
    for number in range(4):
        make("registered_models", {"name": f"m{number}"})
    first = call("GET", "registered_models", pageSize="2").json()
    assert base64.b64decode(first["nextPageToken"]) == b"2:2"
    second = call("GET", "registered_models", pageSize="2", nextPageToken=first["nextPageToken"]).json()
    assert (len(second["items"]), second["nextPageToken"]) == (2, "")


def test_a_page_size_of_zero_or_none_is_everything(call: Any, make: Any) -> None:
    for number in range(25):
        make("registered_models", {"name": f"m{number}"})
    for query in ({}, {"pageSize": "0"}):
        page = call("GET", "registered_models", **query).json()
        assert (len(page["items"]), page["size"], page["pageSize"], page["nextPageToken"]) == (25, 25, 0, "")


def test_an_updated_model_moves_to_the_end_of_the_order_by_update(call: Any, make: Any) -> None:
    for number in range(3):
        make("registered_models", {"name": f"m{number}"})
    call("PATCH", "registered_models/1", json={"owner": "x"})
    page = call("GET", "registered_models", orderBy="LAST_UPDATE_TIME", sortOrder="DESC", pageSize="1").json()
    assert page["items"][0]["id"] == "1"


@pytest.mark.parametrize("query", [{"pageSize": "many"}, {"pageSize": "-1"}, {"orderBy": "NAME"}, {"sortOrder": "UP"}])
def test_a_list_option_that_makes_no_sense_is_400(call: Any, query: dict[str, str]) -> None:
    assert call("GET", "registered_models", **query).status_code == 400


def test_what_the_stand_in_does_not_keep_is_501_and_says_so(call: Any, version: dict[str, Any]) -> None:
    assert refusal(call("GET", "registered_models", filterQuery="name='m'"))[:2] == (501, "Not Implemented")
    assert call("GET", "experiments").status_code == call("POST", "experiment_runs/1/artifacts", json={}).status_code == 501
    assert call("POST", "artifacts", json={"artifactType": "metric", "value": 1}).status_code == 501
    assert call("GET", "artifacts", artifactType="dataset-artifact").status_code == 501


def test_a_version_of_a_model_that_does_not_exist_is_refused(call: Any) -> None:
    assert call("POST", "model_versions", json={"name": "v", "registeredModelId": "5"}).status_code == 404
    body = {"artifactType": "model-artifact", "uri": "s3://b/"}
    assert refusal(call("POST", "model_versions/5/artifacts", json=body)) == (
        404,
        "Not Found",
        "no model version found for id 5",
    )


def test_an_inference_service_leads_to_its_model_and_the_version_it_serves(call: Any, make: Any, model: Any, version: Any) -> None:
    environment = make("serving_environments", {"name": "private-ai"})
    body = {"name": "mistral-24b-full", "registeredModelId": model["id"], "runtime": "vllm"}
    service = make(f"serving_environments/{environment['id']}/inference_services", body)
    assert (service["desiredState"], service["servingEnvironmentId"]) == ("DEPLOYED", environment["id"])
    assert call("GET", f"inference_services/{service['id']}/model").json() == model
    assert call("GET", f"inference_services/{service['id']}/version").json() == version
    newer = make(f"registered_models/{model['id']}/versions", {"name": "v4", "registeredModelId": model["id"]})
    assert call("GET", f"inference_services/{service['id']}/version").json()["id"] == newer["id"]
    changes = {"modelVersionId": version["id"], "desiredState": "UNDEPLOYED"}
    assert call("PATCH", f"inference_services/{service['id']}", json=changes).status_code == 200
    assert call("GET", f"inference_services/{service['id']}/version").json()["id"] == version["id"]
    found = call("GET", "inference_service", name="mistral-24b-full", parentResourceId=environment["id"]).json()
    assert found["desiredState"] == "UNDEPLOYED"
    assert call("GET", f"serving_environments/{environment['id']}/inference_services").json()["size"] == 1
    served = make(f"inference_services/{service['id']}/serves", {"modelVersionId": version["id"]})
    assert served["lastKnownState"] == "UNKNOWN"
    assert served["id"] == "1"
    assert call("GET", f"inference_services/{service['id']}/serves").json()["items"] == [served]


def test_every_path_but_health_is_503_until_the_database_is_there(server: RegistryServer) -> None:
    registry, server.registry = server.registry, None
    base = f"http://127.0.0.1:{server.port}"
    assert requests.get(f"{base}/api/model_registry/v1alpha3/registered_models", timeout=10).status_code == 503
    assert requests.get(f"{base}/readyz/health", timeout=10).status_code == 503
    server.registry = registry
    for path in ("readyz/health", "readyz/isDirty"):
        assert requests.get(f"{base}/{path}", timeout=10).json() == {"status": "pass"}


def test_a_body_that_is_too_big_or_has_no_length_is_refused_and_the_server_goes_on(call: Any) -> None:
    assert call("POST", "registered_models", data=b" " * (2 << 20)).status_code == 413
    assert call("POST", "registered_models", data=iter([b"{}"])).status_code == 411
    assert call("GET", "registered_models").status_code == 200
