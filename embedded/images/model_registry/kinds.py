"""What the registry keeps: its kinds, their fields, and strict decoding of request bodies.

Fields are those of the v1alpha3 OpenAPI document (kubeflow/model-registry, api/openapi/model-registry.yaml). Every
scalar is a JSON string there; ids and times too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from embedded.images.model_registry.problems import Problem, bad_request

Fields = dict[str, Any]

# The server stores ids and integer properties in 32 bits.
INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)

_COMMON = ("customProperties", "description", "externalId")
_READ_ONLY = ("id", "createTimeSinceEpoch", "lastUpdateTimeSinceEpoch")
_LISTS = frozenset({"language", "tasks"})
_CARD = ("readme", "maturity", "language", "tasks", "provider", "logo", "license", "licenseLink", "libraryName")
_MODEL_SOURCE = ("modelSourceKind", "modelSourceClass", "modelSourceGroup", "modelSourceId", "modelSourceName")
_STORAGE = ("modelFormatName", "modelFormatVersion", "storageKey", "storagePath", "serviceAccountName")

_LIFECYCLE = ("LIVE", "ARCHIVED")
_ARTIFACT_STATES = ("UNKNOWN", "PENDING", "LIVE", "MARKED_FOR_DELETION", "DELETED", "ABANDONED", "REFERENCE")
_EXECUTION_STATES = ("UNKNOWN", "NEW", "RUNNING", "COMPLETE", "FAILED", "CACHED", "CANCELED")


class Family(StrEnum):
    """Which table, and so which sequence of ids, a kind lives in."""

    CONTEXT = "contexts"
    ARTIFACT = "artifacts"
    EXECUTION = "executions"


class Shape(StrEnum):
    """Which of a kind's three bodies is decoded: FULL is what the server also answers with."""

    CREATE = "Create"
    UPDATE = "Update"
    FULL = ""


@dataclass(frozen=True)
class Kind:
    """One resource type.

    title: its name in messages; schema: its name in the OpenAPI document; fields: writable at any time; fixed:
    writable on create only; required: on create; parent: the fixed field that holds the parent's id, if a field does;
    state_field with its states and default.
    """

    title: str
    schema: str
    family: Family
    fields: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ("name",)
    required: tuple[str, ...] = ()
    parent: str | None = None
    state_field: str = "state"
    states: tuple[str, ...] = ()
    default_state: str = ""
    artifact_type: str | None = None

    def allowed(self, shape: Shape) -> frozenset[str]:
        names = {*_COMMON, *self.fields}
        if self.states:
            names.add(self.state_field)
        if self.artifact_type:
            names.add("artifactType")
        if shape is not Shape.UPDATE:
            names.update(self.fixed)
        if shape is Shape.FULL:
            names.update(_READ_ONLY)
        return frozenset(names)


REGISTERED_MODEL = Kind(
    "registered model",
    "RegisteredModel",
    Family.CONTEXT,
    ("owner", *_CARD),
    required=("name",),
    states=_LIFECYCLE,
    default_state="LIVE",
)
MODEL_VERSION = Kind(
    "model version",
    "ModelVersion",
    Family.CONTEXT,
    ("author",),
    ("name", "registeredModelId"),
    ("name", "registeredModelId"),
    parent="registeredModelId",
    states=_LIFECYCLE,
    default_state="LIVE",
)
SERVING_ENVIRONMENT = Kind("serving environment", "ServingEnvironment", Family.CONTEXT, required=("name",))
INFERENCE_SERVICE = Kind(
    "inference service",
    "InferenceService",
    Family.CONTEXT,
    ("modelVersionId", "runtime"),
    ("name", "registeredModelId", "servingEnvironmentId"),
    ("registeredModelId", "servingEnvironmentId"),
    parent="servingEnvironmentId",
    state_field="desiredState",
    states=("DEPLOYED", "UNDEPLOYED"),
    default_state="DEPLOYED",
)
SERVE_MODEL = Kind(
    "serve model",
    "ServeModel",
    Family.EXECUTION,
    fixed=("name", "modelVersionId"),
    required=("modelVersionId",),
    state_field="lastKnownState",
    states=_EXECUTION_STATES,
    default_state="UNKNOWN",
)
MODEL_ARTIFACT = Kind(
    "model artifact",
    "ModelArtifact",
    Family.ARTIFACT,
    ("uri", *_STORAGE, *_MODEL_SOURCE),
    states=_ARTIFACT_STATES,
    default_state="UNKNOWN",
    artifact_type="model-artifact",
)
DOC_ARTIFACT = Kind(
    "doc artifact",
    "DocArtifact",
    Family.ARTIFACT,
    ("uri",),
    states=_ARTIFACT_STATES,
    default_state="UNKNOWN",
    artifact_type="doc-artifact",
)

ARTIFACTS = {kind.artifact_type: kind for kind in (MODEL_ARTIFACT, DOC_ARTIFACT)}
# Known to the real server; this one says that it does not keep them.
OTHER_ARTIFACT_TYPES = frozenset({"dataset-artifact", "metric", "parameter"})
ALL = {
    kind.schema: kind
    for kind in (
        REGISTERED_MODEL,
        MODEL_VERSION,
        SERVING_ENVIRONMENT,
        INFERENCE_SERVICE,
        SERVE_MODEL,
        MODEL_ARTIFACT,
        DOC_ARTIFACT,
    )
}

# metadataType -> (the value's field, the JSON type it must have, what Go calls that type).
_PROPERTY_VALUES: Mapping[str, tuple[str, type | tuple[type, ...], str]] = {
    "MetadataStringValue": ("string_value", str, "string"),
    "MetadataIntValue": ("int_value", str, "string"),
    "MetadataDoubleValue": ("double_value", (int, float), "float64"),
    "MetadataBoolValue": ("bool_value", bool, "bool"),
    "MetadataStructValue": ("struct_value", str, "string"),
    "MetadataProtoValue": ("proto_value", str, "string"),
}


def load_object(body: bytes) -> Fields:
    """The body as a JSON object. Raises Problem 400."""
    if not body.strip():
        raise bad_request("EOF")
    try:
        decoded = json.loads(body)
    except ValueError as error:
        raise bad_request(f"invalid JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise bad_request(f"json: cannot unmarshal {_json_type(decoded)} into Go value of type openapi object")
    return decoded


def decode(kind: Kind, shape: Shape, given: Mapping[str, Any]) -> Fields:
    """The fields that are set in a decoded body, checked as the server checks them; null counts as absent.

    Raises Problem: 400 for an unknown field or a wrong type, 422 for a required field that is missing or empty.
    """
    allowed = kind.allowed(shape)
    fields: Fields = {}
    for name, value in given.items():
        if name not in allowed:
            raise bad_request(f'json: unknown field "{name}"')
        if value is None:
            continue
        fields[name] = _checked(kind, shape, name, value)
    if shape is not Shape.UPDATE:
        for name in kind.required:
            if not fields.get(name):
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"required field '{name}' is zero value.")
    return fields


def artifact_kind(given: Mapping[str, Any]) -> Kind:
    """The kind that a body for the shared artifact endpoints names. Raises Problem 400, 501 for one not kept here."""
    named = given.get("artifactType")
    if named in OTHER_ARTIFACT_TYPES:
        raise Problem(HTTPStatus.NOT_IMPLEMENTED, f"this stand-in keeps model and doc artifacts, not {named!r}")
    if not isinstance(named, str) or named not in ARTIFACTS:
        raise bad_request("invalid artifact type, must be either ModelArtifact, DocArtifact, DataSet, Metric, or Parameter")
    return ARTIFACTS[named]


def parse_int32(text: str, what: str) -> int:
    """An id as the server reads it. Raises Problem 400."""
    problem = _int32_problem(text)
    if problem:
        raise bad_request(f"invalid {what} ID: {problem}")
    return int(text)


def _checked(kind: Kind, shape: Shape, name: str, value: Any) -> Any:
    if name == "customProperties":
        return _custom_properties(value)
    where = f"{kind.schema}{shape}.{name}"
    if name in _LISTS:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise bad_request(f"json: cannot unmarshal {_json_type(value)} into Go struct field {where} of type []string")
        return value
    if not isinstance(value, str):
        raise bad_request(f"json: cannot unmarshal {_json_type(value)} into Go struct field {where} of type string")
    if kind.states and name == kind.state_field and value not in kind.states:
        raise bad_request(f"{value} is not a valid {kind.schema} state, use one of {', '.join(kind.states)}")
    if name == "artifactType" and value != kind.artifact_type:
        raise bad_request(f"{value} is not {kind.artifact_type}")
    return value


def _custom_properties(value: Any) -> Fields:
    if not isinstance(value, dict):
        raise bad_request(f"json: cannot unmarshal {_json_type(value)} into Go struct field customProperties of type map")
    for name, entry in value.items():
        _check_property(name, entry)
    return value


def _check_property(name: str, entry: Any) -> None:
    if not isinstance(entry, dict):
        raise bad_request(f"customProperties.{name}: cannot unmarshal {_json_type(entry)} into MetadataValue")
    kind = entry.get("metadataType")
    if not isinstance(kind, str) or kind not in _PROPERTY_VALUES:
        raise bad_request(f"customProperties.{name}: metadataType must be one of {', '.join(_PROPERTY_VALUES)}, not {kind!r}")
    field, types, go_type = _PROPERTY_VALUES[kind]
    allowed = {"metadataType", field} | ({"type"} if kind == "MetadataProtoValue" else set())
    for key in entry:
        if key not in allowed:
            raise bad_request(f'customProperties.{name}: json: unknown field "{key}"')
    value = entry.get(field)
    # bool is a subclass of int in Python, not in JSON.
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise bad_request(
            f"customProperties.{name}: json: cannot unmarshal {_json_type(value)} into {kind}.{field} of type {go_type}"
        )
    if kind == "MetadataIntValue" and (problem := _int32_problem(str(value))):
        raise bad_request(f"customProperties.{name}: invalid int value: {problem}")


def _int32_problem(text: str) -> str | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        return f'strconv.ParseInt: parsing "{text}": invalid syntax'
    if not INT32_MIN <= int(text) <= INT32_MAX:
        return f'strconv.ParseInt: parsing "{text}": value out of range'
    return None


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
