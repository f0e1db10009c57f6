"""The IAM policies of docs/aws.md: real actions, and all that the program and the commands call."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from embedded.plugins.aws.kinds import KINDS

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "aws.md"
SERVICES = {"elasticloadbalancing": "elbv2", "servicequotas": "service-quotas"}
# Permissions that no call is named after.
NOT_CALLS = {"iam:PassRole"}
# What a create is made of, by resource type; enough inputs to see its calls.
SAMPLES: dict[str, dict[str, Any]] = {
    "aws:ec2/vpc:Vpc": {"cidrBlock": "10.0.0.0/16", "enableDnsSupport": True},
    "aws:ec2/routeTable:RouteTable": {"vpcId": "vpc-0", "routes": [{"cidrBlock": "0.0.0.0/0", "gatewayId": "igw-0"}]},
}


def actions(name: str) -> set[str]:
    (text,) = re.findall(rf"```json {name}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return {action for statement in json.loads(text)["Statement"] for action in statement["Action"]}


@pytest.mark.parametrize("policy", ["deployer", "reader"])
def test_every_action_is_one_of_awss_and_none_is_a_wildcard(policy: str) -> None:
    session = botocore.session.get_session()
    for action in actions(policy) - NOT_CALLS:
        service, _, operation = action.partition(":")
        known = session.get_service_model(SERVICES.get(service, service)).operation_names
        assert operation in known, action


def test_the_deployer_may_call_what_every_resource_of_the_program_is_created_by() -> None:
    allowed = actions("deployer")
    called = {f"{service}:{name}" for kind in KINDS.values() for service, name, _ in kind.calls(SAMPLES.get(kind.token, {}))}
    assert len(called) > 15
    assert called <= allowed


def test_the_reader_may_only_read() -> None:
    assert {action.partition(":")[2] for action in actions("reader")} == {
        name for name in (action.partition(":")[2] for action in actions("reader")) if name.startswith(("Get", "List", "Describe"))
    }
