"""The stand-in for mc: its signature, its policies, its words."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from embedded.images.mc.__main__ import Client, Failed
from embedded.images.mc.policies import PolicyError, holders, merged, per_bucket, read
from embedded.images.mc.store import Alias, StoreError, authorization
from mistral_on_l4.manifests.object_store import READER_ACTIONS, READER_BUCKET_ACTIONS, bucket_policy

SECRET = "sec/ret+&<'"
READER = bucket_policy("weights", READER_BUCKET_ACTIONS, READER_ACTIONS)


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("PUT", "/bucket", {}, b""),
        ("GET", "/bucket", {"policy": ""}, b""),
        ("PATCH", "/update-user", {"access": "a key/with +"}, b"<x/>"),
    ],
)
def test_requests_are_signed_as_botocore_signs_them(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, query: dict[str, str], body: bytes
) -> None:
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    alias = Alias("http", "minio.private-ai.svc", 9000, "root", SECRET)
    ours = authorization(alias, method, path, query, {"host": "minio.private-ai.svc:9000"}, body, now)
    request = AWSRequest(method, f"{alias.address}{path}", data=body, params=query)
    request.context["timestamp"] = ours["x-amz-date"]
    request.headers["X-Amz-Content-SHA256"] = ours["x-amz-content-sha256"]
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now.replace(tzinfo=None), raising=False)
    S3SigV4Auth(Credentials("root", SECRET), "s3", "us-east-1").add_auth(request)
    assert request.headers["X-Amz-Date"] == ours["x-amz-date"]
    assert request.headers["Authorization"] == ours["Authorization"]


def test_an_alias_is_read_with_its_percent_signs() -> None:
    assert Alias.read("store", "http://ro%40ot:p%2Fw@minio:9000") == Alias("http", "minio", 9000, "ro@ot", "p/w")
    assert Alias.read("store", "https://a:b@minio").port == 443


@pytest.mark.parametrize("value", ["minio:9000", "http://minio:9000", "http://key@minio", "ftp://a:b@minio", "http://a:b@minio:x"])
def test_an_alias_that_is_none_is_refused_without_repeating_it(value: str) -> None:
    with pytest.raises(StoreError) as refused:
        Alias.read("store", value)
    assert value not in str(refused.value)


def test_a_policy_becomes_statements_for_one_user_and_one_bucket() -> None:
    found = per_bucket("weights-reader", read("weights-reader", READER), "reader")
    assert set(found) == {"weights"}
    assert [statement["Sid"] for statement in found["weights"]] == ["weights-reader:0", "weights-reader:1"]
    assert {user for statement in found["weights"] for user in statement["Principal"]["AWS"]} == {"reader"}


def test_writer_and_reader_live_in_one_bucket_policy() -> None:
    reader = per_bucket("r", read("r", READER), "reader")["weights"]
    writer = per_bucket("w", read("w", READER.replace("s3:GetObject", "s3:PutObject")), "writer")["weights"]
    both = merged(merged(None, "r", "reader", reader), "w", "writer", writer)
    assert both is not None
    assert (holders(both, "r"), holders(both, "w")) == (["reader"], ["writer"])
    assert merged(both, "r", "reader", reader) is None
    assert merged(both, "w", "writer", writer) is None
    fewer = merged(both, "r", "reader", reader[:1])
    assert fewer is not None
    assert len(json.loads(fewer)["Statement"]) == 3


def test_a_statement_that_someone_else_made_is_kept() -> None:
    other = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::weights/public/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [other]})
    after = merged(policy, "r", "reader", per_bucket("r", read("r", READER), "reader")["weights"])
    assert after is not None
    assert other in json.loads(after)["Statement"]
    assert holders(policy, "r") == []


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ({"Condition": {"StringLike": {"s3:prefix": "a/*"}}}, "Condition is not supported"),
        ({"NotAction": ["s3:GetObject"]}, "NotAction is not supported"),
        ({"Resource": "arn:aws:s3:::*"}, "names no single bucket"),
        ({"Resource": "*"}, "names no single bucket"),
        ({"Effect": "Maybe"}, "needs Effect"),
    ],
)
def test_what_the_server_would_not_enforce_is_refused(statement: dict[str, Any], why: str) -> None:
    base = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::weights/*"]}
    with pytest.raises(PolicyError) as refused:
        read("p", json.dumps({"Statement": [base | statement]}))
    assert why in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Statement": []}', '{"Statement": {}}'])
def test_a_document_that_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        read("p", text)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["ls", "store"],
        ["mb", "--region", "x", "store/b"],
        ["admin", "info", "store"],
        ["--json", "ready", "store"],
        ["cp", "a", "b"],
    ],
)
def test_other_commands_are_not_supported_and_say_what_is(words: list[str]) -> None:
    with pytest.raises(Failed, match=r"not supported by the stand-in: mc .*it knows: mc ready ALIAS;"):
        Client({}, io.StringIO()).run(words)


def test_secrets_as_arguments_are_refused_without_repeating_them() -> None:
    with pytest.raises(Failed) as refused:
        Client({}, io.StringIO()).run(["admin", "user", "add", "store", "key", SECRET])
    assert SECRET not in str(refused.value)


def test_an_unknown_alias_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="set MC_HOST_nowhere"):
        Client({"MC_CONFIG_DIR": str(tmp_path)}, io.StringIO()).run(["ready", "nowhere"])


def test_a_server_that_is_down_is_an_error_without_a_secret(tmp_path: Path) -> None:
    environment = {"MC_CONFIG_DIR": str(tmp_path), "MC_HOST_store": "http://root:topsecret@127.0.0.1:1"}
    with pytest.raises((Failed, StoreError)) as refused:
        Client(environment, io.StringIO()).run(["mb", "store/weights"])
    assert "127.0.0.1:1" in str(refused.value)
    assert "topsecret" not in str(refused.value)


def test_a_configuration_that_cannot_be_saved_stops_every_command_as_with_the_real_client(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    environment = {"MC_CONFIG_DIR": str(tmp_path / "file"), "MC_HOST_store": "http://key:secret-key@127.0.0.1:1"}
    with pytest.raises(Failed, match="Unable to save new mc config"):
        Client(environment, io.StringIO()).run(["admin", "policy", "create", "store", "reader", str(tmp_path / "none")])
