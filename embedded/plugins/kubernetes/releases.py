"""Helm Releases in a rehearsal: recorded as Helm records them, not rendered.

What a chart would bring is bridged only as far as the stack waits for it: cert-manager's kinds (a controller of the rehearsal
issues the certificates) and KServe's configuration and webhooks (its controller is the embedded cluster's process). A release
is refused where Helm would refuse it: a name in use, a namespace that is not there, KServe without what its chart needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from embedded.home import LocalHome
from embedded.plugins.aws import LEDGER_VARIABLE
from embedded.plugins.values import UNKNOWN, reveal
from mistral_on_l4.cluster.client import ApiError, KubeClient, Object, UnknownKind

TOKEN = "kubernetes:helm.sh/v3:Release"
_OWNER = "mistral-on-l4-rehearsal"
Values = dict[str, Any]


class ReleaseFailed(Exception):
    """Helm would have refused. One line."""


def rehearsed() -> bool:
    """Whether this process belongs to a rehearsal: elsewhere a recorded release would be a lie."""
    return LEDGER_VARIABLE in os.environ


def check(inputs: Values) -> list[str]:
    """What is missing of a release."""
    return [f"{key} must be given" for key in ("name", "chart", "version", "namespace") if not reveal(inputs.get(key))]


def create(client: KubeClient | None, inputs: Values, preview: bool) -> tuple[str, Values]:
    """(id, outputs). Raises ReleaseFailed, ApiError."""
    plain = reveal(inputs)
    identifier = f"{plain['namespace']}/{plain['name']}"
    if preview or client is None:
        return "", {**inputs, "status": UNKNOWN}
    try:
        client.create(_record(plain))
    except ApiError as error:
        if error.reason == "AlreadyExists":
            raise ReleaseFailed("cannot re-use a name that is still in use") from None
        raise
    try:
        for obj in _bridged(plain["chart"], client):
            client.apply(obj, _OWNER, force=True)
    except (ApiError, ReleaseFailed):
        # As with `atomic`: a failed installation leaves nothing.
        client.delete("v1", "Secret", _secret(plain["name"]), plain["namespace"])
        raise
    return identifier, {**inputs, "status": _status(plain)}


def update(client: KubeClient, identifier: str, inputs: Values, preview: bool) -> Values:
    plain = reveal(inputs)
    if not preview:
        client.apply(_record(plain), _OWNER, force=True)
        for obj in _bridged(plain["chart"], client):
            client.apply(obj, _OWNER, force=True)
    return {**inputs, "status": _status(plain), "id": identifier}


def exists(client: KubeClient, identifier: str) -> bool:
    namespace, _, name = identifier.partition("/")
    try:
        client.get("v1", "Secret", _secret(name), namespace)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def delete(client: KubeClient, identifier: str, inputs: Values) -> None:
    """Takes away what the release brought, then its record. Raises ReleaseFailed while objects of its kinds are left."""
    namespace, _, name = identifier.partition("/")
    for obj in reversed(list(_bridged(reveal(inputs)["chart"], client, installing=False))):
        _refuse_orphans(client, obj)
        meta = obj["metadata"]
        _delete(client, obj["apiVersion"], obj["kind"], meta["name"], meta.get("namespace"))
    _delete(client, "v1", "Secret", _secret(name), namespace)


def _delete(client: KubeClient, api_version: str, kind: str, name: str, namespace: str | None) -> None:
    try:
        client.delete(api_version, kind, name, namespace)
    except ApiError as error:
        if error.status != 404:
            raise


def _refuse_orphans(client: KubeClient, definition: Object) -> None:
    """With a kind go its objects, whether or not anybody still needs them: here that is a mistake in the order."""
    if definition["kind"] != "CustomResourceDefinition":
        return
    spec = definition["spec"]
    try:
        left = client.list(f"{spec['group']}/{spec['versions'][0]['name']}", spec["names"]["kind"])["items"]
    except (UnknownKind, ApiError):
        return
    if left:
        names = ", ".join(f"{found['metadata']['namespace']}/{found['metadata']['name']}" for found in left)
        raise ReleaseFailed(f"uninstalling would delete {spec['names']['kind']} {names}, which something still uses")


# -- what the charts bring ---------------------------------------------------------------------------------------------------


def _bridged(chart: str, client: KubeClient, installing: bool = True) -> Sequence[Object]:
    name = chart.rpartition("/")[2]
    if name == "cert-manager":
        return [_definition(kind, plural) for kind, plural in (("Issuer", "issuers"), ("Certificate", "certificates"))]
    if name == "kserve-resources":
        return _kserve(client, installing)
    return []


def _kserve(client: KubeClient, installing: bool) -> Sequence[Object]:
    """Its configuration and webhooks, as the embedded cluster has them. The chart holds a Certificate: it needs that kind."""
    from embedded import kserve

    if installing:
        try:
            client.resource_type("cert-manager.io/v1", "Certificate")
        except UnknownKind as error:
            raise ReleaseFailed(
                f"unable to build kubernetes objects from release manifest: {error}: ensure CRDs are installed first"
            ) from None
        if not exists(client, "kserve/kserve-crd"):
            raise ReleaseFailed("unable to build kubernetes objects: KServe's kinds are not installed (chart kserve-crd)")
    home = LocalHome.default()
    kinds = ("ConfigMap", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
    return [obj for obj in kserve.objects(home, home.cluster()) if obj["kind"] in kinds]


def _definition(kind: str, plural: str) -> Object:
    """A kind of cert-manager, without its schema: what is in it, the real one would have checked."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def _record(inputs: Mapping[str, Any]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": _secret(inputs["name"]),
            "namespace": inputs["namespace"],
            "labels": {"owner": "helm", "name": inputs["name"], "status": "deployed"},
            "annotations": {"mistral-on-l4/rehearsal": "recorded, not rendered"},
        },
        "type": "helm.sh/release.v1",
        "stringData": {"chart": inputs["chart"], "version": inputs["version"], "values": json.dumps(inputs.get("values") or {})},
    }


def _secret(name: str) -> str:
    return f"sh.helm.release.v1.{name}.v1"


def _status(inputs: Mapping[str, Any]) -> Values:
    return {"name": inputs["name"], "namespace": inputs["namespace"], "version": inputs["version"], "status": "deployed"}
