"""Every policy against recorded previews: it passes the shipped stacks, and reports the one thing that was broken."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pulumi_policy import EnforcementLevel, StackValidationArgs, StackValidationPolicy, deserialize

import policies
from mistral_on_l4.config.names import DECLARATION
from mistral_on_l4.config.traits import PlatformName
from policies import conformity
from policies.confidential import entropy, looks_random, secret_in
from policies.exposure import everywhere
from policies.listing import listing
from policies.offline import Declared, Recording, analyze, as_the_engine_shows
from policies.pack import POLICIES
from policies.reading import UNKNOWN, at, plain
from policies.rule import Resource, Stack, forget_inputs
from policies.served import ServedStack, declared_platform, planned

sys.path.insert(0, str(Path(__file__).parent))

from violations import _UNKNOWN, VIOLATIONS, Violation, engine

STACKS = ("local", "dev", "rhoai")
BY_NAME = {policy.name: policy for policy in POLICIES}


@pytest.mark.parametrize("stack", STACKS)
def test_a_shipped_stack_passes_with_no_policy_disabled(recorded: Callable[[str], Recording], stack: str) -> None:
    mandatory = [finding for finding in analyze(recorded(stack)) if finding.mandatory]
    assert mandatory == []


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda found: f"{found.policy}: {found.label}")
def test_a_broken_stack_is_reported_by_its_policy(broken: Callable[..., Recording], violation: Violation) -> None:
    changed = broken(violation.stack, violation.kind, violation.name, violation.change)
    found = analyze(changed, [BY_NAME[violation.policy]])
    assert any(violation.says in finding.message for finding in found), found
    assert all("Fix: " in finding.message for finding in found)


def test_every_policy_has_a_violating_fixture_and_says_why_and_how_to_fix_it() -> None:
    assert {violation.policy for violation in VIOLATIONS} == set(BY_NAME)
    for policy in POLICIES:
        assert policy.description.endswith(".")
        assert policy.remediation_steps
        assert policy.severity is not None
        assert policy.enforcement_level is not None


def test_an_engine_with_every_known_fix_is_not_named_and_others_images_are_none(
    recorded: Callable[[str], Recording], broken: Callable[..., Recording]
) -> None:
    others = "quay.io/others/engine:v0.1.0"
    changed = broken("dev", "ServingRuntime", "vllm-mistral-runtime", lambda props: engine(props).update(image=others))
    for recording in (recorded("dev"), changed):
        assert analyze(recording, [BY_NAME["engine-has-no-known-advisories"]]) == []


def test_the_packs_readme_lists_the_policies_as_they_are() -> None:
    assert Path(policies.__file__).with_name("README.md").read_text() == listing()


def test_a_stack_that_drops_its_store_is_told_what_it_would_lose(without: Callable[..., Recording]) -> None:
    found = analyze(without("dev", "StatefulSet", "minio"), [BY_NAME["kept-data-stays"]])
    assert [finding.mandatory for finding in found] == [True]
    assert "MinIO" in found[0].message


def test_a_stack_that_drops_the_registrys_database_is_told_so(without: Callable[..., Recording]) -> None:
    found = analyze(without("dev", "PersistentVolumeClaim", "registry-data"), [BY_NAME["kept-data-stays"]])
    assert "no database of its own" in found[0].message


def test_a_service_without_any_network_policy_is_named(without: Callable[..., Recording]) -> None:
    found = analyze(without("dev", "NetworkPolicy", "inference-clients"), [BY_NAME["services-are-behind-a-network-policy"]])
    assert {finding.message.partition(":")[0] for finding in found} == {
        "InferenceService mistral-24b-full",
        "InferenceService mistral-24b-fp8",
    }


def test_what_is_unknown_in_a_preview_is_neither_judged_nor_hides_the_rest(broken: Callable[..., Recording]) -> None:
    def unknown_image_and_root_user(props: Any) -> None:
        container = props["spec"]["template"]["spec"]["containers"][0]
        container["image"] = _UNKNOWN
        container["securityContext"]["runAsUser"] = 0

    found = analyze(broken("local", "Deployment", "private-ai-registry", unknown_image_and_root_user))
    assert [finding.policy for finding in found if finding.mandatory] == [
        "containers-run-as-non-root",
        "values-follow-the-settings",
    ]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("stack", STACKS)
def test_a_preview_in_which_everything_is_unknown_is_not_judged(
    recorded: Callable[[str], Recording], stack: str, depth: int
) -> None:
    def hidden(value: Any, depth: int) -> Any:
        if depth == 0:
            return _UNKNOWN
        if isinstance(value, dict) and deserialize.SPECIAL_SIG_KEY not in value:
            return {key: hidden(item, depth - 1) if key != "metadata" else item for key, item in value.items()}
        return _UNKNOWN

    recording = recorded(stack)
    resources = tuple(
        dataclasses.replace(found, props=hidden(dict(found.props), depth)) if found.token.startswith("kubernetes:") else found
        for found in recording.resources
    )
    changed = dataclasses.replace(recording, resources=resources)
    assert [finding for finding in analyze(changed) if finding.mandatory] == []


@pytest.mark.parametrize(
    ("default_tags", "own", "all_tags", "says"),
    [
        # A program on mocks shows what it declared, and its provider.
        ({"owner": "me", "expires": "2099-01-01", "mistral-on-l4:stack": "dev"}, {"Name": "net"}, None, None),
        ({"owner": "me", "mistral-on-l4:stack": "dev"}, {"expires": "2099-01-01"}, None, None),
        ({"owner": "me", "expires": "2099-01-01"}, {"Name": "net"}, None, "no tag mistral-on-l4:stack"),
        ({"owner": "me", "expires": "2099-01-01", "mistral-on-l4:stack": "dev"}, {"expires": ""}, None, "no tag expires"),
        (None, {"Name": "net"}, None, "no tag owner, expires, mistral-on-l4:stack"),
        # A preview shows what the plugin made of both, and only that counts.
        ({}, {}, {"owner": "me", "expires": "2099-01-01", "mistral-on-l4:stack": "dev"}, None),
        ({"owner": "me", "expires": "2099-01-01", "mistral-on-l4:stack": "dev"}, {}, {"owner": "me"}, "no tag expires, mistral-on"),
        ({"owner": "me", "expires": "2099-01-01", "mistral-on-l4:stack": "dev"}, {}, _UNKNOWN, None),
        (_UNKNOWN, {"Name": "net"}, None, None),
    ],
)
def test_default_tags_of_the_provider_count_and_one_that_is_missing_is_named(
    default_tags: Any, own: Any, all_tags: Any, says: str | None
) -> None:
    urn = "urn:pulumi:dev::p::pulumi:providers:aws::eks-aws"
    # As an explicit provider is shown: its nested inputs are JSON text.
    given = default_tags if default_tags in (None, _UNKNOWN) else json.dumps({"tags": default_tags})
    provider = Declared(
        "pulumi:providers:aws", "eks-aws", urn, {"region": "us-east-1", **({"defaultTags": given} if given else {})}
    )
    props = {"cidrBlock": "10.0.0.0/16", "tags": own, **({"tagsAll": all_tags} if all_tags else {})}
    network = Declared("aws:ec2/vpc:Vpc", "net", "urn:pulumi:dev::p::aws:ec2/vpc:Vpc::net", props, provider=urn)
    found = analyze(Recording("dev", (provider, network)), [BY_NAME["aws-resources-are-tagged"]])
    assert bool(found) == (says is not None)
    assert says is None or says in found[0].message


def test_a_resource_of_an_unknown_kind_passes(recorded: Callable[[str], Recording]) -> None:
    strange = Declared(
        "cloudy:weather/v9:Rainbow", "arc", "urn:pulumi:dev::p::cloudy:weather/v9:Rainbow::arc", {"colors": [1, None, "x"]}
    )
    recording = recorded("dev")
    assert analyze(dataclasses.replace(recording, resources=(strange,))) == []


def test_the_first_preview_of_a_stack_that_makes_its_own_cluster_is_judged_by_inputs(recorded: Callable[[str], Recording]) -> None:
    """Kubernetes objects have no outputs yet then, and outputs are all that the engine shows to stack policies."""
    recording = recorded("dev")
    forget_inputs()
    analyze(recording)
    stack = as_the_engine_shows(recording)
    for resource in stack:
        resource.props = {}
    reported: list[str] = []
    for policy in POLICIES:
        if isinstance(policy, StackValidationPolicy) and policy.enforcement_level is EnforcementLevel.MANDATORY:
            settings = {"elsewhere": ["ServiceAccount/default"]} if policy.name == "references-exist" else {}
            policy.validate(StackValidationArgs(stack, settings), lambda text, urn=None: reported.append(text))
    assert reported == []


def told(recording: Recording, change: Callable[[dict[str, Any]], None] | None) -> Recording:
    """The recording with other settings handed over; None: with none."""
    resources = [found for found in recording.resources if found.token != DECLARATION]
    for found in recording.resources:
        if found.token == DECLARATION and change is not None:
            props = copy.deepcopy(dict(found.props))
            change(props["settings"])
            resources.append(dataclasses.replace(found, props=props))
    return dataclasses.replace(recording, resources=tuple(resources))


def test_settings_of_a_policy_change_its_limit(recorded: Callable[[str], Recording]) -> None:
    budget = BY_NAME["stack-within-budget"]
    assert analyze(recorded("dev"), [budget]) == []
    (found,) = analyze(recorded("dev"), [budget], {"stack-within-budget": {"maxHourlyUsd": 3}})
    assert "more than $3.00" in found.message


def test_the_budget_is_the_stacks_own_unless_a_policy_setting_says_otherwise(recorded: Callable[[str], Recording]) -> None:
    cheaper = told(recorded("dev"), lambda settings: settings["budget"].update(maxHourlyUsd=5))
    (found,) = analyze(cheaper, [BY_NAME["stack-within-budget"]])
    assert "more than $5.00" in found.message


def test_the_fit_is_recomputed_from_the_manifests_and_not_believed(broken: Callable[..., Recording]) -> None:
    """The configuration still says what fits; only the manifest asks for a context that the model does not know."""

    def longer(props: Any) -> None:
        args = props["spec"]["predictor"]["model"]["args"]
        args[args.index("--max-model-len") + 1] = "262144"

    recording = broken("dev", "InferenceService", "mistral-24b-full", longer)
    (found,) = analyze(recording, [BY_NAME["services-fit-their-pool"]])
    assert found.message.startswith("InferenceService mistral-24b-full does not fit 4x L4: User-specified max_model_len (262144)")
    assert str(found.urn).endswith("::mistral-24b-full-service")


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_that_hands_no_settings_over_is_planned_from_its_manifests_and_refused(
    recorded: Callable[[str], Recording], stack: str
) -> None:
    found = {finding.policy for finding in analyze(told(recorded(stack), None)) if finding.mandatory}
    assert found == {"stack-declares-its-settings"}


def test_the_budget_comes_from_no_environment(recorded: Callable[[str], Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    """PULUMI_CONFIG is set by no engine that the pack has met."""
    monkeypatch.setenv(
        "PULUMI_CONFIG", json.dumps({"mistral-on-l4:platform": "eks", "mistral-on-l4:budget": '{"maxHourlyUsd": 1}'})
    )
    assert analyze(recorded("dev"), [BY_NAME["stack-within-budget"]]) == []


def declaring(token: str, **props: Any) -> Resource:
    return Resource(token, "it", f"urn:pulumi:x::p::{token}::it", props)


NODE = declaring("kubernetes:core/v1:Node", metadata={"labels": {"mistral-on-l4/simulated": "true"}})
JOB = declaring("kubernetes:batch/v1:Job", metadata={"name": "seed"})


@pytest.mark.parametrize(
    ("resources", "platform"),
    [
        ([JOB, NODE], PlatformName.LOCAL),
        ([JOB, NODE, declaring("aws:eks/nodeGroup:NodeGroup")], PlatformName.EKS),
        ([JOB, declaring("kubernetes:machine.openshift.io/v1beta1:MachineSet")], PlatformName.OPENSHIFT),
        ([JOB, declaring("kubernetes:route.openshift.io/v1:Route")], PlatformName.OPENSHIFT),
        ([JOB, declaring("kubernetes:core/v1:Node", metadata={"labels": {}})], None),
        ([JOB], None),
    ],
)
def test_without_configuration_the_platform_is_what_the_resources_give_away(
    resources: list[Resource], platform: PlatformName | None
) -> None:
    assert declared_platform(Stack(tuple(resources))) is platform


@pytest.mark.parametrize(
    ("platform", "judged"),
    [(None, True), ("openshift", True), ("local", False)],
)
def test_a_stack_without_aws_resources_is_not_taken_for_one_of_small_checkpoints(
    broken: Callable[..., Recording], platform: str | None, judged: bool
) -> None:
    def smaller(props: Any) -> None:
        props["spec"]["resources"]["requests"]["storage"] = "10Gi"

    recording = broken("dev", "PersistentVolumeClaim", "store-data", smaller)
    adopted = tuple(found for found in recording.resources if not found.token.startswith("aws:"))
    change = (lambda settings: settings.update(platform=platform)) if platform else None
    found = analyze(told(dataclasses.replace(recording, resources=adopted), change), [BY_NAME["store-holds-its-checkpoints"]])
    assert ["10 GiB for checkpoints of 67 GiB" in finding.message for finding in found] == ([True] if judged else [])


def test_the_services_of_the_manifests_are_planned_and_not_the_defaults(without: Callable[..., Recording]) -> None:
    """Settings that are read from a file are merged over the defaults; what is declared is all there is."""
    stack = Stack(
        tuple(
            Resource(found.token, found.name, found.urn, found.props)
            for found in without("dev", "InferenceService", "mistral-24b-full").resources
        )
    )
    plan = planned(ServedStack(stack))
    assert plan is not None
    assert [service.name for service in plan.services] == ["mistral-24b-fp8"]


def test_a_number_that_the_engine_reads_from_the_next_word_is_shown_as_written(broken: Callable[..., Recording]) -> None:
    def minus_one(props: Any) -> None:
        args = props["spec"]["predictor"]["model"]["args"]
        args[args.index("--max-model-len") + 1] = "-1"

    (found,) = analyze(broken("dev", "InferenceService", "mistral-24b-full", minus_one), [BY_NAME["services-fit-their-pool"]])
    assert "services.mistral-24b-full.maxModelLen: input should be greater than or equal to 256, got -1" in found.message


def test_weights_that_come_from_elsewhere_are_named_as_what_nobody_seeds(broken: Callable[..., Recording]) -> None:
    def volume(props: Any) -> None:
        model = props["spec"]["predictor"]["model"]
        del model["storage"]
        model["storageUri"] = "pvc://weights/mistral-24b"

    recording = broken("dev", "InferenceService", "mistral-24b-full", volume)
    found = [finding.message for finding in analyze(recording) if finding.mandatory]
    assert any("loads pvc://weights/mistral-24b, which no Job of the stack seeds" in message for message in found)
    assert not any("must end with '/'" in message for message in found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEIGHTS_REVISION", "9527884be6e5616bdd54de542f9ae13384489724"),
        ("IMAGE", "quay.io/minio/minio:X@sha256:14cea493d9a34af32f524e538b8346cf79f3321eff8e708c1e2960462bd8936e"),
        ("REGISTRY_URL", "http://private-ai-registry-internal.rhoai-model-registries.svc:8080"),
        ("--max-num-batched-tokens", "2048"),
        ("AWS_SECRET_ACCESS_KEY", "$(FROM_ELSEWHERE)"),
        ("PYTHONPATH", "/opt/app-root/lib/python3.11/site-packages:/usr/lib64/python3.11"),
        ("JOB_NAME", "register-mistral-24b-full-3f87faed5f"),
        ("mistral-on-l4/weights", "mistralai/Mistral-Small-24B-Instruct-2501@9527884be6e5616bdd54de542f9ae13384489724"),
        ("REGISTRATION", '{"revision": "9527884be6e5616bdd54de542f9ae13384489724", "tokens": 8192}'),
        ("REGISTRATION", '{"description": "Revision 9527884be6e5616bdd54de542f9ae13384489724 of a model"}'),
    ],
)
def test_what_only_looks_secret_is_let_through(name: str, value: str) -> None:
    assert secret_in(name, value) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("POSTGRES_PASSWORD", "postgres"),
        ("DSN", "postgresql://registry:hunter2@postgres:5432/registry"),
        ("EXTRA", "AKIAIOSFODNN7EXAMPLE"),
        ("EXTRA", "c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a3960714caef0c4f2"),
        ("REGISTRATION", '{"store": [{"secretKey": "hunter2"}]}'),
        ("EXTRA", "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZg8hQ2"),
    ],
)
def test_what_is_secret_is_found_by_name_form_or_entropy(name: str, value: str) -> None:
    assert secret_in(name, value)


@pytest.mark.parametrize(
    ("cidr", "open_to_all"),
    [
        ("0.0.0.0/0", True),
        ("128.0.0.0/1", True),
        ("2000::/3", True),
        ("10.0.0.0/8", False),
        ("203.0.113.7/32", False),
        ("fd00::/48", False),
        (UNKNOWN, False),
        ("nonsense", False),
    ],
)
def test_halves_of_the_internet_are_the_internet(cidr: Any, open_to_all: bool) -> None:
    assert everywhere(cidr) is open_to_all


def test_what_controllers_or_others_make_is_not_missed(broken: Callable[..., Recording]) -> None:
    """The keys of a Secret that is not known yet, EKS's own class, and an image of one's own say nothing."""

    def hide(props: Any) -> None:
        props["stringData"] = _UNKNOWN

    def old_class(props: Any) -> None:
        props["spec"]["storageClassName"] = "gp2"

    changes = [("Secret", "vllm-api-key", hide), ("PersistentVolumeClaim", "store-data", old_class)]
    changes += [("NodeGroup", "pool-l4-1gpu", lambda props: props.update(amiType="CUSTOM"))]
    for kind, name, change in changes:
        found = analyze(broken("dev", kind, name, change), [policy for policy in POLICIES if policy not in conformity.POLICIES])
        assert [finding for finding in found if finding.mandatory] == []


def test_ordinary_words_have_less_entropy_than_keys() -> None:
    assert entropy("mistral-small-24b-instruct-2501") < entropy("Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZg8hQ2")
    assert not looks_random("RedHatAI/Mistral-Small-24B-Instruct-2501-quantized.w4a16")


def test_proxies_become_plain_data_with_unknowns_marked() -> None:
    from pulumi_policy.proxy import unknown_checking_proxy

    props = plain(unknown_checking_proxy({"spec": {"replicas": 2.0, "image": _UNKNOWN, "args": ["--a", _UNKNOWN]}}))
    assert at(props, "spec", "replicas") == 2
    assert at(props, "spec", "image") is UNKNOWN
    assert at(props, "spec", "image", "deeper") is UNKNOWN
    assert at(props, "spec", "missing") is None
    assert props["spec"]["args"] == ["--a", UNKNOWN]
