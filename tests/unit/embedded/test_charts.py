"""The charts of a rehearsal: they take what the stack sets, refuse what the projects' charts have not got, and are laid out whole."""

from __future__ import annotations

import copy
import json
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from components import charts
from embedded.charts import chart_folders, lay_charts
from embedded.home import ClusterInfo
from embedded.images.table import program_for
from mistral_on_l4.config.settings import ImagesSettings

MIRROR = ImagesSettings(mirror="mirror.example.com/all")
FOLDERS = {folder.name: folder for folder in chart_folders()}
NAMES = sorted(FOLDERS)
# Below these, keys are names that anybody may choose, or Kubernetes' own.
FREE = ("requests", "limits", "nodeSelector", "nodeAffinity")


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterInfo:
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.touch()
    tools = {"storage-initializer-python": str(python)}
    return ClusterInfo("127.64.0.0/16", "https://127.0.0.1:1", 1, "", "127.0.0.1:2", "local-path", False, 8000, tools)


def document(name: str, file: str) -> Any:
    path = FOLDERS[name] / file
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def values(name: str, images: ImagesSettings) -> dict[str, Any]:
    """What the stack sets."""
    return {
        "cert-manager": charts.cert_manager_values(images),
        "kserve-crd": {},
        "kserve-resources": charts.kserve_values(charts.ChartsArgs(images, "Standard")),
        "nvidia-device-plugin": charts.device_plugin_values(images),
        "dcgm-exporter": charts.dcgm_values(images),
    }[name]


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm lays values over a chart's own, before it looks at the schema."""
    both = dict(defaults)
    for key, value in given.items():
        before = both.get(key)
        both[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return both


def problems(name: str, given: Mapping[str, Any]) -> list[str]:
    validator = Draft7Validator(document(name, "values.schema.json"))
    return [error.message for error in validator.iter_errors(merged(document(name, "values.yaml"), given))]


def misspelt(given: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every copy of some values with one key spelt wrong, and where."""
    if isinstance(given, dict):
        for key, value in given.items():
            yield f"{path}.{key}", {**{other: given[other] for other in given if other != key}, f"{key}x": value}
            if key not in FREE:
                for where, wrong in misspelt(value, f"{path}.{key}"):
                    yield where, {**given, key: wrong}
    if isinstance(given, list):
        for index, value in enumerate(given):
            for where, wrong in misspelt(value, f"{path}[{index}]"):
                yield where, [*given[:index], wrong, *given[index + 1 :]]


def test_there_is_a_chart_of_the_same_name_and_version_for_each_that_the_stack_installs() -> None:
    wanted = {chart.name: chart.version for chart in charts.CHARTS}
    assert {name: document(name, "Chart.yaml")["version"] for name in NAMES} == wanted
    assert {document(name, "Chart.yaml")["name"] for name in NAMES} == set(wanted)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("images", [ImagesSettings(), MIRROR], ids=["plain", "mirrored"])
def test_a_chart_takes_the_values_that_the_stack_sets_and_refuses_each_of_their_keys_misspelt(
    name: str, images: ImagesSettings
) -> None:
    given = values(name, images)
    assert problems(name, given) == []
    wrong = list(misspelt(given))
    assert bool(wrong) == (name != "kserve-crd")
    assert [where for where, each in wrong if not problems(name, each)] == []


def test_a_chart_without_values_takes_none() -> None:
    assert problems("kserve-crd", {"anything": 1}) == ["Additional properties are not allowed ('anything' was unexpected)"]


def test_kserve_is_refused_a_deployment_mode_that_it_does_not_know() -> None:
    given = copy.deepcopy(values("kserve-resources", ImagesSettings()))
    given["kserve"]["controller"]["deploymentMode"] = "Standart"
    assert problems("kserve-resources", given)


@pytest.mark.parametrize("name", NAMES)
def test_templates_read_only_values_that_have_a_default(name: str) -> None:
    defaults = document(name, "values.yaml")
    for template in (FOLDERS[name] / "templates").iterdir():
        for path in re.findall(r"\.Values((?:\.\w+)+)", template.read_text()):
            found = defaults
            for key in path.removeprefix(".").split("."):
                assert key in found, f"{template.name}: {path}"
                found = found[key]


# -- cert-manager's kinds ----------------------------------------------------------------------------------------------------


def schemas(definition: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A structural schema and every one in it."""
    yield definition
    for inner in definition.get("properties", {}).values():
        yield from schemas(inner)
    for key in ("items", "additionalProperties"):
        if key in definition:
            yield from schemas(definition[key])


@pytest.mark.parametrize("kind", ["certificates", "issuers"])
def test_kinds_of_cert_manager_know_every_field_that_they_take(kind: str) -> None:
    (version,) = document("cert-manager", f"files/{kind}.yaml")["spec"]["versions"]
    for schema in schemas(version["schema"]["openAPIV3Schema"]["properties"]["spec"]):
        assert "x-kubernetes-preserve-unknown-fields" not in schema
        if schema["type"] == "object":
            assert {"properties", "additionalProperties"} & set(schema)


# -- laying them out ---------------------------------------------------------------------------------------------------------


def test_charts_are_laid_out_whole_with_the_clusters_kinds_and_webhooks_in_place_of_older_ones(tmp_path: Path) -> None:
    definitions, folder = tmp_path / "definitions", tmp_path / "charts"
    definitions.mkdir()
    kind = {"kind": "CustomResourceDefinition", "text": "{{ .Not.A.Template }}"}
    (definitions / "inferenceservices.serving.kserve.io.json").write_text(json.dumps(kind))
    (folder / "kserve-crd" / "files").mkdir(parents=True)
    (folder / "kserve-crd" / "files" / "old.json").write_text("{}")
    webhooks = [{"kind": "MutatingWebhookConfiguration"}, {"kind": "ValidatingWebhookConfiguration"}]
    lay_charts(folder, definitions, webhooks)
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    laid = {path.name: json.loads(path.read_text()) for path in folder.glob("kserve-*/files/*")}
    assert laid == {
        "inferenceservices.serving.kserve.io.json": kind,
        "mutatingwebhookconfiguration.json": webhooks[0],
        "validatingwebhookconfiguration.json": webhooks[1],
    }
    # Helm would run what is in templates/ as templates; files are taken as they are.
    for name in ("kserve-crd", "kserve-resources"):
        assert any('.Files.Glob "files/*.json"' in file.read_text() for file in (folder / name / "templates").iterdir())


# -- what runs in their pods -------------------------------------------------------------------------------------------------


def images_of(name: str, given: ImagesSettings) -> list[str]:
    """Every image that the chart's pods run, the storage initializer's included."""
    read = merged(document(name, "values.yaml"), values(name, given))
    if name == "cert-manager":
        parts = [read["image"], *(read[part]["image"] for part in ("webhook", "cainjector", "startupapicheck"))]
        base = f"{read['imageRegistry']}/{read['imageNamespace']}"
        return [part.get("repository") or f"{base}/{part['name']}" for part in parts]
    if name == "kserve-resources":
        return [
            read["kserve"]["controller"]["image"],
            read["kserve"]["controller"]["rbacProxyImage"],
            read["kserve"]["storage"]["image"],
        ]
    return [read["image"]["repository"]] if "image" in read else []


@pytest.mark.parametrize("name", NAMES)
def test_every_image_of_the_charts_has_a_program_and_comes_from_the_mirror_where_there_is_one(
    name: str, cluster: ClusterInfo
) -> None:
    for image in images_of(name, ImagesSettings()):
        assert program_for(image, cluster).name in ("idle", "succeed", "storage-initializer")
    for image in images_of(name, MIRROR):
        assert image.startswith("mirror.example.com/all/")
        assert program_for(image, cluster).name in ("idle", "succeed", "storage-initializer")


def test_what_stands_for_a_controller_runs_until_it_is_asked_to_end_and_a_check_ends_by_itself(cluster: ClusterInfo) -> None:
    controller = program_for("quay.io/jetstack/cert-manager-controller:v1.21.1", cluster)
    check = program_for("quay.io/jetstack/cert-manager-startupapicheck:v1.21.1", cluster)
    (programs,) = controller.overlay.values()
    running = subprocess.Popen([programs / controller.entrypoint[0]], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout is not None
    assert "stand-in" in running.stdout.readline()
    assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    assert running.wait(10) == 0
    assert (
        subprocess.run([programs / check.entrypoint[0], "check", "api"], timeout=10, check=False, capture_output=True).returncode
        == 0
    )
