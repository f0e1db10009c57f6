"""What the program passes to AWS, checked against AWS's own model; and the check itself."""

from __future__ import annotations

import re
from typing import Any

import botocore.session
import pytest

from embedded.plugins.aws.kinds import KINDS
from embedded.plugins.aws.kinds.cluster import ADDONS
from embedded.plugins.aws.service_model import problems
from embedded.plugins.values import UNKNOWN
from mistral_on_l4.aws.replacements import REPLACED_BY

GROUP = {
    "clusterName": "c",
    "nodegroupName": "g",
    "nodeRole": "arn:aws:iam::000000000000:role/r",
    "subnets": ["subnet-1"],
    "amiType": "AL2023_x86_64_NVIDIA",
    "capacityType": "SPOT",
    "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}],
}


def test_a_call_as_aws_wants_it_has_no_problems() -> None:
    assert problems(("eks", "CreateNodegroup", GROUP)) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"amiType": "AL2023_X86_64_NVIDIA"}, "amiType is 'AL2023_X86_64_NVIDIA', and AWS knows"),
        ({"capacityType": "spot"}, "capacityType is 'spot'"),
        ({"taints": [{"key": "a", "effect": "NoSchedule"}]}, r"taints\[0\]\.effect is 'NoSchedule'"),
        ({"nodeRole": None}, "nodeRole is required"),
        ({"subnets": "subnet-1"}, "subnets must be a list"),
        ({"diskSise": 20}, "has no member 'diskSise'"),
        ({"diskSize": "20"}, "diskSize must be a number"),
    ],
)
def test_what_aws_would_not_take_is_named_by_its_place(change: dict[str, Any], says: str) -> None:
    found = problems(("eks", "CreateNodegroup", {**GROUP, **change}))
    assert len(found) == 1
    assert re.search(says, found[0])


def test_values_that_a_preview_does_not_know_are_no_problem() -> None:
    assert problems(("eks", "CreateNodegroup", {**GROUP, "nodeRole": UNKNOWN, "subnets": [UNKNOWN]})) == []


def test_names_are_held_to_awss_patterns_and_lengths() -> None:
    assert "must match" in problems(("iam", "CreateRole", {"RoleName": "a b", "AssumeRolePolicyDocument": "{}"}))[0]
    assert "takes at most 64" in problems(("iam", "CreateRole", {"RoleName": "a" * 65, "AssumeRolePolicyDocument": "{}"}))[0]


@pytest.mark.parametrize(
    ("service", "shape", "values"),
    [
        ("eks", "AMITypes", {"AL2023_x86_64_NVIDIA", "AL2023_x86_64_STANDARD"}),
        ("eks", "CapacityTypes", {"ON_DEMAND", "SPOT"}),
        ("eks", "TaintEffect", {"NO_SCHEDULE"}),
        ("eks", "AuthenticationMode", {"API"}),
        ("eks", "SupportType", {"STANDARD"}),
        ("eks", "ResolveConflicts", {"OVERWRITE"}),
        ("eks", "AccessScopeType", {"cluster"}),
        ("ec2", "VolumeType", {"gp3"}),
        ("ec2", "LaunchTemplateHttpTokensState", {"required"}),
        ("ec2", "VpcEndpointType", {"Gateway"}),
        ("ec2", "DomainType", {"vpc"}),
    ],
)
def test_every_word_that_the_program_passes_is_one_of_awss(service: str, shape: str, values: set[str]) -> None:
    model = botocore.session.get_session().get_service_model(service)
    assert values <= set(model.shape_for(shape).enum)


def test_the_stand_in_knows_the_add_ons_and_types_that_the_program_declares_and_claims_no_unknown_replacements() -> None:
    assert {"vpc-cni", "kube-proxy", "coredns", "aws-ebs-csi-driver", "eks-pod-identity-agent"} == ADDONS
    assert set(REPLACED_BY) == set(KINDS)
    for token, kind in KINDS.items():
        assert REPLACED_BY[token] <= kind.known, token
