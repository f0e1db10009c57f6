"""What the rules on probes and names let through: other right answers, and what a preview cannot know."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.answering import probes_ask_what_answers, services_answer_to_their_name
from policies.offline import Finding, Recording, analyze

sys.path.insert(0, str(Path(__file__).parent))

from violations import _UNKNOWN, container, engine, model

Broken = Callable[..., Recording]
FULL = ("InferenceService", "mistral-24b-full")
RUNTIME = ("ServingRuntime", "vllm-mistral-runtime")


def on_probes(recording: Recording) -> list[Finding]:
    return analyze(recording, [probes_ask_what_answers])


def on_names(recording: Recording) -> list[Finding]:
    return analyze(recording, [services_answer_to_their_name])


def set_names(*words: str) -> Callable[[Any], None]:
    return lambda props: engine(props).update(args=["--port=8080", "--model=/mnt/models", *words])


@pytest.mark.parametrize(
    "change",
    [{"path": "/ping"}, {"path": "/health?verbose=1"}, {"path": "health"}, {"port": "8080"}, {"port": "http1"}, {"port": _UNKNOWN}],
    ids=str,
)
def test_a_probe_may_ask_vllm_in_every_way_that_it_answers(broken: Broken, change: dict[str, Any]) -> None:
    assert on_probes(broken("dev", *FULL, lambda props: model(props)["readinessProbe"]["httpGet"].update(change))) == []


def test_a_tcp_probe_is_judged_by_its_port_alone(broken: Broken) -> None:
    def tcp(port: int) -> Callable[[Any], None]:
        return lambda props: model(props).update(livenessProbe={"tcpSocket": {"port": port}})

    assert on_probes(broken("dev", *FULL, tcp(8080))) == []
    (found,) = on_probes(broken("dev", *FULL, tcp(8081)))
    assert "listens on 8080" in found.message


def test_a_probe_of_a_server_that_nobody_knows_may_ask_any_path(broken: Broken) -> None:
    def another(props: Any) -> None:
        container(props).update(image="registry.example.com/team/store:1.2")
        container(props)["readinessProbe"]["httpGet"].update(path="/up")

    assert on_probes(broken("dev", "StatefulSet", "minio", another)) == []


def test_an_image_behind_a_mirror_is_the_same_server(broken: Broken) -> None:
    def mirrored(props: Any) -> None:
        container(props).update(image="mirror.example.com:5000/quay/minio/minio:X")
        container(props)["readinessProbe"]["httpGet"].update(path="/up")

    (found,) = on_probes(broken("dev", "StatefulSet", "minio", mirrored))
    assert "MinIO" in found.message


def test_a_probe_that_the_runtime_brings_counts_where_the_service_has_none(recorded: Callable[[str], Recording]) -> None:
    def moved(recording: Recording, path: str) -> Recording:
        resources = []
        for found in recording.resources:
            props = copy.deepcopy(dict(found.props))
            if found.name == "serving-runtime":
                engine(props).update(livenessProbe={"httpGet": {"path": path, "port": 8080}})
            elif found.name == "mistral-24b-full-service":
                model(props).pop("livenessProbe")
            resources.append(dataclasses.replace(found, props=props))
        return dataclasses.replace(recording, resources=tuple(resources))

    assert on_probes(moved(recorded("local"), "/health")) == []
    (found,) = on_probes(moved(recorded("local"), "/live"))
    assert "mistral-24b-full: livenessProbe" in found.message


def test_without_its_runtime_neither_port_nor_name_of_a_service_is_judged(without: Broken) -> None:
    alone = without("dev", *RUNTIME)
    assert on_probes(alone) == []
    assert on_names(alone) == []


@pytest.mark.parametrize(
    "change",
    [
        {"args": ["--config=/etc/vllm.yaml"]},
        {"command": ["sh", "-c", "vllm serve /mnt/models --port 8080 --served-model-name $NAME"], "args": []},
        {"command": _UNKNOWN, "args": []},
        {"args": _UNKNOWN},
    ],
    ids=lambda change: " ".join(change),
)
def test_flags_that_are_set_elsewhere_than_in_arguments_are_not_taken_for_missing(broken: Broken, change: dict[str, Any]) -> None:
    recording = broken("dev", *RUNTIME, lambda props: engine(props).update(change))
    assert on_probes(recording) == []
    assert on_names(recording) == []


def test_arguments_that_are_not_known_yet_are_not_judged_and_hide_no_path(broken: Broken) -> None:
    def unknown(props: Any) -> None:
        model(props)["args"].append(_UNKNOWN)
        model(props)["startupProbe"]["httpGet"].update(port=8000, path="/healthz")

    recording = broken("dev", *FULL, unknown)
    assert on_names(recording) == []
    (found,) = on_probes(recording)
    assert "/healthz" in found.message


@pytest.mark.parametrize(
    "words",
    [
        ("--served-model-name", "{{.Name}}", "mistral"),
        ("--served-model-name", "mistral", "{{ .Name }}"),
        ("--served-model-name=model", "--served-model-name={{.Name}}"),
        ("--served-model-name={{.Labels.model}}",),
    ],
    ids=" ".join,
)
def test_a_service_may_have_more_names_than_its_own(broken: Broken, words: tuple[str, ...]) -> None:
    assert on_names(broken("dev", *RUNTIME, set_names(*words))) == []


def test_a_name_among_the_services_own_arguments_replaces_the_runtimes(broken: Broken) -> None:
    (found,) = on_names(broken("local", *FULL, lambda props: model(props)["args"].extend(["--served-model-name", "mistral"])))
    assert "mistral-24b-full: answers to 'mistral'" in found.message


def test_a_service_that_is_not_vllms_is_not_judged_as_if_it_were(broken: Broken) -> None:
    def sklearn(props: Any) -> None:
        model(props)["modelFormat"].update(name="sklearn")
        model(props)["readinessProbe"]["httpGet"].update(path="/v2/health/ready")
        model(props)["args"].extend(["--served-model-name", "iris"])

    recording = broken("dev", *FULL, sklearn)
    assert on_probes(recording) == []
    assert on_names(recording) == []
