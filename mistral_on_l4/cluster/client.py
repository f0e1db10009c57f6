"""A small Kubernetes client: the API server's REST calls, spoken over urllib3.

The official client imports in 0.6 s; this one has to start inside Pulumi providers and short commands, where that is most of
the time. So it imports urllib3 at its first call, and holds only what we call: discovery, CRUD, server-side apply and watch on
plain dicts in the API's camelCase.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import urllib3

Object = dict[str, Any]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
# JSON is YAML: the API server takes it under the apply media type.
APPLY_PATCH = "application/apply-patch+yaml"


class ApiError(Exception):
    """An answer of the API server that is not a success.

    status: HTTP status, 0 when the server could not be reached; reason: the API's word (NotFound, AlreadyExists,
    Conflict, Invalid, Forbidden, ...); message: the server's sentence; body: the whole Status object.
    """

    def __init__(self, status: int, reason: str, message: str, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(message or f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.message = message
        self.body: Mapping[str, Any] = body or {}

    @property
    def causes(self) -> list[tuple[str, str]]:
        """(field, message) pairs of a validation error."""
        details = self.body.get("details") or {}
        return [(c.get("field", ""), c.get("message", "")) for c in details.get("causes") or []]


class Unreachable(ApiError):
    """No answer from the API server: refused, timed out or cut."""

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
    subresources: frozenset[str]


class KubeClient:
    """Calls one API server with one identity. Safe to share between threads.

    Raises `ApiError` for every answer that is not 2xx, `Unreachable` if there is none, `UnknownKind` for kinds it lacks.
    """

    def __init__(self, server: str, pool: urllib3.PoolManager, headers: Mapping[str, str] | None = None) -> None:
        self.server = server.rstrip("/")
        self._pool = pool
        self._headers = dict(headers or {})
        self._types: dict[tuple[str, str], ResourceType] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_kubeconfig(cls, path: str | os.PathLike[str], context: str | None = None) -> Self:
        """Reads a kubeconfig file. Raises FileNotFoundError, or ValueError naming what is missing in it."""
        return cls.from_kubeconfig_text(Path(path).read_text(), context, base=Path(path).parent)

    @classmethod
    def from_kubeconfig_text(cls, text: str, context: str | None = None, base: Path | None = None) -> Self:
        """The same from the file's contents; `base` is where relative file names in it start."""
        import urllib3
        import yaml

        config = yaml.safe_load(text)
        if not isinstance(config, dict) or "clusters" not in config:
            raise ValueError("not a kubeconfig: it has no clusters")
        name = context or config.get("current-context") or ""
        entry = _named(config, "contexts", "context", name)
        cluster = _named(config, "clusters", "cluster", entry["cluster"])
        user = _named(config, "users", "user", entry["user"])
        if "auth-provider" in user:
            raise ValueError(f"kubeconfig user {entry['user']!r} uses 'auth-provider': certificates, tokens and 'exec' work here")
        if "exec" in user:
            user = {**user, **_executed(user["exec"])}
        base = base or Path.cwd()
        headers = {}
        if token := user.get("token"):
            headers["Authorization"] = f"Bearer {token}"
        pool = urllib3.PoolManager(
            maxsize=16,
            ca_certs=_file(cluster, "certificate-authority", base),
            cert_file=_file(user, "client-certificate", base),
            key_file=_file(user, "client-key", base),
            cert_reqs="CERT_NONE" if cluster.get("insecure-skip-tls-verify") else "CERT_REQUIRED",
        )
        return cls(cluster["server"], pool, headers)

    # -- one request ---------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = JSON,
        timeout: float = 30.0,
    ) -> Object:
        """Sends one request to `path` (with its leading slash) and returns the decoded JSON answer. `timeout` in seconds."""
        import urllib3

        answer = self._send(method, path, body, params, content_type, urllib3.Timeout(connect=5.0, read=timeout), preload=True)
        data = answer.data
        if not data:
            return {}
        if "json" not in answer.headers.get("Content-Type", ""):
            return {"text": data.decode(errors="replace")}
        decoded = json.loads(data)
        return decoded if isinstance(decoded, dict) else {"items": decoded}

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        params: Mapping[str, str] | None,
        content_type: str,
        timeout: urllib3.Timeout,
        preload: bool,
    ) -> urllib3.BaseHTTPResponse:
        import urllib3

        headers = {**self._headers, "Accept": JSON, "User-Agent": "mistral-on-l4"}
        data: bytes | None = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = content_type
        url = self.server + path
        if params:
            from urllib.parse import urlencode

            url += ("&" if "?" in url else "?") + urlencode(params)
        try:
            # A repeated POST could create twice, so only what never reached the server is sent again.
            retries = urllib3.Retry(connect=2, read=0, redirect=0, status=0, other=0, backoff_factor=0.2)
            answer = self._pool.request(
                method, url, body=data, headers=headers, timeout=timeout, preload_content=preload, retries=retries
            )
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(self.server, str(reason)) from error
        if answer.status >= 300:
            raise _api_error(answer.status, answer.read() if not preload else answer.data)
        return answer

    # -- discovery -----------------------------------------------------------------------------------------------------

    def resource_type(self, api_version: str, kind: str) -> ResourceType:
        """Looks a kind up by discovery. Found kinds are remembered; missing ones are asked again, since CRDs appear."""
        key = (api_version, kind)
        if (known := self._types.get(key)) is not None:
            return known
        prefix = "/api/" if "/" not in api_version else "/apis/"
        try:
            listing = self.request("GET", prefix + api_version)
        except ApiError as error:
            if error.status == 404:
                raise UnknownKind(api_version, kind) from error
            raise
        found: dict[str, ResourceType] = {}
        subresources: dict[str, set[str]] = {}
        for entry in listing.get("resources", []):
            name, _, sub = entry["name"].partition("/")
            if sub:
                subresources.setdefault(name, set()).add(sub)
        for entry in listing.get("resources", []):
            if "/" not in entry["name"]:
                found[entry["kind"]] = ResourceType(
                    api_version, entry["kind"], entry["name"], entry["namespaced"], frozenset(subresources.get(entry["name"], ()))
                )
        with self._lock:
            self._types.update({(api_version, k): v for k, v in found.items()})
        if kind not in found:
            raise UnknownKind(api_version, kind)
        return found[kind]

    def path(
        self, api_version: str, kind: str, name: str | None = None, namespace: str | None = None, subresource: str | None = None
    ) -> str:
        """The URL path of an object, or of its collection without a name."""
        found = self.resource_type(api_version, kind)
        parts = ["/api" if "/" not in api_version else "/apis", api_version]
        if found.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(found.name)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    # -- objects -------------------------------------------------------------------------------------------------------

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None, subresource: str | None = None) -> Object:
        return self.request("GET", self.path(api_version, kind, name, self._home(api_version, kind, namespace), subresource))

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
        api_version, kind = obj["apiVersion"], obj["kind"]
        where = self._home(api_version, kind, namespace or obj.get("metadata", {}).get("namespace"))
        return self.request("POST", self.path(api_version, kind, None, where), body=obj, params=params)

    def apply(
        self, obj: Mapping[str, Any], field_manager: str, force: bool = False, dry_run: bool = False, namespace: str | None = None
    ) -> Object:
        """Server-side apply. Creates what is missing; fields of other managers are conflicts (409) unless `force`."""
        api_version, kind, meta = obj["apiVersion"], obj["kind"], obj["metadata"]
        where = self._home(api_version, kind, namespace or meta.get("namespace"))
        params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        if dry_run:
            params["dryRun"] = "All"
        path = self.path(api_version, kind, meta["name"], where)
        return self.request("PATCH", path, body=obj, params=params, content_type=APPLY_PATCH)

    def replace(self, obj: Mapping[str, Any], subresource: str | None = None) -> Object:
        api_version, kind, meta = obj["apiVersion"], obj["kind"], obj["metadata"]
        where = self._home(api_version, kind, meta.get("namespace"))
        return self.request("PUT", self.path(api_version, kind, meta["name"], where, subresource), body=obj)

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
        path = self.path(api_version, kind, name, self._home(api_version, kind, namespace), subresource)
        return self.request("PATCH", path, body=body, params=params, content_type=content_type)

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
        path = self.path(api_version, kind, name, self._home(api_version, kind, namespace))
        return self.request("DELETE", path, body=options)

    def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 300,
        bookmarks: bool = True,
    ) -> Iterator[Object]:
        """Yields {"type", "object"} until the server ends the watch after `timeout_seconds`.

        A cut connection ends it quietly, like the timeout; an ERROR event (410 Expired: list again) raises ApiError.
        """
        import urllib3

        params = _selectors(label_selector, field_selector)
        params |= {"watch": "true", "timeoutSeconds": str(timeout_seconds)}
        if bookmarks:
            params["allowWatchBookmarks"] = "true"
        if resource_version:
            params["resourceVersion"] = resource_version
        timeout = urllib3.Timeout(connect=5.0, read=timeout_seconds + 30.0)
        answer = self._send("GET", self.path(api_version, kind, None, namespace), None, params, JSON, timeout, preload=False)
        buffer = b""
        try:
            while chunk := answer.read1(65536):
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""), status)
                    yield event
        except urllib3.exceptions.HTTPError:
            return
        finally:
            answer.close()
            answer.release_conn()

    def close(self) -> None:
        self._pool.clear()

    def _home(self, api_version: str, kind: str, namespace: str | None) -> str | None:
        if not self.resource_type(api_version, kind).namespaced:
            return None
        return namespace or "default"


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    params = {}
    if label_selector:
        params["labelSelector"] = label_selector
    if field_selector:
        params["fieldSelector"] = field_selector
    return params


def _api_error(status: int, data: bytes) -> ApiError:
    try:
        body = json.loads(data)
    except ValueError:
        return ApiError(status, "", data.decode(errors="replace").strip()[:500])
    if not isinstance(body, dict):
        return ApiError(status, "", str(body)[:500])
    return ApiError(status, body.get("reason", ""), body.get("message", ""), body)


def _named(config: Mapping[str, Any], group: str, inner: str, name: str) -> dict[str, Any]:
    for entry in config.get(group) or []:
        if entry.get("name") == name:
            found = entry.get(inner)
            return found if isinstance(found, dict) else {}
    raise ValueError(f"kubeconfig has no {inner} named {name!r}")


def _executed(plugin: Mapping[str, Any]) -> dict[str, str]:
    """What a kubeconfig's exec plugin answers, as the fields of a user. Asked once: good for as long as its credential is.

    Raises ValueError with the plugin's own last line.
    """
    import subprocess

    environment = {**os.environ, **{entry["name"]: entry["value"] for entry in plugin.get("env") or []}}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(
        {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": {"interactive": False}}
    )
    command = [plugin["command"], *(plugin.get("args") or [])]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60.0, check=False)
        if done.returncode:
            raise ValueError(f"{plugin['command']}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        status = json.loads(done.stdout)["status"]
    except FileNotFoundError:
        raise ValueError(plugin.get("installHint") or f"{plugin['command']} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{plugin['command']} did not answer within 60 s") from None
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{plugin['command']} printed no ExecCredential") from None
    encoded = {
        "client-certificate-data": status.get("clientCertificateData"),
        "client-key-data": status.get("clientKeyData"),
    }
    user = {name: base64.b64encode(text.encode()).decode() for name, text in encoded.items() if text}
    return user | ({"token": status["token"]} if status.get("token") else {})


def _file(section: Mapping[str, Any], key: str, base: Path) -> str | None:
    """The file for a kubeconfig entry, which holds either a file name or, under `<key>-data`, the contents in base64."""
    if data := section.get(f"{key}-data"):
        descriptor, name = tempfile.mkstemp(prefix="mistral-on-l4-")  # mode 0600
        with os.fdopen(descriptor, "wb") as out:
            out.write(base64.b64decode(data))
        atexit.register(Path(name).unlink, missing_ok=True)
        return name
    value = section.get(key)
    return str(base / value) if value else None
