"""Reading a cluster's objects: a live one's, or those that a preview without a cluster assumes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from mistral_on_l4.cluster.client import ApiError, UnknownKind

Object = dict[str, Any]


class Reader(Protocol):
    """What KubeClient offers of this."""

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """Raises ApiError."""

    def list(self, api_version: str, kind: str, namespace: str | None = None) -> Object:
        """Raises ApiError."""


class AssumedObjects:
    """Objects in memory, read as those of a cluster are. Kinds that none of them has are unknown."""

    def __init__(self, objects: Iterable[Mapping[str, Any]]) -> None:
        self._objects = [dict(found) for found in objects]

    @classmethod
    def read(cls, file: Path) -> Self:
        """Of a JSON list of objects. Raises OSError, ValueError."""
        return cls(json.loads(file.read_text()))

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        for found in self.list(api_version, kind, namespace)["items"]:
            if found["metadata"]["name"] == name:
                return dict(found)
        raise ApiError(404, "NotFound", f"{kind} {name} not found")

    def list(self, api_version: str, kind: str, namespace: str | None = None) -> Object:
        found = [item for item in self._objects if (item["apiVersion"], item["kind"]) == (api_version, kind)]
        if not found:
            raise UnknownKind(api_version, kind)
        return {"items": [item for item in found if namespace in (None, item["metadata"].get("namespace"))]}


def found(reader: Reader, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
    """The object; None if there is none, or no such kind. Raises ApiError."""
    try:
        return reader.get(api_version, kind, name, namespace)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def all_of(reader: Reader, api_version: str, kind: str, namespace: str | None = None) -> list[Object]:
    """By name; none of a kind that the cluster does not know. Raises ApiError."""
    try:
        items = reader.list(api_version, kind, namespace)["items"]
    except ApiError as error:
        if error.status == 404:
            return []
        raise
    return sorted(items, key=lambda item: str(item["metadata"]["name"]))
