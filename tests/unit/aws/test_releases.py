"""Helm releases in a rehearsal: refused where Helm would refuse them, and unknown outside of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from embedded.plugins.aws import LEDGER_VARIABLE
from embedded.plugins.kubernetes import objects, releases
from embedded.plugins.kubernetes.releases import ReleaseFailed
from mistral_on_l4.cluster.client import ApiError, UnknownKind


class Api:
    """A cluster in a dict: objects by kind, namespace and name; a kind of cert-manager exists once its definition does."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Any] = {}

    def create(self, obj: Mapping[str, Any]) -> None:
        key = (obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", "exists")
        self.objects[key] = obj

    def apply(self, obj: Mapping[str, Any], manager: str, force: bool = False) -> None:
        self.objects[(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])] = obj

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Any:
        try:
            return self.objects[(kind, namespace or "", name)]
        except KeyError:
            raise ApiError(404, "NotFound", "not found") from None

    def list(self, api_version: str, kind: str) -> Any:
        self.resource_type(api_version, kind)
        return {"items": [obj for (found, _, _), obj in self.objects.items() if found == kind]}

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        self.get(api_version, kind, name, namespace)
        del self.objects[(kind, namespace or "", name)]

    def resource_type(self, api_version: str, kind: str) -> None:
        if ("CustomResourceDefinition", "", f"{kind.lower()}s.cert-manager.io") not in self.objects:
            raise UnknownKind(api_version, kind)


def chart(name: str, chart: str, namespace: str) -> dict[str, Any]:
    return {"name": name, "chart": chart, "version": "v1", "namespace": namespace}


CERT_MANAGER = chart("cert-manager", "oci://quay.io/jetstack/charts/cert-manager", "cert-manager")
KSERVE_CRD = chart("kserve-crd", "oci://ghcr.io/kserve/charts/kserve-crd", "kserve")
KSERVE = chart("kserve", "oci://ghcr.io/kserve/charts/kserve-resources", "kserve")


@pytest.fixture
def api() -> Any:
    return Api()


def test_a_release_is_recorded_as_helm_does_and_gone_with_its_kinds(api: Any) -> None:
    identifier, _ = releases.create(api, CERT_MANAGER, False)
    assert identifier == "cert-manager/cert-manager"
    assert api.get("v1", "Secret", "sh.helm.release.v1.cert-manager.v1", "cert-manager")["type"] == "helm.sh/release.v1"
    assert releases.exists(api, identifier)
    api.resource_type("cert-manager.io/v1", "Certificate")
    releases.delete(api, identifier, CERT_MANAGER)
    assert api.objects == {}


def test_a_name_in_use_is_refused(api: Any) -> None:
    releases.create(api, CERT_MANAGER, False)
    with pytest.raises(ReleaseFailed, match="cannot re-use a name that is still in use"):
        releases.create(api, CERT_MANAGER, False)


def test_kserve_needs_cert_managers_kinds_and_its_own_and_leaves_nothing_when_refused(api: Any) -> None:
    with pytest.raises(ReleaseFailed, match="no matches for kind 'Certificate'"):
        releases.create(api, KSERVE, False)
    assert api.objects == {}
    releases.create(api, CERT_MANAGER, False)
    with pytest.raises(ReleaseFailed, match="chart kserve-crd"):
        releases.create(api, KSERVE, False)
    assert not releases.exists(api, "kserve/kserve")


def test_kinds_do_not_go_while_something_of_them_is_left(api: Any) -> None:
    releases.create(api, CERT_MANAGER, False)
    api.create({"kind": "Certificate", "metadata": {"namespace": "minio-storage", "name": "minio-tls"}})
    with pytest.raises(ReleaseFailed, match="would delete Certificate minio-storage/minio-tls"):
        releases.delete(api, "cert-manager/cert-manager", CERT_MANAGER)
    assert releases.exists(api, "cert-manager/cert-manager")


def test_a_preview_records_nothing_and_a_release_needs_its_version(api: Any) -> None:
    assert releases.create(api, KSERVE_CRD, True)[0] == ""
    assert api.objects == {}
    assert releases.check({**KSERVE, "version": ""}) == ["version must be given"]


def test_outside_of_a_rehearsal_a_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LEDGER_VARIABLE, raising=False)
    with pytest.raises(objects.Unsupported, match=r"helm\.sh/v3:Release"):
        objects.kind_of(releases.TOKEN, {})
    monkeypatch.setenv(LEDGER_VARIABLE, "/tmp/account.json")
    assert objects.kind_of(releases.TOKEN, {}).release
    assert not objects.kind_of("kubernetes:apps/v1:Deployment", {}).release
