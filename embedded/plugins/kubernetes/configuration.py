"""The provider's own configuration: which cluster, and what may be changed in place."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from embedded.plugins.kubernetes.differences import Mutability
from embedded.plugins.kubernetes.objects import Unsupported
from embedded.plugins.marks import ASSUMED_SERVER
from embedded.plugins.values import UNKNOWN, has_unknown, reveal
from mistral_on_l4.cluster.client import KubeClient

_UNSUPPORTED = ("renderYamlToDirectory", "upsertExistingObjects", "deleteUnreachable", "skipUpdateUnreachable", "alwaysRender")


class BadConfiguration(Exception):
    """The provider cannot work with this configuration. One line."""


@dataclass(frozen=True)
class Configuration:
    """kubeconfig: path or contents, None for the environment's; UNKNOWN values make the provider work without a cluster."""

    kubeconfig: Any = None
    context: str | None = None
    namespace: str | None = None
    cluster_identifier: str | None = None
    mutability: Mutability = field(default_factory=Mutability)
    patch_force: bool = False

    @property
    def known(self) -> bool:
        return self.kubeconfig is not UNKNOWN


def read(values: Mapping[str, Any]) -> Configuration:
    """From a provider resource's inputs. Raises Unsupported for what only the official plugin does."""
    plain = {key: reveal(value) for key, value in values.items()}
    for key in _UNSUPPORTED:
        if _flag(plain.get(key), False):
            raise Unsupported(f"provider option {key}")
    if not _flag(plain.get("enableServerSideApply"), True):
        raise Unsupported("provider option enableServerSideApply: false")
    if plain.get("cluster"):
        raise Unsupported("provider option cluster")
    kubeconfig = plain.get("kubeconfig")
    # A cluster that is only assumed to exist is no more known than one that is not made yet.
    unknown = has_unknown(kubeconfig) or has_unknown(plain.get("context")) or ASSUMED_SERVER in str(kubeconfig)
    return Configuration(
        UNKNOWN if unknown else kubeconfig,
        plain.get("context") or None,
        plain.get("namespace") or None,
        plain.get("clusterIdentifier") or None,
        Mutability(_flag(plain.get("enableConfigMapMutable"), False), _flag(plain.get("enableSecretMutable"), False)),
        _flag(plain.get("enablePatchForce"), False),
    )


def _flag(value: Any, default: bool) -> bool:
    """SDKs send a provider's booleans as JSON text."""
    if value is None or value == "" or value is UNKNOWN:
        return default
    return value is True or str(value).lower() == "true"


def require_local(configuration: Configuration) -> None:
    """Raises BadConfiguration for a kubeconfig that cannot be read, and for a server that is not on this machine."""
    try:
        server = _active_server(configuration)
    except (OSError, ValueError, KeyError, StopIteration, TypeError) as error:
        raise BadConfiguration(f"the kubeconfig cannot be used: {error or 'it names a context or cluster that it lacks'}") from None
    refuse_elsewhere(server)


def client_for(configuration: Configuration) -> KubeClient:
    """A client for the configured cluster. Raises BadConfiguration."""
    try:
        text, base = _kubeconfig(configuration.kubeconfig)
        client = KubeClient.from_kubeconfig_text(text, configuration.context, base)
    except (OSError, ValueError, KeyError) as error:
        raise BadConfiguration(f"the kubeconfig cannot be used: {error}") from None
    refuse_elsewhere(client.server)
    return client


def refuse_elsewhere(server: str) -> None:
    """Raises BadConfiguration unless a server's URL names an address of 127.0.0.0/8."""
    host = urlsplit(server).hostname or ""
    try:
        inside = ipaddress.ip_address(host) in ipaddress.ip_network("127.0.0.0/8")
    except ValueError:
        inside = False
    if not inside:
        raise BadConfiguration(
            f"the stand-in for pulumi-kubernetes talks to 127.0.0.0/8 only, and the kubeconfig's server is {server}: "
            "install the official plugin for any other cluster"
        )


def server_of(values: Mapping[str, Any]) -> str | None:
    """URL of the active cluster in a provider's inputs, None if it cannot be told."""
    try:
        configuration = read(values)
        return _active_server(configuration) if configuration.known else None
    except (OSError, ValueError, KeyError, StopIteration, TypeError, Unsupported):
        return None


def _active_server(configuration: Configuration) -> str:
    import yaml

    text, _ = _kubeconfig(configuration.kubeconfig)
    config = yaml.safe_load(text)
    name = configuration.context or config["current-context"]
    context = next(entry["context"] for entry in config["contexts"] if entry["name"] == name)
    return str(next(entry["cluster"]["server"] for entry in config["clusters"] if entry["name"] == context["cluster"]))


def _kubeconfig(given: Any) -> tuple[str, Path]:
    """(contents, folder that its file names are relative to)."""
    if isinstance(given, dict):
        import json

        return json.dumps(given), Path.cwd()
    if isinstance(given, str) and ("\n" in given.strip() or given.lstrip().startswith(("{", "apiVersion"))):
        return given, Path.cwd()
    # $KUBECONFIG may list several files; the first is the one that commands write to, and the only one read here.
    name = given or os.environ.get("KUBECONFIG", "").split(":")[0] or "~/.kube/config"
    path = Path(name).expanduser()
    return path.read_text(), path.parent
