"""The charts' component on its own: where charts come from, what comes before what, and what stands beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pytest
import yaml
from jsonschema import Draft7Validator

from components.charts import CHARTS, REHEARSAL_CHARTS, Charts, ChartsArgs
from components.store_certificate import StoreCertificate, StoreCertificateArgs
from embedded.charts import chart_folders
from mistral_on_l4.config.settings import ImagesSettings
from mistral_on_l4.planner.hosting import Downloader
from tests.support.account import OUTPUTS
from tests.support.engine import Engine, run

RELEASE = "kubernetes:helm.sh/v3:Release"


@pytest.fixture(autouse=True)
def no_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REHEARSAL_CHARTS, raising=False)


def declared(rehearsal: bool = False, cores: int = 4, memory_gib: int = 4) -> Engine:
    def program() -> None:
        provider = k8s.Provider("cluster", kubeconfig="{}")
        nodes = k8s.core.v1.Namespace("nodes", opts=pulumi.ResourceOptions(provider=provider))
        opts = pulumi.ResourceOptions(provider=provider, depends_on=[nodes])
        Charts("charts", ChartsArgs(ImagesSettings(), "Standard", Downloader(cores, memory_gib), rehearsal), opts)

    return run(program, Engine(), "dev")


def releases(engine: Engine) -> dict[str, Any]:
    return {found.inputs["name"]: found for found in engine.of(RELEASE)}


def test_charts_come_from_their_projects_addresses_each_whole_or_not_at_all() -> None:
    inputs = {name: found.inputs for name, found in releases(declared()).items()}
    assert set(inputs) == {chart.release for chart in CHARTS}
    assert inputs["kserve"]["chart"] == "oci://ghcr.io/kserve/charts/kserve-resources"
    assert "repositoryOpts" not in inputs["kserve"]
    assert inputs["dcgm-exporter"]["repositoryOpts"] == {"repo": "https://nvidia.github.io/dcgm-exporter/helm-charts"}
    metrics = inputs.pop("dcgm-exporter")
    assert all(found["atomic"] and found["cleanupOnFail"] and not found["skipAwait"] for found in inputs.values())
    # One that is not awaited cannot fail for its pods, and Helm takes only what it awaits back.
    assert (metrics["atomic"], metrics["skipAwait"]) == (False, True)


def test_a_rehearsal_takes_every_chart_from_its_folder_at_the_same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: found.inputs for name, found in releases(declared()).items()}
    monkeypatch.setenv(REHEARSAL_CHARTS, "/home/of/charts")
    for chart in CHARTS:
        inputs = releases(declared(rehearsal=True))[chart.release].inputs
        assert inputs["chart"] == f"/home/of/charts/{chart.name}"
        assert "repositoryOpts" not in inputs
        same = {"chart": 0, "repositoryOpts": 0}
        assert {**inputs, **same} == {**before[chart.release], **same}


def test_a_rehearsals_charts_are_refused_for_a_real_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REHEARSAL_CHARTS, "/home/of/charts")
    with pytest.raises(pulumi.RunError, match=f"{REHEARSAL_CHARTS} names /home/of/charts: .*; unset it"):
        declared()


def test_charts_come_after_what_runs_their_controllers_and_after_what_they_need_themselves() -> None:
    engine = declared()
    (component,) = engine.of("mistral-on-l4:cluster:Charts")
    nodes = next(found.urn for found in engine.resources if found.name == "nodes")
    assert nodes in component.depends_on
    urns = {name: found.urn for name, found in releases(engine).items()}
    assert {urns["cert-manager"], urns["kserve-crd"]} <= set(releases(engine)["kserve"].depends_on)
    # A child is declared once its parent is there.
    children = [found for found in engine.resources if found.name.startswith("charts-")]
    assert len(children) == len(CHARTS) + 4
    assert {found.parent for found in children} == {component.urn}


def test_services_that_name_a_storage_key_get_a_container_with_room_for_a_large_checkpoint() -> None:
    engine = declared(cores=3, memory_gib=2)
    container = engine.named("ClusterStorageContainer", "services-with-a-storage-key")
    assert releases(engine)["kserve"].urn in container.depends_on
    spec = container.inputs["spec"]
    # KServe puts this in front of the path of a service that names a key, and takes the first container with a fitting format.
    assert [found["prefix"] for found in spec["supportedUriFormats"]] == ["<scheme-placeholder>://"]
    assert spec["workloadType"] == "initContainer"
    assert spec["container"]["resources"]["limits"] == {"cpu": "3", "memory": "2Gi"}
    assert "image" not in spec["container"]


def strict(schema: Any) -> Any:
    """As the API server takes server-side apply: a field that a kind does not declare is an error."""
    if isinstance(schema, dict):
        inner = {key: strict(value) for key, value in schema.items()}
        if "properties" in schema:
            inner.setdefault("additionalProperties", False)
        return inner
    return [strict(value) for value in schema] if isinstance(schema, list) else schema


def certificates() -> Engine:
    def program() -> None:
        provider = k8s.Provider("cluster", kubeconfig="{}")
        args = StoreCertificateArgs("minio", ("registry",), "services")
        StoreCertificate("store", args, pulumi.ResourceOptions(provider=provider))

    return run(program, Engine(outputs=OUTPUTS), "dev")


@pytest.fixture(scope="module")
def problem() -> Callable[[Any], str | None]:
    """What a rehearsal's API server has against an object of cert-manager's."""
    (folder,) = [folder for folder in chart_folders() if folder.name == "cert-manager"]
    kinds = {}
    for file in (folder / "files").glob("*.yaml"):
        spec = yaml.safe_load(file.read_text())["spec"]
        kinds[spec["names"]["kind"]] = strict(spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])

    def look(kind: str, spec: Any) -> str | None:
        return next((error.message for error in Draft7Validator(kinds[kind]).iter_errors(spec)), None)

    return look


def test_certificates_and_issuers_of_the_store_are_such_as_a_rehearsals_kinds_take(problem: Callable[..., str | None]) -> None:
    engine = certificates()
    issuers, issued = engine.of("Issuer"), engine.of("Certificate")
    assert (len(issuers), len(issued)) == (2, 2)
    for found in (*issuers, *issued):
        assert problem(found.token.rpartition(":")[2], found.inputs["spec"]) is None


@pytest.mark.parametrize("key", ["dnsNames", "usages", "secretName", "issuerRef", "privateKey"])
def test_a_certificate_with_a_misspelt_field_is_refused(problem: Callable[..., str | None], key: str) -> None:
    spec = dict(certificates().named("Certificate", "minio-tls").inputs["spec"])
    spec[f"{key}x"] = spec.pop(key)
    assert problem("Certificate", spec)
