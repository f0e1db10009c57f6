"""What the model registry says, over its v1alpha3 REST API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.cluster.connection import Connection, NoConnection
from mistral_on_l4.cluster.live import ServiceState, pod_problem
from mistral_on_l4.manifests.registry import API, service_name

_SECONDS = 10.0


class NoRegistry(Exception):
    """The registry does not answer; one line, by its pod where that knows why."""


@dataclass(frozen=True)
class RegisteredVersion:
    """The entry behind a service. facts: custom properties of version and artifact, as text; uri: of the checkpoint."""

    model: str
    model_id: str
    state: str
    version: str
    facts: Mapping[str, str]
    uri: str


class RegistryReader:
    """Reads one registry at a base URL. Raises requests.RequestException."""

    def __init__(self, url: str) -> None:
        self._base = f"{url}{API}"
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy stands between this machine and itself

    def models(self) -> list[dict[str, str]]:
        """Name, id and state of every model."""
        items = self._get("registered_models")["items"]
        return [{"name": item["name"], "id": item["id"], "state": item.get("state", "")} for item in items]

    def version_of(self, state: ServiceState) -> RegisteredVersion | None:
        """The entry that a service is tied to; None without a tie, or where the registry does not know the ids."""
        if state.model_id is None or state.version_id is None:
            return None
        try:
            model = self._get(f"registered_models/{state.model_id}")
            version = self._get(f"model_versions/{state.version_id}")
            artifacts = self._get(f"model_versions/{state.version_id}/artifacts")["items"]
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code == 404:
                return None
            raise
        artifact = artifacts[0] if artifacts else {}
        facts = {**_facts(artifact), **_facts(version)}
        return RegisteredVersion(
            model["name"], model["id"], model.get("state", ""), version["name"], facts, str(artifact.get("uri", ""))
        )

    def _get(self, path: str) -> dict[str, Any]:
        response = self._session.get(f"{self._base}/{path}", timeout=_SECONDS)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found


@contextmanager
def registry_of(connection: Connection) -> Iterator[RegistryReader]:
    """The stack's registry. Raises NoRegistry: where it has none, or it does not answer at any time while the context lasts."""
    settings = connection.settings
    try:
        with connection.service(service_name(settings.registry.name), settings.namespaces.registry) as url:
            yield RegistryReader(url)
    except (requests.RequestException, NoConnection) as error:
        raise NoRegistry(_problem(connection, error)) from None
    except ApiError as error:
        if error.status != 404:
            raise
        raise NoRegistry(f"there is no model registry in namespace {settings.namespaces.registry}") from None


def _problem(connection: Connection, error: Exception) -> str:
    selector = f"app.kubernetes.io/name={connection.settings.registry.name}"
    pods = connection.client.list("v1", "Pod", connection.settings.namespaces.registry, label_selector=selector)["items"]
    pod = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    return f"the model registry does not answer: {(pod and pod_problem(pod)) or type(error).__name__}"


def _facts(item: Mapping[str, Any]) -> dict[str, str]:
    """Custom properties, each of which holds its value under a name of its type."""
    plain = {}
    for name, entry in (item.get("customProperties") or {}).items():
        values = [str(value) for key, value in entry.items() if key.endswith("_value")]
        if values and values[0]:
            plain[name] = values[0]
    return plain
