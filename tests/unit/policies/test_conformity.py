"""The blueprint: what the program declares passes, and anything else is named."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from mistral_on_l4.config.names import DECLARATION
from policies import conformity
from policies.blueprint import Leaf, Template, leaves, same
from policies.facts import counted
from policies.offline import Declared, Finding, Recording, analyze
from policies.pack import POLICIES

BY_NAME = {policy.name: policy for policy in POLICIES}


def refused(recording: Recording) -> list[Finding]:
    return [finding for finding in analyze(recording, conformity.POLICIES) if finding.mandatory]


def with_more(recording: Recording, token: str, name: str, props: dict[str, Any]) -> Recording:
    more = Declared(token, name, f"urn:pulumi:dev::mistral-on-l4::{token}::{name}", props)
    return dataclasses.replace(recording, resources=(*recording.resources, more))


@pytest.mark.parametrize("stack", ["local", "dev"])
def test_what_the_program_declares_now_is_what_the_blueprint_has(stack: str) -> None:
    """Where this fails, the program declares something new: `make blueprint` writes it down, for review."""
    from bench.mutation.preview import record, shipped

    assert [finding.message for finding in refused(record(stack, shipped(stack)))] == []


@pytest.mark.parametrize(
    ("token", "props"),
    [
        ("aws:lb/loadBalancer:LoadBalancer", {"internal": False}),
        ("kubernetes:gateway.networking.k8s.io/v1alpha2:TCPRoute", {"metadata": {"name": "more"}}),
        ("kubernetes:core/v1:Pod", {"metadata": {"name": "more"}, "spec": {"containers": []}}),
        ("command:local:Command", {"create": "curl"}),
        ("pulumi:providers:aws", {"region": "us-east-1"}),
    ],
)
def test_a_resource_that_nobody_foresaw_is_refused_and_a_setting_allows_it(
    recorded: Callable[[str], Recording], token: str, props: dict[str, Any]
) -> None:
    recording = with_more(recorded("dev"), token, "more", props)
    (found,) = refused(recording)
    assert "declares no such" in found.message
    allowed = {"resources-are-known": {"also": [".*/more"]}}
    assert analyze(recording, [BY_NAME["resources-are-known"]], allowed) == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [("NetworkPolicy", "inference-clients"), ("PersistentVolumeClaim", "store-data"), ("Addon", "addons-network-vpc-cni")],
)
def test_what_every_stack_has_is_missed_where_it_is_not(without: Callable[..., Recording], kind: str, name: str) -> None:
    missing = without("dev", kind, name)
    always = kind != "Addon" and name != "store-data"
    assert any("is not declared" in finding.message for finding in refused(missing)) is always


def test_a_service_without_its_edges_is_named_with_what_it_no_longer_waits_for(recorded: Callable[[str], Recording]) -> None:
    recording = recorded("dev")
    resources = tuple(
        dataclasses.replace(found, depends_on=()) if found.name == "mistral-24b-full" else found for found in recording.resources
    )
    messages = [finding.message for finding in refused(dataclasses.replace(recording, resources=resources))]
    assert any("no longer depends on Job mistral-24b-seed" in message for message in messages)
    assert not any("mistral-24b-fp8-seed" in message for message in messages)


def test_a_protected_resource_is_named_and_a_setting_allows_it(recorded: Callable[[str], Recording]) -> None:
    recording = recorded("dev")
    resources = tuple(
        dataclasses.replace(found, protect=True) if found.name == "store-data" else found for found in recording.resources
    )
    (found,) = refused(dataclasses.replace(recording, resources=resources))
    assert "is protected" in found.message


def test_a_value_that_looks_secret_is_not_printed(broken: Callable[..., Recording]) -> None:
    key = "Zk3TqX9vB2mL7wR5nH8dQ1"
    changed = broken("dev", "Service", "minio", lambda props: props["spec"].update(type=key))
    (found,) = refused(changed)
    assert key not in found.message


def test_settings_that_name_other_things_are_followed(recorded: Callable[[str], Recording]) -> None:
    """The recording still says the old bucket everywhere."""
    recording = recorded("dev")
    resources = []
    for found in recording.resources:
        props = copy.deepcopy(dict(found.props))
        if found.token == DECLARATION:
            props["settings"]["objectStore"]["bucket"] = "another-bucket"
        resources.append(dataclasses.replace(found, props=props))
    messages = [finding.message for finding in refused(dataclasses.replace(recording, resources=tuple(resources)))]
    assert any("WEIGHTS_BUCKET" in message and "'another-bucket'" in message for message in messages)


def test_leaves_go_by_name_and_pass_over_what_a_provider_fills_in() -> None:
    inputs = {"a": [{"name": "x", "v": 1}, {"name": "x", "v": 2}], "b": ["p", "q"], "c": {"d": 3, "e": 4, "__defaults": ["e"]}}
    assert dict(leaves(inputs)) == {"a[x].name": "x", "a[x].v": 1, "a[x#2].name": "x", "a[x#2].v": 2, "b": ["p", "q"], "c.d": 3}


def test_a_template_stands_for_its_facts_and_for_nothing_where_one_is_missing() -> None:
    facts = {"stack": "dev", "names": ["a", "b"]}
    assert Template("x-{stack}").expand(facts) == "x-dev"
    assert Template("{names}").expand(facts) == ["a", "b"]
    assert Template("{missing}-x").expand(facts) is None
    assert Leaf("", [Template("{names.n}")]).admits("b", counted(facts, 1))


def test_numbers_are_the_same_however_the_wire_has_them() -> None:
    assert same(4, 4.0)
    assert same("4", 4)
    assert not same(True, 1)
