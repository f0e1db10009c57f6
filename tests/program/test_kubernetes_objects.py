"""What pulumi_kubernetes' classes hand to the engine of what our components give them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pytest
from pulumi_kubernetes.core.v1 import ConfigMap, Secret

from components.inference_service import CHECKER
from components.objects import body, custom
from components.script_jobs import JobPodArgs, ScriptJobs, ScriptJobsArgs
from components.store_certificate import StoreCertificate, StoreCertificateArgs
from mistral_on_l4.manifests import object_store, serving
from mistral_on_l4.manifests.metadata import manifest, metadata
from mistral_on_l4.manifests.scripts import sources
from tests.support.account import OUTPUTS, account
from tests.support.engine import Engine, Registered, run

POD = JobPodArgs("image", "pull", "fixed")


def checker(**changes: Any) -> ScriptJobsArgs:
    args: dict[str, Any] = {
        "sources": sources("check_service"),
        "config_map": "check-service",
        "namespace": "services",
        "account": CHECKER,
        "rules": ({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},),
        "pod": POD,
    }
    return ScriptJobsArgs(**{**args, **changes})


def only(engine: Engine, kind: str) -> Registered:
    (found,) = engine.of(kind)
    return found


# -- bodies ------------------------------------------------------------------------------------------------------------------


def test_keys_that_people_or_kubernetes_choose_reach_the_engine_as_they_are() -> None:
    # Names that a translation between Python's and the API's spelling would touch, in each map that has free keys.
    free = {
        "api_version": "a",
        "string_data": "b",
        "ca.crt": "c",
        "storageClassName": "d",
        "pulumi.com/skipAwait": "e",
        "x-y_z": "f",
    }
    written = manifest("v1", "ConfigMap", {"name": "x", "labels": free, "annotations": free}, data=free, binaryData=free)

    def program() -> None:
        ConfigMap("map", metadata=written["metadata"], data=written["data"], binary_data=written["binaryData"])
        Secret("secret", metadata=written["metadata"], string_data=free)
        pods = object_store.stateful_set("minio", "image", "claim", tls_secret="tls")
        pods["spec"]["selector"]["matchLabels"] = free
        k8s.apps.v1.StatefulSet("pods", **body(pods))

    engine = run(program, Engine())
    found = only(engine, "ConfigMap").inputs
    assert {key: found[key] for key in written} == written
    assert only(engine, "Secret").inputs["stringData"] == free
    assert only(engine, "StatefulSet").inputs["spec"]["selector"]["matchLabels"] == free


@pytest.mark.parametrize("stack", ["local", "dev"])
@pytest.mark.usefixtures("local_home")
def test_no_field_of_an_object_is_in_pythons_spelling(run_program: Callable[..., Engine], stack: str) -> None:
    engine = (
        run_program() if stack == "local" else run_program(stack, preview=True, engine=Engine(calls=account(), outputs=OUTPUTS))
    )
    objects = [found for found in engine.resources if found.token.startswith("kubernetes:") and "Release" not in found.token]
    assert len(objects) > 40
    for found in objects:
        fields = {key: value for key, value in found.inputs.items() if key not in ("data", "stringData", "parameters")}
        assert [path for path in _paths(fields) if "_" in path.rpartition(".")[2]] == [], found.name


def test_an_object_of_a_kind_without_a_class_reaches_the_engine_whole() -> None:
    runtime = serving.serving_runtime("services", "image", "1Gi")
    engine = run(lambda: k8s.apiextensions.CustomResource("runtime", **custom(runtime)) and None, Engine())
    found = only(engine, "ServingRuntime")
    assert found.token == "kubernetes:serving.kserve.io/v1alpha1:ServingRuntime"
    assert found.inputs == runtime


def test_data_of_a_secret_are_secret_whoever_forgets_to_say_so() -> None:
    engine = run(lambda: Secret("keys", metadata=metadata("keys", "minio"), string_data={"a.b": "in clear"}) and None, Engine())
    assert only(engine, "Secret").secrets == {"stringData"}


def _paths(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        # Labels, annotations and selectors are people's own.
        return [
            inner
            for key, item in value.items()
            for inner in ([f"{path}.{key}"] if key in ("labels", "annotations", "matchLabels") else _paths(item, f"{path}.{key}"))
        ]
    if isinstance(value, list):
        return [inner for item in value for inner in _paths(item, path)]
    return [path]


# -- the provider --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["local", "dev"])
@pytest.mark.usefixtures("local_home")
def test_every_kubernetes_object_belongs_to_the_cluster_that_the_stack_names(
    run_program: Callable[..., Engine], stack: str
) -> None:
    engine = (
        run_program() if stack == "local" else run_program(stack, preview=True, engine=Engine(calls=account(), outputs=OUTPUTS))
    )
    (provider,) = engine.of("pulumi:providers:kubernetes")
    strays = {found.name for found in engine.resources if found.token.startswith("kubernetes:") and found.provider != provider.urn}
    # Without one it would be the cluster of whatever kubeconfig this machine has.
    assert strays == set()


# -- reads ---------------------------------------------------------------------------------------------------------------------


def test_a_read_object_is_asked_for_by_its_id_alone(run_program: Callable[..., Engine], local_home: Any) -> None:
    read = [found for found in run_program().resources if found.name.endswith("-ids")]
    assert len(read) == 2
    # The official provider finds no object for a request that names a kind as well.
    assert [dict(found.inputs) for found in read] == [{}, {}]


def test_the_stores_authority_is_read_from_its_secret_and_only_its_certificate_is_passed_on() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n"
    issued = {"ca.crt": base64.b64encode(pem.encode()).decode(), "tls.key": base64.b64encode(b"private").decode()}

    def program() -> None:
        StoreCertificate("store-certificate", StoreCertificateArgs("minio", ("registries",), "services"))

    engine = run(program, Engine(outputs={"kubernetes:core/v1:Secret": {"data": issued}}))
    assert engine.named("Secret", "minio-tls").inputs["stringData"] == {"ca.crt": pem}
    trusted = engine.named("ConfigMap", "minio-ca")
    # A certificate is public: as a secret KServe's mounts could not be previewed.
    assert (trusted.inputs["data"], trusted.secrets) == ({"cabundle.crt": pem}, frozenset())


# -- scripts -------------------------------------------------------------------------------------------------------------------


def test_a_scripts_objects_carry_its_account_and_its_rules_in_its_namespace() -> None:
    engine = run(lambda: ScriptJobs("checker", checker()) and None, Engine())
    role, binding = only(engine, "Role"), only(engine, "RoleBinding")
    assert {found.inputs["metadata"]["namespace"] for found in engine.resources if "metadata" in found.inputs} == {"services"}
    assert role.inputs["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    assert binding.inputs["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role.inputs["metadata"]["name"],
    }
    assert binding.inputs["subjects"] == [{"kind": "ServiceAccount", "name": CHECKER, "namespace": "services"}]
    assert {role.urn, only(engine, "ServiceAccount").urn} <= set(binding.depends_on)


def test_a_script_for_the_whole_cluster_has_a_role_of_the_cluster_and_an_account_of_a_namespace() -> None:
    engine = run(lambda: ScriptJobs("guard", checker(cluster_role="mistral-on-l4-guard")) and None, Engine())
    assert engine.of("Role") == engine.of("RoleBinding") == []
    assert only(engine, "ClusterRole").inputs["metadata"]["name"] == "mistral-on-l4-guard"
    binding = only(engine, "ClusterRoleBinding").inputs
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("ClusterRole", "mistral-on-l4-guard")
    assert "namespace" not in binding["metadata"]
    assert binding["subjects"][0]["namespace"] == "services"


def test_changed_files_are_another_config_map_and_another_program() -> None:
    def config_map(name: str) -> tuple[Any, Any]:
        programs: list[ScriptJobs] = []
        engine = run(lambda: programs.append(ScriptJobs("jobs", checker(sources=sources(name)))), Engine())
        found = only(engine, "ConfigMap").inputs
        assert found["immutable"] is True
        assert programs[0].program.config_map == found["metadata"]["name"]
        return found["metadata"]["name"], found["data"]

    assert config_map("check_service") == config_map("check_service")
    assert config_map("check_service")[0] != config_map("await_volumes")[0]


def test_a_stack_from_before_the_component_keeps_its_scripts_account_and_rights() -> None:
    asked: list[pulumi.ResourceTransformationArgs] = []
    parents: list[pulumi.Resource] = []

    def program() -> None:
        parents.append(pulumi.ComponentResource("mistral-on-l4:weights:WeightsSeeder", "seeder"))
        watch = pulumi.ResourceOptions(parent=parents[0], transformations=[lambda args: asked.append(args)])
        ScriptJobs("seeder", checker(), watch)

    run(program, Engine())
    children = [args.opts for args in asked if args.type_.startswith("kubernetes:")]
    assert len(children) == 4
    for opts in children:
        # Under another URN Pulumi would make the object again and then delete the one of that name, which is the same.
        assert [alias.parent for alias in opts.aliases if isinstance(alias.parent, pulumi.Resource)] == parents
