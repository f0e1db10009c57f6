"""A resource's type token, name, id and annotations, and the object that is sent for it."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedded.plugins.kubernetes import releases
from embedded.plugins.marks import MARK, MARK_VALUE
from embedded.plugins.values import UNKNOWN, Secret, mark_secrets, reveal

AUTONAMED = "pulumi.com/autonamed"
DELETION_PROPAGATION = "pulumi.com/deletionPropagationPolicy"
FIELD_MANAGER = "pulumi.com/patchFieldManager"
FORCE = "pulumi.com/patchForce"
REPLACE_UNREADY = "pulumi.com/replaceUnready"
SKIP_AWAIT = "pulumi.com/skipAwait"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
WAIT_FOR = "pulumi.com/waitFor"

MANAGED_BY = "app.kubernetes.io/managed-by"

MANAGER = "__fieldManager"

# Properties that the server fills in anew for every object, so that nobody can know them beforehand.
_SERVER_METADATA = ("uid", "resourceVersion", "creationTimestamp", "generation")
_WITHOUT_STATUS = {"ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


class Unsupported(Exception):
    """Something of pulumi-kubernetes that this stand-in leaves out."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not supported by the stand-in for pulumi-kubernetes: install the official plugin to use it")


@dataclass(frozen=True)
class Kind:
    """What a type token names. patch: whether it is a Patch resource, which owns fields of an object and not the object."""

    api_version: str
    kind: str
    patch: bool

    @property
    def release(self) -> bool:
        """Whether it is a Helm release, which only a rehearsal knows."""
        return self.api_version.startswith("helm.sh/")

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]


def kind_of(token: str, inputs: Mapping[str, Any]) -> Kind:
    """The kind that a resource's type token and inputs name. Raises Unsupported for what is no plain object."""
    package, module, name = [*token.split(":", 2), "", ""][:3]
    if token == releases.TOKEN and releases.rehearsed():
        return Kind(module, name, False)
    if module.startswith(("helm.sh", "kustomize", "yaml")):
        raise Unsupported(f"{package}:{module}:{name}")
    patch = name.endswith("Patch") and "/" in module
    kind = name.removesuffix("Patch") if patch else name
    if kind.endswith("List") and kind != "List" and reveal(inputs.get("items")) is not None:
        raise Unsupported(f"a list of objects ({kind})")
    api_version = module.removeprefix("core/") if module.startswith("core/") else module
    given_version, given_kind = inputs.get("apiVersion"), inputs.get("kind")
    return Kind(
        given_version if isinstance(given_version, str) else api_version,
        given_kind if isinstance(given_kind, str) else kind,
        patch,
    )


def object_id(obj: Mapping[str, Any]) -> str:
    """namespace/name, or name alone for what lives in no namespace."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def split_id(identifier: str) -> tuple[str | None, str]:
    """(namespace, name) of an id."""
    namespace, _, name = identifier.rpartition("/")
    return namespace or None, name


def annotations_of(obj: Mapping[str, Any]) -> dict[str, str]:
    found = reveal((reveal(obj.get("metadata")) or {}).get("annotations")) or {}
    return {str(key): str(value) for key, value in found.items() if value is not UNKNOWN}


def is_true(obj: Mapping[str, Any], annotation: str) -> bool:
    return annotations_of(obj).get(annotation, "").lower() == "true"


def autonamed(obj: Mapping[str, Any]) -> bool:
    return is_true(obj, AUTONAMED)


def wait_seconds(obj: Mapping[str, Any], given: float, default: float = 600.0) -> float:
    """How long to wait for an object: customTimeouts, else its annotation, else ten minutes.

    Raises ValueError for an annotation that is no number.
    """
    if given:
        return given
    if text := annotations_of(obj).get(TIMEOUT_SECONDS):
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"annotation {TIMEOUT_SECONDS} must be a number of seconds, not {text!r}") from None
    return default


def with_name(inputs: dict[str, Any], old: Mapping[str, Any], resource: str, seed: bytes, proposed: str | None) -> dict[str, Any]:
    """inputs with a name: their own; or the old one, if that was made here too; or one made of the resource's and 8 characters."""
    meta = inputs.get("metadata")
    meta = dict(meta) if isinstance(meta, dict) else {}
    if meta.get("name") is not None or meta.get("generateName"):
        return inputs
    old_name = (reveal(old.get("metadata")) or {}).get("name") if old and autonamed(old) else None
    if old_name:
        name = old_name
    elif proposed:
        name = proposed
    else:
        # The engine's seed makes preview and update agree on the name.
        suffix = random.Random(seed or None).getrandbits(32)
        name = f"{resource.lower()}-{suffix:08x}"
    given = meta.get("annotations")
    if given is not UNKNOWN:
        meta["annotations"] = {**(given or {}), AUTONAMED: "true"} if not isinstance(given, Secret) else given
    return {**inputs, "metadata": {**meta, "name": name}}


def with_managed_by(inputs: dict[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """inputs with the label app.kubernetes.io/managed-by where the old ones have it.

    Since server-side apply pulumi-kubernetes gives it to no new object, and takes it from none that has it.
    """
    meta = inputs.get("metadata")
    labels = meta.get("labels") if isinstance(meta, dict) else {}
    if not isinstance(meta, dict) or not isinstance(labels or {}, dict) or MANAGED_BY in (labels or {}):
        return inputs
    if MANAGED_BY not in (reveal((reveal(old.get("metadata")) or {}).get("labels")) or {}):
        return inputs
    return {**inputs, "metadata": {**meta, "labels": {**(labels or {}), MANAGED_BY: "pulumi"}}}


def body(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The object as the API server gets it."""
    sent: dict[str, Any] = {key: reveal(value) for key, value in inputs.items() if not key.startswith("__")}
    if sent.get("kind") == "Secret" and sent.get("apiVersion") == "v1" and isinstance(sent.get("stringData"), dict):
        # stringData is only a way to write data; sent as data, a key that is left out later is removed later.
        text = sent.pop("stringData")
        sent["data"] = {
            **(sent.get("data") or {}),
            **{key: base64.b64encode(str(value).encode()).decode() for key, value in text.items()},
        }
    return sent


def outputs(live: Mapping[str, Any], inputs: Mapping[str, Any], manager: str) -> dict[str, Any]:
    """What the state keeps of an object: the live one, secret where the inputs are, and our marks."""
    kept = {key: value for key, value in live.items() if key != "metadata"}
    kept["metadata"] = {key: value for key, value in (live.get("metadata") or {}).items() if key != "managedFields"}
    kept = mark_secrets(kept, {key: value for key, value in inputs.items() if not key.startswith("__")})
    return {**_hide_secret_data(kept, inputs), MARK: MARK_VALUE, MANAGER: manager}


def _hide_secret_data(kept: dict[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    if kept.get("kind") != "Secret":
        return kept
    if "stringData" in inputs:
        kept["stringData"] = reveal(inputs["stringData"])
    for key in ("data", "stringData"):
        if kept.get(key) is not None and not isinstance(kept[key], Secret):
            kept[key] = Secret(reveal(kept[key]))
    return kept


def preview_outputs(foreseen: Mapping[str, Any], inputs: Mapping[str, Any], manager: str) -> dict[str, Any]:
    """What is known of an object before it exists: a dry run's answer or the inputs, less what a dry run only makes up."""
    found = dict(foreseen)
    given = inputs.get("metadata")
    meta = found.get("metadata")
    if isinstance(meta, dict):
        made_up = {key: UNKNOWN for key in _SERVER_METADATA if not (isinstance(given, dict) and key in given)}
        found["metadata"] = {**meta, **made_up}
    kind = found.get("kind")
    if kind not in _WITHOUT_STATUS:
        found["status"] = UNKNOWN
    if kind == "Service" and isinstance(found.get("spec"), dict):
        asked = reveal(inputs.get("spec"))
        if isinstance(asked, dict) and "clusterIP" not in asked:
            found["spec"] = {**found["spec"], "clusterIP": UNKNOWN, "clusterIPs": UNKNOWN}
    if kind == "Secret" and "data" not in found and found.get("stringData") is not None:
        found["data"] = UNKNOWN
    return outputs(found, inputs, manager)
