"""Paths of the REST API, under both of its names: v1alpha3, and v1, which the newest official Python clients call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from embedded.images.model_registry import kinds
from embedded.images.model_registry.kinds import Fields
from embedded.images.model_registry.problems import not_implemented
from embedded.images.model_registry.registry import Answer, Registry

PREFIXES = ("/api/model_registry/v1alpha3", "/api/model_registry/v1")


@dataclass(frozen=True)
class Request:
    """What a handler sees. parent: the id in the path ("" if none); body: decoded JSON object, empty for GET."""

    parent: str
    query: Mapping[str, str]
    body: Fields


Handler = Callable[[Registry, Request], Answer]


def _not_kept(_registry: Registry, _request: Request) -> Answer:
    raise not_implemented("this stand-in keeps no experiments, runs or metrics")


def _collection(path: str, kind: kinds.Kind) -> dict[tuple[str, str], Handler]:
    return {
        ("GET", path): lambda registry, request: registry.list(kind, request.query),
        ("POST", path): lambda registry, request: registry.create(kind, request.body),
        **_item(path, kind),
    }


def _item(path: str, kind: kinds.Kind) -> dict[tuple[str, str], Handler]:
    return {
        ("GET", f"{path}/ID"): lambda registry, request: registry.get(kind, request.parent),
        ("PATCH", f"{path}/ID"): lambda registry, request: registry.update(kind, request.parent, request.body),
    }


def _finder(path: str, kind: kinds.Kind) -> dict[tuple[str, str], Handler]:
    return {("GET", path): lambda registry, request: registry.find(kind, request.query)}


_ROUTES: dict[tuple[str, str], Handler] = {
    **_collection("/registered_models", kinds.REGISTERED_MODEL),
    **_collection("/model_versions", kinds.MODEL_VERSION),
    **_collection("/serving_environments", kinds.SERVING_ENVIRONMENT),
    **_collection("/inference_services", kinds.INFERENCE_SERVICE),
    **_item("/model_artifacts", kinds.MODEL_ARTIFACT),
    **_finder("/registered_model", kinds.REGISTERED_MODEL),
    **_finder("/model_version", kinds.MODEL_VERSION),
    **_finder("/serving_environment", kinds.SERVING_ENVIRONMENT),
    **_finder("/inference_service", kinds.INFERENCE_SERVICE),
    ("GET", "/registered_models/ID/versions"): lambda registry, r: registry.list(kinds.MODEL_VERSION, r.query, r.parent),
    ("POST", "/registered_models/ID/versions"): lambda registry, r: registry.create_version(r.parent, r.body),
    ("GET", "/model_versions/ID/artifacts"): lambda registry, r: registry.list_artifacts(r.query, r.parent),
    ("POST", "/model_versions/ID/artifacts"): lambda registry, r: registry.create_version_artifact(r.parent, r.body),
    ("GET", "/model_artifacts"): lambda registry, r: registry.list(kinds.MODEL_ARTIFACT, r.query),
    ("POST", "/model_artifacts"): lambda registry, r: registry.create_artifact(r.body, kinds.MODEL_ARTIFACT),
    ("GET", "/model_artifact"): lambda registry, r: registry.find_artifact(r.query, kinds.MODEL_ARTIFACT),
    ("GET", "/artifacts"): lambda registry, r: registry.list_artifacts(r.query),
    ("POST", "/artifacts"): lambda registry, r: registry.create_artifact(r.body),
    ("GET", "/artifacts/ID"): lambda registry, r: registry.get_artifact(r.parent),
    ("PATCH", "/artifacts/ID"): lambda registry, r: registry.update_artifact(r.parent, r.body),
    ("GET", "/artifact"): lambda registry, r: registry.find_artifact(r.query),
    ("GET", "/serving_environments/ID/inference_services"): lambda registry, r: registry.list(
        kinds.INFERENCE_SERVICE, r.query, r.parent
    ),
    ("POST", "/serving_environments/ID/inference_services"): lambda registry, r: registry.create_inference_service(
        r.parent, r.body
    ),
    ("GET", "/inference_services/ID/model"): lambda registry, r: registry.model_of_service(r.parent),
    ("GET", "/inference_services/ID/version"): lambda registry, r: registry.version_of_service(r.parent),
    ("GET", "/inference_services/ID/serves"): lambda registry, r: registry.list(kinds.SERVE_MODEL, r.query, r.parent),
    ("POST", "/inference_services/ID/serves"): lambda registry, r: registry.create_serve_model(kinds.SERVE_MODEL, r.parent, r.body),
}

_METHODS: dict[str, dict[str, Handler]] = {}
for (_method, _path), _handler in _ROUTES.items():
    _METHODS.setdefault(_path, {})[_method] = _handler

_NOT_KEPT = re.compile(r"/(experiments?|experiment_runs?)(/.*)?")


def resolve(path: str) -> tuple[Mapping[str, Handler], str] | None:
    """The handlers by method, and the id in the path, for a URL path without its query. None: no such path."""
    for prefix in PREFIXES:
        if not path.startswith(f"{prefix}/"):
            continue
        rest = path[len(prefix) :]
        if rest in _METHODS:
            return _METHODS[rest], ""
        parts = rest.split("/")
        if len(parts) in (3, 4) and parts[2]:
            pattern = "/".join([*parts[:2], "ID", *parts[3:]])
            if pattern in _METHODS:
                return _METHODS[pattern], parts[2]
        if _NOT_KEPT.fullmatch(rest):
            return dict.fromkeys(("GET", "POST", "PATCH"), _not_kept), ""
    return None
