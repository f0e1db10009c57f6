"""The registry's operations on decoded requests: create, update, get, find, list, with the real server's refusals."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from embedded.images.model_registry.kinds import (
    ARTIFACTS,
    INFERENCE_SERVICE,
    MODEL_VERSION,
    REGISTERED_MODEL,
    SERVING_ENVIRONMENT,
    Family,
    Fields,
    Kind,
    Shape,
    artifact_kind,
    decode,
    parse_int32,
)
from embedded.images.model_registry.problems import (
    Problem,
    bad_request,
    conflict,
    not_found,
    not_implemented,
)
from embedded.images.model_registry.store import Duplicate, Page, Row, Store

Answer = tuple[HTTPStatus, Fields]

_ARTIFACT_SCHEMAS = tuple(kind.schema for kind in ARTIFACTS.values())
_ORDERS = ("ID", "CREATE_TIME", "LAST_UPDATE_TIME")
_SORTS = ("ASC", "DESC")


class Registry:
    """What the HTTP layer calls. Every method raises `Problem` for what the server would refuse."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # -- create ----------------------------------------------------------------------------------------------------

    def create(self, kind: Kind, given: Mapping[str, Any]) -> Answer:
        """A model, version, environment or inference service from its Create body."""
        fields = decode(kind, Shape.CREATE, given)
        return HTTPStatus.CREATED, self._insert(kind, fields, self._parent_of(kind, fields))

    def create_version(self, model_id: str, given: Mapping[str, Any]) -> Answer:
        """A version under its model. Takes the full body: with an id in it, that version is updated."""
        fields = decode(MODEL_VERSION, Shape.FULL, given)
        if row_id := fields.pop("id", None):
            self._existing(MODEL_VERSION, row_id)
            return HTTPStatus.CREATED, self._change(MODEL_VERSION, row_id, fields)
        fields["registeredModelId"] = model_id
        return HTTPStatus.CREATED, self._insert(MODEL_VERSION, fields, self._parent_of(MODEL_VERSION, fields))

    def create_inference_service(self, environment_id: str, given: Mapping[str, Any]) -> Answer:
        return self.create(INFERENCE_SERVICE, {**given, "servingEnvironmentId": environment_id})

    def create_serve_model(self, kind: Kind, service_id: str, given: Mapping[str, Any]) -> Answer:
        fields = decode(kind, Shape.CREATE, given)
        parent = parse_int32(service_id, "inference service")
        if self._store.get(Family.CONTEXT, parent) is None:
            raise not_found(f"no InferenceService found for id {parent}")
        return HTTPStatus.CREATED, self._insert(kind, fields, parent)

    def create_artifact(self, given: Mapping[str, Any], kind: Kind | None = None) -> Answer:
        """An artifact that no version owns."""
        kind = kind or artifact_kind(given)
        return HTTPStatus.CREATED, self._insert(kind, decode(kind, Shape.CREATE, given), None)

    def create_version_artifact(self, version_id: str, given: Mapping[str, Any]) -> Answer:
        """An artifact of a version: 201. With an id in the body that artifact is updated: 200."""
        version = self._existing(MODEL_VERSION, version_id)
        kind = artifact_kind(given)
        fields = decode(kind, Shape.FULL, given)
        if row_id := fields.pop("id", None):
            row = self._store.get(Family.ARTIFACT, parse_int32(row_id, "artifact"))
            if row is None or row.schema != kind.schema:
                raise bad_request(f"mismatched types, artifact with id {row_id} is not a {kind.title}")
            return HTTPStatus.OK, self._change(kind, row_id, fields)
        return HTTPStatus.CREATED, self._insert(kind, fields, version.id)

    # -- update ----------------------------------------------------------------------------------------------------

    def update(self, kind: Kind, row_id: str, given: Mapping[str, Any]) -> Answer:
        self._existing(kind, row_id)
        return HTTPStatus.OK, self._change(kind, row_id, decode(kind, Shape.UPDATE, given))

    def update_artifact(self, row_id: str, given: Mapping[str, Any]) -> Answer:
        """The shared endpoint: the body's artifactType says what it is."""
        return self.update(artifact_kind(given), row_id, given)

    # -- read ------------------------------------------------------------------------------------------------------

    def get(self, kind: Kind, row_id: str) -> Answer:
        return HTTPStatus.OK, _shown(self._existing(kind, row_id))

    def get_artifact(self, row_id: str) -> Answer:
        row = self._store.get(Family.ARTIFACT, parse_int32(row_id, "artifact"))
        if row is None:
            raise not_found(f"no artifact found for id {row_id}")
        return HTTPStatus.OK, _shown(row)

    def find(self, kind: Kind, query: Mapping[str, str]) -> Answer:
        """A model or environment by name or externalId; a version or service by name and parent, or externalId."""
        name, external_id, parent = _criteria(query)
        if kind.parent is None:
            if name is None and external_id is None:
                raise bad_request("invalid parameters call, supply either name or externalId")
            parent = None
        elif (name is None or parent is None) and external_id is None:
            raise bad_request("invalid parameters call, supply either (name and parentResourceId), or externalId")
        parent_id = None if parent is None else parse_int32(parent, "parent resource")
        rows = self._store.find(kind.family, (kind.schema,), name, parent_id, external_id)
        return HTTPStatus.OK, _shown(_single(rows, f"{kind.title}s", query))

    def find_artifact(self, query: Mapping[str, str], kind: Kind | None = None) -> Answer:
        name, external_id, parent = _criteria(query)
        if (name is None or parent is None) and external_id is None:
            raise bad_request("invalid parameters call, supply either (artifactName and parentResourceId), or externalId")
        parent_id = None if parent is None else parse_int32(parent, "parent resource")
        rows = self._store.find(Family.ARTIFACT, _ARTIFACT_SCHEMAS, name, parent_id, external_id)
        row = _single(rows, f"{kind.title}s" if kind else "artifacts", query)
        if kind and row.schema != kind.schema:
            raise not_found(f"artifact with {_named(query)} is not a {kind.title}")
        return HTTPStatus.OK, _shown(row)

    def list(self, kind: Kind, query: Mapping[str, str], parent: str | None = None) -> Answer:
        """A page of a kind: all of them, or those under a parent."""
        parent_id = None if parent is None else parse_int32(parent, "parent resource")
        return self._page(kind.family, (kind.schema,), parent_id, query)

    def list_artifacts(self, query: Mapping[str, str], parent: str | None = None) -> Answer:
        schemas = _ARTIFACT_SCHEMAS
        if wanted := query.get("artifactType"):
            if wanted not in ARTIFACTS:
                raise not_implemented(f"this stand-in keeps model and doc artifacts, not {wanted!r}")
            schemas = (ARTIFACTS[wanted].schema,)
        parent_id = None if parent is None else parse_int32(parent, "parent resource")
        return self._page(Family.ARTIFACT, schemas, parent_id, query)

    def model_of_service(self, service_id: str) -> Answer:
        service = self._existing(INFERENCE_SERVICE, service_id)
        return self.get(REGISTERED_MODEL, service.fields["registeredModelId"])

    def version_of_service(self, service_id: str) -> Answer:
        """The version it serves: the one it names, else its model's newest."""
        service = self._existing(INFERENCE_SERVICE, service_id)
        if version := service.fields.get("modelVersionId"):
            return self.get(MODEL_VERSION, version)
        model_id = parse_int32(service.fields["registeredModelId"], "registered model")
        newest = Page(size=1, order_by="CREATE_TIME", descending=True)
        rows, _ = self._store.list(Family.CONTEXT, (MODEL_VERSION.schema,), model_id, newest)
        if not rows:
            raise not_found(f"no model versions found for id {service_id}")
        return HTTPStatus.OK, _shown(rows[0])

    def ping(self) -> None:
        self._store.ping()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _parent_of(self, kind: Kind, fields: Fields) -> int | None:
        if kind.parent is None:
            return None
        owner = {MODEL_VERSION: REGISTERED_MODEL, INFERENCE_SERVICE: SERVING_ENVIRONMENT}[kind]
        return self._existing(owner, fields[kind.parent]).id

    def _existing(self, kind: Kind, row_id: str) -> Row:
        row = self._store.get(kind.family, parse_int32(row_id, kind.title))
        if row is None:
            raise not_found(f"no {kind.title} found for id {row_id}")
        if row.schema != kind.schema:
            if kind.artifact_type:
                raise not_found(f"artifact with id {row_id} is not a {kind.title}")
            raise not_found(f"no {kind.title} found for id {row_id}")
        return row

    def _insert(self, kind: Kind, fields: Fields, parent: int | None) -> Fields:
        fields = {name: value for name, value in fields.items() if name not in ("createTimeSinceEpoch", "lastUpdateTimeSinceEpoch")}
        fields.setdefault("name", str(uuid.uuid4()))
        if kind.states:
            fields.setdefault(kind.state_field, kind.default_state)
        if kind.artifact_type:
            fields["artifactType"] = kind.artifact_type
        fields.setdefault("customProperties", {})
        # Artifacts that no version owns may share a name; everything else is unique under its parent.
        owned = parent is not None or kind.family is Family.CONTEXT
        scope = str(parent or "") if owned else str(uuid.uuid4())
        try:
            return _shown(self._store.insert(kind, fields, parent, scope))
        except Duplicate as error:
            raise conflict(f"{kind.title} with name {fields['name']} already exists") from error

    def _change(self, kind: Kind, row_id: str, fields: Fields) -> Fields:
        # An update that names no state resets it: clients that leave it out un-archive by accident, here as there.
        if kind.states:
            fields.setdefault(kind.state_field, kind.default_state)
        fixed = {*kind.fixed, "createTimeSinceEpoch", "lastUpdateTimeSinceEpoch"}
        changes = {name: value for name, value in fields.items() if name not in fixed}
        try:
            return _shown(self._store.update(kind.family, int(row_id), changes))
        except Duplicate as error:
            raise conflict(f"{kind.title} with externalId {fields.get('externalId')} already exists") from error

    def _page(self, family: Family, schemas: tuple[str, ...], parent: int | None, query: Mapping[str, str]) -> Answer:
        if query.get("filterQuery"):
            raise not_implemented("this stand-in does not filter: leave filterQuery out and choose among the items")
        page = _page_of(query)
        rows, token = self._store.list(family, schemas, parent, page)
        items = [_shown(row) for row in rows]
        return HTTPStatus.OK, {"items": items, "nextPageToken": token, "pageSize": page.size, "size": len(items)}


def _shown(row: Row) -> Fields:
    times = {"createTimeSinceEpoch": str(row.created), "lastUpdateTimeSinceEpoch": str(row.updated)}
    return {**row.fields, "id": str(row.id), "name": row.name, **times}


def _criteria(query: Mapping[str, str]) -> tuple[str | None, str | None, str | None]:
    # An empty parameter is an absent one, as in the server's handlers.
    return query.get("name") or None, query.get("externalId") or None, query.get("parentResourceId") or None


def _named(query: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={query.get(name, '')}" for name in ("name", "parentResourceId", "externalId"))


def _single(rows: list[Row], what: str, query: Mapping[str, str]) -> Row:
    if len(rows) == 1:
        return rows[0]
    raise not_found(f"{'multiple' if rows else 'no'} {what} found for {_named(query)}")


def _page_of(query: Mapping[str, str]) -> Page:
    try:
        size = parse_int32(query.get("pageSize") or "0", "pageSize")
    except Problem as problem:
        raise bad_request(problem.message.replace("invalid pageSize ID", "invalid pageSize")) from None
    if size < 0:
        raise bad_request(f"invalid pageSize: {size} is negative, use 0 for everything")
    order_by, sort_order = query.get("orderBy") or "ID", query.get("sortOrder") or "ASC"
    if order_by not in _ORDERS:
        raise bad_request(f"{order_by} is not a valid OrderByField, use one of {', '.join(_ORDERS)}")
    if sort_order not in _SORTS:
        raise bad_request(f"{sort_order} is not a valid SortOrder, use one of {', '.join(_SORTS)}")
    return Page(size, order_by, sort_order == "DESC", query.get("nextPageToken") or "")
