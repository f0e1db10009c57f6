"""Registers one model version and its artifact in a Model Registry, and leaves their ids in a ConfigMap.

Runs as `python -m mistral_on_l4.jobs.register_model` in KServe's storage-initializer image: it uses what that image holds
(Python 3.11, requests, boto3). The registry's API has no DELETE and creates model, version and artifact in three calls, so
every step looks first, creates what is missing, un-archives and updates what is there: run it again after any failure, or
beside another one, and the registry holds the same.

Environment: REGISTRY_URL; REGISTRATION (JSON, see `Registration`); RESULT_CONFIGMAP, POD_NAMESPACE; JOB_NAME, JOB_UID
(without the latter the Job is read); REGISTRY_NAME (optional: else the host's first label without "-internal");
WEIGHTS_BUCKET, WEIGHTS_PREFIX with AWS_ENDPOINT_URL and credentials (optional together: facts from the weights'
manifest); DEADLINE_SECONDS (optional, 300).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from mistral_on_l4.jobs.cluster_api import SERVICE_ACCOUNT, Call, Json, in_cluster
from mistral_on_l4.jobs.last_words import say_why
from mistral_on_l4.jobs.trust import Untrusted, trust_extra_authority

API = "/api/model_registry/v1alpha3"
MANAGED_BY = "mistral-on-l4-registration"

_REQUEST_TIMEOUT = (5.0, 30.0)  # seconds to connect, to answer
_PAUSE_SECONDS = 1.0
# Answers that pass: the server before its database is up, and proxies on the way.
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


class Failure(Exception):
    """One sentence for people: what is wrong, the value, what would work."""


class _Again(Exception):
    """A lost race or a server that was away: find again."""


class _Emptied(Exception):
    """The registry no longer knows what it knew: it came back on an empty volume, and gives out ids from the beginning."""


# -- what to register --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registration:
    """model, version, artifact: the fields the registry should hold, with customProperties as the API spells them."""

    model: Json
    version: Json
    artifact: Json

    @classmethod
    def parse(cls, text: str, facts: Mapping[str, Any]) -> Registration:
        """Reads REGISTRATION: {"model": {"name", ...}, "version": {"name", ...}, "artifact": {"uri", ...}}.

        customProperties there are plain values or the API's own objects. `facts` join those of version and artifact.
        Raises Failure.
        """
        try:
            given = json.loads(text)
            model, version, artifact = (dict(given[part]) for part in ("model", "version", "artifact"))
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(f"REGISTRATION is not JSON with model, version and artifact: {error}") from error
        for part, fields, needed in (
            ("model", model, "name"),
            ("version", version, "name"),
            ("artifact", artifact, "uri"),
        ):
            if not fields.get(needed):
                raise Failure(f"REGISTRATION has no {part}.{needed}")
        for fields, extra in ((model, {}), (version, facts), (artifact, facts)):
            properties = {**(fields.get("customProperties") or {}), **extra}
            fields["customProperties"] = {name: custom_property(value) for name, value in properties.items() if value is not None}
        for fields in (model, version, artifact):
            fields["state"] = "LIVE"
        # The official client finds an artifact by its model's name.
        artifact["name"] = model["name"]
        artifact["artifactType"] = "model-artifact"
        return cls(model, version, artifact)


def custom_property(value: Any) -> Json:
    """The API's object for a plain value. Integers of ten digits and more are strings: clients refuse them (int32)."""
    if isinstance(value, dict):
        return value if "metadataType" in value else custom_property(json.dumps(value, sort_keys=True))
    if isinstance(value, bool):
        return {"metadataType": "MetadataBoolValue", "bool_value": value}
    if isinstance(value, int) and abs(value) < 10**9:
        return {"metadataType": "MetadataIntValue", "int_value": str(value)}
    if isinstance(value, float):
        return {"metadataType": "MetadataDoubleValue", "double_value": value}
    return {"metadataType": "MetadataStringValue", "string_value": str(value)}


# -- the weights' manifest ---------------------------------------------------------------------------------------------


def manifest_facts(manifest: Mapping[str, Any], key: str) -> Json:
    """Custom properties from the manifest that the seed job wrote last. Raises Failure if it is not one."""
    files = manifest.get("files")
    digest = manifest.get("digest")
    if not isinstance(files, (list, dict)) or not digest:
        raise Failure(f"{key} is not a weights manifest: it has no files or no digest; let the seed job write it again")
    total = manifest.get("bytes", manifest.get("total_bytes"))
    return {
        "weights_digest": digest,
        # A string always, not only when it is too big for the API's int32: one type for one name.
        "weights_bytes": None if total is None else str(total),
        "weights_files": len(files),
        "weights_repository": manifest.get("repository"),
        "weights_revision": manifest.get("commit") or manifest.get("revision"),
    }


def read_manifest(environment: Mapping[str, str]) -> Json:
    """Facts of the weights under WEIGHTS_BUCKET/WEIGHTS_PREFIX; {} when neither is set. Raises Failure."""
    bucket, prefix = environment.get("WEIGHTS_BUCKET"), environment.get("WEIGHTS_PREFIX")
    if not bucket and not prefix:
        return {}
    if not bucket or not prefix:
        raise Failure("set WEIGHTS_BUCKET and WEIGHTS_PREFIX together, or neither")
    if not prefix.endswith("/"):
        raise Failure(f"WEIGHTS_PREFIX {prefix!r} must end with '/'")
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # Where the seed job writes it, outside of what model servers download (weights_record.manifest_key).
    key = f"_manifests/{prefix.rstrip('/')}.json"
    settings = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, read_timeout=30)
    try:
        body = boto3.client("s3", config=settings).get_object(Bucket=bucket, Key=key)["Body"].read()
        return manifest_facts(json.loads(body), f"s3://{bucket}/{key}")
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("NoSuchKey", "404"):
            raise Failure(f"s3://{bucket}/{key} does not exist: the weights are not complete, run the seed job first") from error
        raise Failure(f"cannot read s3://{bucket}/{key}: {code} {error.response.get('Error', {}).get('Message', '')}") from error
    except (BotoCoreError, ValueError) as error:
        raise Failure(f"cannot read s3://{bucket}/{key}: {error}") from error


# -- the registry ------------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    """How long all of it may take. pause: waits between tries; tests replace it."""

    seconds: float
    pause: Callable[[float], None] = time.sleep
    started: float = field(default_factory=time.monotonic)

    def wait_or(self, reason: str) -> None:
        """Waits a moment, or raises Failure with the reason when the time is up."""
        if time.monotonic() - self.started + _PAUSE_SECONDS > self.seconds:
            raise Failure(f"gave up after {self.seconds:.0f} s: {reason}")
        self.pause(_PAUSE_SECONDS)


@dataclass(frozen=True)
class Ids:
    """What the registry calls the three, as it spells them: strings of digits."""

    model: str
    version: str
    artifact: str


class Registry:
    """The v1alpha3 REST API, as far as registering needs it."""

    def __init__(self, url: str, clock: Clock, session: requests.Session | None = None) -> None:
        self._base = url.rstrip("/") + API
        self._clock = clock
        self._session = session or requests.Session()

    def register(self, wanted: Registration) -> Ids:
        """Brings model, version and artifact to what is wanted. Raises Failure."""
        while True:
            try:
                ids = self._register(wanted)
                self._look_again(wanted, ids)
                return ids
            except (_Again, _Emptied) as again:
                self._clock.wait_or(f"registering {wanted.model['name']!r}: {again}")

    def _look_again(self, wanted: Registration, ids: Ids) -> None:
        """Ids of a registry that was emptied meanwhile may be those of other models by now. Raises _Again, _Emptied."""
        version = {"name": wanted.version["name"], "parentResourceId": ids.model}
        for finder, asked, known in (
            ("registered_model", {"name": wanted.model["name"]}, ids.model),
            ("model_version", version, ids.version),
        ):
            entry = self._call("GET", finder, params=asked)
            if entry is None or str(entry["id"]) != known:
                raise _Emptied(f"the registry no longer has {finder} {asked['name']!r} as {known}")

    def _register(self, wanted: Registration) -> Ids:
        model = self._ensure("registered_models", "registered_model", {}, "registered_models", wanted.model)
        owned = {"parentResourceId": model}
        version = self._ensure(
            "model_versions", "model_version", owned, "model_versions", {**wanted.version, "registeredModelId": model}
        )
        owned = {"parentResourceId": version}
        artifact = self._ensure("model_artifacts", "model_artifact", owned, f"model_versions/{version}/artifacts", wanted.artifact)
        return Ids(model, version, artifact)

    def _ensure(self, collection: str, finder: str, owner: Mapping[str, str], create: str, wanted: Json) -> str:
        """Finds by name and updates, or creates; the id. Starts over after a lost race or while the server is away."""
        while True:
            try:
                entry = self._call("GET", finder, params={"name": wanted["name"], **owner})
                if entry is None:
                    made = self._call("POST", create, body=wanted)
                    if made is None:
                        raise _Emptied(f"the registry answers 404 to POST {create}: its owner is gone")
                    print(f"created {finder} {wanted['name']!r} with id {made['id']}", flush=True)
                    return str(made["id"])
                self._update(collection, entry, wanted)
                return str(entry["id"])
            except _Again as again:
                self._clock.wait_or(f"{finder} {wanted['name']!r}: {again}")

    def _update(self, collection: str, entry: Json, wanted: Json) -> None:
        # PATCH replaces customProperties as a whole: properties that others added are kept by sending them back.
        properties = {**(entry.get("customProperties") or {}), **wanted["customProperties"]}
        fixed = ("name", "registeredModelId", "artifactType", "customProperties")
        changes = {name: value for name, value in wanted.items() if name not in fixed and value is not None}
        same = all(entry.get(name) == value for name, value in changes.items()) and properties == entry.get("customProperties")
        if same:
            print(f"{collection}/{entry['id']} is as it should be", flush=True)
            return
        # `changes` holds the state: an update without it resets an artifact to UNKNOWN.
        body = {**changes, "customProperties": properties}
        if "artifactType" in wanted:
            body["artifactType"] = wanted["artifactType"]
        if self._call("PATCH", f"{collection}/{entry['id']}", body=body) is None:
            raise _Emptied(f"the registry answers 404 to PATCH {collection}/{entry['id']}, which it found a moment ago")
        print(f"updated {collection}/{entry['id']}", flush=True)

    def _call(self, method: str, path: str, params: Mapping[str, str] | None = None, body: Json | None = None) -> Json | None:
        """The decoded answer, None for 404. Raises _Again for what passes, Failure for what does not."""
        try:
            answer = self._session.request(method, f"{self._base}/{path}", params=params, json=body, timeout=_REQUEST_TIMEOUT)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _Again(f"{self._base} does not answer: {_reason(error)}") from error
        except requests.RequestException as error:
            raise Failure(f"cannot call {self._base}: {error}") from error
        text = answer.text.strip()
        if answer.status_code in _TRANSIENT or answer.status_code == 409:
            raise _Again(f"HTTP {answer.status_code} {_message(answer)}")
        if answer.status_code == 404:
            if "page not found" in text:
                raise Failure(f"{self._base} is not there (404 page not found): the server behind REGISTRY_URL speaks no v1alpha3")
            return None
        if not answer.ok:
            raise Failure(f"the registry refuses {method} {path}: HTTP {answer.status_code} {_message(answer)}")
        try:
            decoded = answer.json()
        except ValueError as error:
            raise Failure(f"{self._base}/{path} answers no JSON: {text[:200]!r}") from error
        if not isinstance(decoded, dict) or "id" not in decoded:
            raise Failure(f"{self._base}/{path} answers without an id: {text[:200]!r}")
        return decoded


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:300]


def _reason(error: Exception) -> str:
    """The innermost cause: requests wraps "Connection refused" in a sentence of 200 characters."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) or type(error).__name__


# -- the result --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """The Kubernetes API as a pod of this namespace sees it."""

    namespace: str
    api: Call

    @classmethod
    def of(cls, environment: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> Cluster:
        """Raises Failure outside a pod, and in one without a service account's token."""
        if not environment.get("KUBERNETES_SERVICE_HOST") or not environment.get("KUBERNETES_SERVICE_PORT"):
            raise Failure("KUBERNETES_SERVICE_HOST and _PORT are not set: this job writes its result through the cluster's API")
        api = in_cluster(environment, account)
        if api is None:
            raise Failure(f"{account}/token is missing: the pod needs a service account with automountServiceAccountToken")
        return cls(required(environment, "POD_NAMESPACE"), api)

    def call(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        """(status, decoded answer). Raises _Again when the API is away or out of breath."""
        try:
            status, decoded = self.api(method, path, body)
        except (requests.RequestException, OSError) as error:
            raise _Again(f"the Kubernetes API does not answer: {_reason(error)}") from error
        if status in _TRANSIENT:
            raise _Again(f"the Kubernetes API answers {status}: {decoded.get('message', '')}")
        return status, decoded


def job_owner(cluster: Cluster, environment: Mapping[str, str]) -> Json:
    """ownerReference to this Job, so that the result goes when it goes."""
    name, uid = required(environment, "JOB_NAME"), environment.get("JOB_UID")
    if not uid:
        status, job = cluster.call("GET", f"/apis/batch/v1/namespaces/{cluster.namespace}/jobs/{name}")
        if status != 200:
            raise Failure(f"cannot read Job {cluster.namespace}/{name}: {status} {job.get('message', '')}")
        uid = job["metadata"]["uid"]
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}


def write_result(cluster: Cluster, name: str, data: Mapping[str, str], environment: Mapping[str, str], clock: Clock) -> None:
    """Creates or updates the ConfigMap, owned by this Job. Raises Failure, also for one that is somebody else's."""
    while True:
        try:
            _write_once(cluster, name, data, job_owner(cluster, environment))
            return
        except _Again as again:
            clock.wait_or(f"ConfigMap {cluster.namespace}/{name}: {again}")


def _write_once(cluster: Cluster, name: str, data: Mapping[str, str], owner: Json) -> None:
    collection = f"/api/v1/namespaces/{cluster.namespace}/configmaps"
    metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": MANAGED_BY}, "ownerReferences": [owner]}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}
    status, answer = cluster.call("POST", collection, body)
    if status == 409:
        status, existing = cluster.call("GET", f"{collection}/{name}")
        if status == 404:
            raise _Again("it went away while it was read")
        if status != 200:
            raise Failure(f"cannot read ConfigMap {cluster.namespace}/{name}: {status} {existing.get('message', '')}")
        # The one of a Job that is being replaced goes with that Job: writing into it would be writing into nothing.
        if existing["metadata"].get("deletionTimestamp"):
            raise _Again("the previous one is still being deleted")
        if (existing["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") != MANAGED_BY:
            raise Failure(f"ConfigMap {cluster.namespace}/{name} exists and is not a registration's result: choose another name")
        # With the version that was read: somebody else's change in between is a conflict.
        whole = {**body, "metadata": {**existing["metadata"], **metadata}}
        status, answer = cluster.call("PUT", f"{collection}/{name}", whole)
        if status in (404, 409):
            raise _Again("it changed while it was written")
    if status not in (200, 201):
        raise Failure(f"cannot write ConfigMap {cluster.namespace}/{name}: {status} {answer.get('message', '')}")


# -- the job -----------------------------------------------------------------------------------------------------------


def required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise Failure(f"{name} is not set")
    return value


def registry_name(environment: Mapping[str, str], url: str) -> str:
    """What link labels call the registry: REGISTRY_NAME, or the Service's name without "-internal"."""
    return environment.get("REGISTRY_NAME") or (urlsplit(url).hostname or "").split(".")[0].removesuffix("-internal")


def run(environment: Mapping[str, str], facts: Callable[[Mapping[str, str]], Json] = read_manifest) -> Ids:
    """The whole job. Raises Failure."""
    url = required(environment, "REGISTRY_URL")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise Failure(f"REGISTRY_URL {url!r} is no http address: use http://SERVICE.NAMESPACE.svc:8080")
    result = required(environment, "RESULT_CONFIGMAP")
    seconds = environment.get("DEADLINE_SECONDS") or "300"
    if not seconds.isdigit() or int(seconds) < 1:
        raise Failure(f"DEADLINE_SECONDS {seconds!r} is no number of seconds")
    cluster = Cluster.of(environment)
    wanted = Registration.parse(required(environment, "REGISTRATION"), facts(environment))
    clock = Clock(float(seconds))
    ids = Registry(url, clock).register(wanted)
    data = {
        "registeredModelId": ids.model,
        "modelVersionId": ids.version,
        "modelArtifactId": ids.artifact,
        "registryName": registry_name(environment, url),
    }
    write_result(cluster, result, data, environment, clock)
    print(
        f"registered {wanted.model['name']} {wanted.version['name']}: "
        f"model {ids.model}, version {ids.version}, artifact {ids.artifact}; "
        f"ids are in ConfigMap {cluster.namespace}/{result}",
        flush=True,
    )
    return ids


def main() -> int:
    try:
        trust_extra_authority()
        run(os.environ)
        return 0
    except (Failure, Untrusted) as failure:
        sentence = f"registration failed: {failure}"
    except Exception as error:  # the last line must name the reason, whatever it is
        sentence = f"registration failed: {type(error).__name__}: {error}"
    say_why(sentence)
    return 1


if __name__ == "__main__":
    sys.exit(main())
