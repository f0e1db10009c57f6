"""Calls to a Kubernetes API server on plain dicts in the API's camelCase.

lightkube reads the kubeconfig, opens the connections (TLS, credentials, proxies) and sends. What it lacks and the project needs
is added here: kinds looked up in the server's own discovery, so that no class is needed for a custom resource; objects that
stay plain dicts; deletion of one very object; errors with the server's reason (docs/adr/0017-kubernetes-client.md).
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.kubeconfig import KubeConfig

Object = dict[str, Any]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
# JSON is YAML: the API server takes it under the apply media type.
APPLY_PATCH = "application/apply-patch+yaml"
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 30.0
# Fields written without a field manager's name are this one's. Compressing costs more than it saves on one machine.
_HEADERS = {"Accept": JSON, "Accept-Encoding": "identity", "User-Agent": "mistral-on-l4"}


_loading = threading.Lock()


def _load() -> None:
    """Imports lightkube. Its modules import each other: of two threads that began at once, one would find them half made."""
    with _loading:
        importlib.import_module("lightkube")


class ApiError(Exception):
    """The API server refused a request.

    status: HTTP status, 0 when the server could not be reached; reason: the API's word (NotFound, AlreadyExists,
    Conflict, Invalid, Forbidden, ...); message: the server's sentence; body: the whole Status object.
    """

    def __init__(self, status: int, reason: str, message: str, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(message or f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.message = message
        self.body: Mapping[str, Any] = body or {}


class Unreachable(ApiError):
    """No response from the API server: refused, timed out or cut."""

    def __init__(self, server: str, why: str) -> None:
        super().__init__(0, "Unreachable", f"the Kubernetes API at {server} does not answer: {why}")


class UnknownKind(ApiError):
    """The API server serves no such kind (often: its CustomResourceDefinition is not installed yet)."""

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(404, "UnknownKind", f"no matches for kind {kind!r} in version {api_version!r}")


@dataclass(frozen=True)
class ResourceType:
    """What discovery says of a kind: its plural `name`, and whether it is namespaced."""

    api_version: str
    kind: str
    name: str
    namespaced: bool


class KubeClient:
    """Calls one API server with one identity. Safe to share between threads.

    Raises `ApiError` for every response that is not 2xx, `Unreachable` if there is none, `UnknownKind` for kinds it lacks.
    """

    def __init__(self, config: KubeConfig, context: str | None = None) -> None:
        """Raises ValueError naming what is missing in the kubeconfig."""
        import httpx2
        from lightkube.config.client_adapter import ConnectionParams
        from lightkube.config.models import User
        from lightkube.core.exceptions import ConfigError
        from lightkube.core.generic_client import GenericSyncClient

        try:
            chosen = config.get(context)
            assert chosen is not None  # it is raised without a default
            self.server = chosen.cluster.server.rstrip("/")
            timeout = httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
            # No proxy stands between this machine and itself, whatever HTTPS_PROXY says.
            connection = ConnectionParams(timeout=timeout, trust_env=not _is_loopback(self.server))
            self._http = GenericSyncClient(connection, chosen._replace(user=chosen.user or User()))
        except ConfigError as error:
            raise ValueError(f"kubeconfig: {error}") from None
        except KeyError as error:
            raise ValueError(f"kubeconfig has no cluster or user named {error}") from None
        self._types: dict[tuple[str, str], ResourceType] = {}

    @classmethod
    def from_kubeconfig(cls, path: str | os.PathLike[str], context: str | None = None) -> Self:
        """Reads a kubeconfig file. Raises FileNotFoundError, or ValueError naming what is missing in it."""
        return cls.from_kubeconfig_text(Path(path).read_text(), context, Path(path).parent)

    @classmethod
    def from_kubeconfig_text(cls, text: str, context: str | None = None, base: Path | None = None) -> Self:
        """The same from the file's contents; `base` is the folder that relative file names in it start from."""
        import msgspec
        import yaml

        _load()
        from lightkube.config.kubeconfig import KubeConfig

        try:
            config = KubeConfig.from_dict(yaml.safe_load(text), (base or Path.cwd()) / "kubeconfig")
        except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
            raise ValueError(f"not a kubeconfig: {error}") from None
        return cls(config, context)

    @classmethod
    def at(cls, url: str) -> Self:
        """A server that asks for no credentials, such as `kubectl proxy`."""
        _load()
        from lightkube.config.kubeconfig import KubeConfig

        return cls(KubeConfig.from_server(url))

    def close(self) -> None:
        self._http.close()  # type: ignore[no-untyped-call]

    # -- one request ---------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = JSON,
        timeout: float = _READ_SECONDS,
    ) -> Object:
        """Sends one request to `path` (with its leading slash) and returns the decoded JSON; {"text": ...} of anything else.

        timeout: seconds between two pieces of the response.
        """
        import msgspec

        with self._response(method, path, body, params, content_type, timeout) as response:
            content = response.read()
        if not content:
            return {}
        if "json" not in response.headers.get("Content-Type", ""):
            return {"text": response.text}
        decoded: Object = msgspec.json.decode(content)
        return decoded

    @contextmanager
    def _response(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = JSON,
        read_seconds: float = _READ_SECONDS,
    ) -> Iterator[httpx2.Response]:
        """A response while it is read. Raises ApiError, Unreachable: also for what breaks before the context ends."""
        import httpx2
        from lightkube.core.exceptions import ConfigError
        from lightkube.core.generic_client import BasicRequest

        headers = _HEADERS if body is None else {**_HEADERS, "Content-Type": content_type}
        timeout = httpx2.Timeout(read_seconds, connect=_CONNECT_SECONDS)
        # Relative, for a server below a path.
        call = BasicRequest(method, path.lstrip("/"), params=dict(params or {}), data=body, headers=dict(headers), timeout=timeout)
        try:
            with closing(self._http.send(self._http.build_adapter_request(call), stream=True)) as response:
                if not response.is_success:
                    raise _api_error(response.status_code, response.read())
                yield response
        except (httpx2.TransportError, ConfigError) as error:
            # ConfigError: a kubeconfig's exec plugin, which is asked at the first request.
            raise Unreachable(self.server, str(error) or type(error).__name__) from error

    # -- discovery -----------------------------------------------------------------------------------------------------

    def resource_type(self, api_version: str, kind: str) -> ResourceType:
        """Looks a kind up by discovery. Known kinds are remembered; missing ones are asked for again, since CRDs appear."""
        if (known := self._types.get((api_version, kind))) is not None:
            return known
        try:
            listing = self.request("GET", f"{_root(api_version)}/{api_version}")
        except ApiError as error:
            if error.status == 404:
                raise UnknownKind(api_version, kind) from error
            raise
        for entry in listing.get("resources", []):
            if "/" not in entry["name"]:
                described = ResourceType(api_version, entry["kind"], entry["name"], entry["namespaced"])
                self._types[api_version, entry["kind"]] = described
        if (api_version, kind) not in self._types:
            raise UnknownKind(api_version, kind)
        return self._types[api_version, kind]

    def path(
        self, api_version: str, kind: str, name: str | None = None, namespace: str | None = None, subresource: str | None = None
    ) -> str:
        """The URL path of an object (in namespace "default" unless one is named), or of all objects of a kind without a name."""
        described = self.resource_type(api_version, kind)
        parts = [_root(api_version), api_version]
        if described.namespaced and (namespace or name):
            parts += ["namespaces", namespace or "default"]
        parts += [part for part in (described.name, name, subresource) if part]
        return "/".join(parts)

    # -- objects -------------------------------------------------------------------------------------------------------

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None, subresource: str | None = None) -> Object:
        return self.request("GET", self.path(api_version, kind, name, namespace, subresource))

    def list(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Object:
        """All objects of a kind, in every namespace unless one is named: {"metadata": {...}, "items": [...]}."""
        return self.request("GET", self.path(api_version, kind, None, namespace), params=_selectors(label_selector, field_selector))

    def create(self, obj: Mapping[str, Any], namespace: str | None = None, params: Mapping[str, str] | None = None) -> Object:
        """Posts a new object. An existing one is an ApiError with reason AlreadyExists."""
        where = namespace or obj.get("metadata", {}).get("namespace") or "default"
        return self.request("POST", self.path(obj["apiVersion"], obj["kind"], None, where), obj, params)

    def apply(
        self, obj: Mapping[str, Any], field_manager: str, force: bool = False, dry_run: bool = False, namespace: str | None = None
    ) -> Object:
        """Server-side apply. Creates what is missing; fields of other managers are conflicts (409) unless `force`."""
        params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        if dry_run:
            params["dryRun"] = "All"
        return self.request("PATCH", self._path_of(obj, namespace), obj, params, APPLY_PATCH)

    def replace(self, obj: Mapping[str, Any], subresource: str | None = None) -> Object:
        return self.request("PUT", self._path_of(obj, None, subresource), obj)

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None,
        body: Any,
        content_type: str = MERGE_PATCH,
        subresource: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Object:
        return self.request("PATCH", self.path(api_version, kind, name, namespace, subresource), body, params, content_type)

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None = None,
        propagation: str = "Foreground",
        grace_seconds: int | None = None,
        uid: str | None = None,
    ) -> Object:
        """Asks for deletion and returns at once. With `uid`, only that very object is deleted (409 otherwise)."""
        options: Object = {"propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        return self.request("DELETE", self.path(api_version, kind, name, namespace), options)

    def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 300,
    ) -> Iterator[Object]:
        """Yields {"type", "object"} until the server ends the watch after `timeout_seconds`; bookmarks are among them.

        A cut connection ends it quietly, like the timeout; an ERROR event (410 Expired: list again) raises ApiError.
        """
        import msgspec

        params = _selectors(label_selector, field_selector)
        params |= {"watch": "true", "timeoutSeconds": str(timeout_seconds), "allowWatchBookmarks": "true"}
        if resource_version:
            params["resourceVersion"] = resource_version
        path = self.path(api_version, kind, None, namespace)
        begun, rest = False, b""
        try:
            with self._response("GET", path, params=params, read_seconds=timeout_seconds + _READ_SECONDS) as response:
                begun = True
                for chunk in response.iter_bytes():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = msgspec.json.decode(line)
                        if event["type"] == "ERROR":
                            raise _api_error(event["object"].get("code", 500), msgspec.json.encode(event["object"]))
                        yield event
        except Unreachable:
            if not begun:
                raise

    def _path_of(self, obj: Mapping[str, Any], namespace: str | None = None, subresource: str | None = None) -> str:
        meta = obj["metadata"]
        return self.path(obj["apiVersion"], obj["kind"], meta["name"], namespace or meta.get("namespace"), subresource)


def _root(api_version: str) -> str:
    return "/apis" if "/" in api_version else "/api"


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    named = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: selector for name, selector in named.items() if selector}


def _api_error(status: int, content: bytes) -> ApiError:
    import msgspec

    try:
        body = msgspec.json.decode(content)
    except msgspec.DecodeError:
        body = content.decode(errors="replace").strip()
    if not isinstance(body, dict):
        return ApiError(status, "", str(body)[:500])
    return ApiError(status, body.get("reason", ""), body.get("message", ""), body)


def _is_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
