"""Tokens for EKS, the size of pools, and node group problems in words."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.stub import Stubber
from typer.testing import CliRunner

from embedded.home import LocalHome
from embedded.plugins.aws import LEDGER_VARIABLE
from mistral_on_l4.aws.nodegroup_problems import explain
from mistral_on_l4.aws.session import AwsTrouble, session
from mistral_on_l4.aws.token import token_status
from mistral_on_l4.cli import Failure, app
from mistral_on_l4.cli.eks_token import app as eks_token_app
from mistral_on_l4.cli.park import costs, resize_pools, wanted_sizes
from mistral_on_l4.cluster.local import NoLocalStack, rehearsed_credential
from mistral_on_l4.config.settings import settings_from

SESSION = boto3.Session("AKIAEXAMPLE", "not-a-real-secret", "a-session-token", region_name="us-east-1")
SETTINGS = settings_from({"platform": "eks"}, "test")


# -- tokens ------------------------------------------------------------------------------------------------------------------


def test_a_token_is_a_signed_question_to_sts_for_this_cluster_alone_and_lives_14_minutes() -> None:
    status = token_status(SESSION, "a-cluster", "us-east-1", datetime(2026, 11, 25, 12, 0, tzinfo=UTC))
    assert status["expirationTimestamp"] == "2026-11-25T12:14:00Z"
    prefix, _, text = status["token"].partition(".")
    assert prefix == "k8s-aws-v1"
    url = urlsplit(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    asked = parse_qs(url.query)
    assert url.hostname == "sts.us-east-1.amazonaws.com"
    assert asked["Action"] == ["GetCallerIdentity"]
    assert asked["X-Amz-SignedHeaders"] == ["host;x-k8s-aws-id"]
    assert asked["X-Amz-Expires"] == ["60"]
    assert "not-a-real-secret" not in url.geturl()
    other = token_status(SESSION, "another", "us-east-1", datetime(2026, 11, 25, 12, 0, tzinfo=UTC))
    assert other["token"] != status["token"]


def test_a_token_without_credentials_says_how_to_get_some() -> None:
    class Nobody:
        def get_credentials(self) -> None:
            return None

    with pytest.raises(AwsTrouble, match="no AWS credentials: `aws configure sso`"):
        token_status(Nobody(), "a-cluster", "us-east-1")


@pytest.fixture
def two_signers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment, and others in a profile."""
    (tmp_path / "config").write_text("[profile demo-admin]\nregion = us-east-1\n")
    (tmp_path / "credentials").write_text(
        "[demo-admin]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = not-a-real-secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-secret")
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", LEDGER_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("two_signers")
@pytest.mark.parametrize(("options", "key"), [([], "AKIAENVIRONMENT"), (["--profile", "demo-admin"], "AKIAPROFILE")])
def test_the_profile_of_the_command_signs_and_without_one_the_environment_does(options: list[str], key: str) -> None:
    said = CliRunner().invoke(eks_token_app, ["--cluster", "a-cluster", "--region", "us-east-1", *options])
    token = json.loads(said.stdout)["status"]["token"].partition(".")[2]
    url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    assert parse_qs(url.query)["X-Amz-Credential"][0].startswith(f"{key}/")


@pytest.mark.usefixtures("two_signers")
def test_a_profile_that_is_not_there_is_named() -> None:
    with pytest.raises(AwsTrouble, match=r"no-such-profile.*`aws configure list-profiles` lists those there are"):
        session("us-east-1", "no-such-profile")


@pytest.mark.parametrize("command", ["doctor", "park", "unpark", "sweep"])
def test_the_profile_of_the_stacks_file_signs_for_every_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: mistral-on-l4\n")
    (tmp_path / "Pulumi.dev.yaml").write_text(
        "config:\n  aws:profile: not-there\n  mistral-on-l4:platform: eks\n  mistral-on-l4:hub: {endpoint: http://127.0.0.1:1}\n"
    )
    monkeypatch.chdir(tmp_path)
    # Others' credentials, which would sign for another principal without a word.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-secret")
    done = CliRunner().invoke(app, [command, "--stack", "dev"])
    assert done.exit_code == 1
    assert "not-there" in f"{done.output}{done.exception}"


def test_a_rehearsed_cluster_takes_the_embedded_administrators_certificate_and_no_other_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISTRAL_ON_L4_HOME", str(tmp_path))
    home = LocalHome.default()
    home.make()
    for name in ("crt", "key"):
        (home.pki / f"admin.{name}").write_text(f"a {name}")
    ledger = tmp_path / "account.json"
    ledger.write_text(json.dumps({"resources": {"dev": {"kind": "cluster"}, "other": {"kind": "vpc"}}}))
    monkeypatch.setenv(LEDGER_VARIABLE, str(ledger))
    assert rehearsed_credential("dev") == {"clientCertificateData": "a crt", "clientKeyData": "a key"}
    with pytest.raises(NoLocalStack, match="has no cluster 'other'"):
        rehearsed_credential("other")
    monkeypatch.delenv(LEDGER_VARIABLE)
    assert rehearsed_credential("dev") is None


# -- pools -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def eks() -> Any:
    client = SESSION.client("eks")
    with Stubber(client) as stub:
        client.stub = stub
        yield client


def group(name: str, pool: str | None, status: str = "ACTIVE", stack: str = "dev", **more: Any) -> dict[str, Any]:
    labels = {"mistral-on-l4/pool": pool} if pool else {}
    return {
        "nodegroup": {"nodegroupName": name, "status": status, "labels": labels, "tags": {"mistral-on-l4:stack": stack}, **more}
    }


def test_parking_sets_every_gpu_pool_to_zero_and_no_other_group(eks: Any) -> None:
    eks.stub.add_response("list_nodegroups", {"nodegroups": ["system-1", "l4-1gpu-1", "l4-4gpu-1", "foreign"]})
    for name, pool in (("system-1", "system"), ("l4-1gpu-1", "l4-1gpu"), ("l4-4gpu-1", "l4-4gpu"), ("foreign", None)):
        eks.stub.add_response("describe_nodegroup", group(name, pool), {"clusterName": "c", "nodegroupName": name})
    for name in ("l4-1gpu-1", "l4-4gpu-1"):
        scaling = {"minSize": 0, "desiredSize": 0, "maxSize": 1}
        asked = {"clusterName": "c", "nodegroupName": name, "scalingConfig": scaling}
        eks.stub.add_response("update_nodegroup_config", {"update": {}}, asked)
    for name in ("l4-1gpu-1", "l4-4gpu-1"):
        eks.stub.add_response("describe_nodegroup", group(name, None), {"clusterName": "c", "nodegroupName": name})
    assert resize_pools(eks, "c", "dev", wanted_sizes(SETTINGS, parked=True)) == {"l4-1gpu-1": 0, "l4-4gpu-1": 0}
    eks.stub.assert_no_pending_responses()


def test_unparking_goes_back_to_the_sizes_of_the_settings() -> None:
    settings = settings_from({"platform": "eks", "pools": {"groups": {"l4-1gpu": {"count": 3}}}}, "test")
    assert wanted_sizes(settings, parked=False) == {"l4-1gpu": 3, "l4-4gpu": 1}


def test_a_pool_without_a_group_is_named_before_anything_is_resized(eks: Any) -> None:
    eks.stub.add_response("list_nodegroups", {"nodegroups": ["l4-1gpu-1"]})
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu"))
    with pytest.raises(Failure, match="no node group of stack dev for pool l4-4gpu: `pulumi up` makes it"):
        resize_pools(eks, "c", "dev", wanted_sizes(SETTINGS, parked=False))


def test_a_pool_that_was_never_made_does_not_keep_the_others_billing(eks: Any) -> None:
    eks.stub.add_response("list_nodegroups", {"nodegroups": ["l4-1gpu-1"]})
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu"))
    eks.stub.add_response("update_nodegroup_config", {"update": {}})
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu"))
    assert resize_pools(eks, "c", "dev", wanted_sizes(SETTINGS, parked=True)) == {"l4-1gpu-1": 0}


def test_pools_of_another_stack_in_the_same_cluster_are_left_alone(eks: Any) -> None:
    eks.stub.add_response("list_nodegroups", {"nodegroups": ["l4-1gpu-1", "l4-1gpu-2"]})
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu"))
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-2", "l4-1gpu", stack="other"))
    scaling = {"minSize": 0, "desiredSize": 0, "maxSize": 1}
    asked = {"clusterName": "c", "nodegroupName": "l4-1gpu-1", "scalingConfig": scaling}
    eks.stub.add_response("update_nodegroup_config", {"update": {}}, asked)
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu"))
    assert resize_pools(eks, "c", "dev", {"l4-1gpu": 0}) == {"l4-1gpu-1": 0}


def test_a_group_that_was_never_made_whole_cannot_be_parked_and_is_named_after_the_others_are(eks: Any) -> None:
    eks.stub.add_response("list_nodegroups", {"nodegroups": ["l4-1gpu-1", "l4-4gpu-1"]})
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu"))
    eks.stub.add_response("describe_nodegroup", group("l4-4gpu-1", "l4-4gpu", "CREATE_FAILED"))
    eks.stub.add_response("update_nodegroup_config", {"update": {}})
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu"))
    with pytest.raises(Failure, match=r"node group l4-4gpu-1 was never made whole .*`pulumi destroy` removes it"):
        resize_pools(eks, "c", "dev", wanted_sizes(SETTINGS, parked=True))
    eks.stub.assert_no_pending_responses()


def test_a_group_that_does_not_settle_is_named_with_its_status(eks: Any) -> None:
    eks.stub.add_response("list_nodegroups", {"nodegroups": ["l4-1gpu-1"]})
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu"))
    eks.stub.add_response("update_nodegroup_config", {"update": {}})
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu", "UPDATING"))
    with pytest.raises(Failure, match="l4-1gpu-1 is still UPDATING after -1 s: the console says why"):
        resize_pools(eks, "c", "dev", {"l4-1gpu": 0}, deadline=-1)


def test_a_group_that_does_not_settle_is_named_with_what_eks_says_of_it(eks: Any) -> None:
    eks.stub.add_response("list_nodegroups", {"nodegroups": ["l4-1gpu-1"]})
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu"))
    eks.stub.add_response("update_nodegroup_config", {"update": {}})
    issue = {"code": "AsgInstanceLaunchFailures", "message": "InsufficientInstanceCapacity - We currently do not have"}
    eks.stub.add_response("describe_nodegroup", group("l4-1gpu-1", "l4-1gpu", "DEGRADED", health={"issues": [issue]}))
    with pytest.raises(Failure, match=r"is still DEGRADED .*InsufficientInstanceCapacity: AWS has no such instance left"):
        resize_pools(eks, "c", "dev", {"l4-1gpu": 1}, deadline=-1)


def test_parking_says_what_goes_on_billing() -> None:
    text = costs(SETTINGS, "dev", parked=True)
    assert text.startswith("parked: $0.")
    assert "instead of $6." in text


# -- node group problems -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        (
            "AsgInstanceLaunchFailures: Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity "
            "than your current vCPU limit of 0 allows",
            "VcpuLimitExceeded",
        ),
        ("AsgInstanceLaunchFailures: InsufficientInstanceCapacity - We currently do not have", "InsufficientInstanceCapacity"),
        ("NodeCreationFailure: Instances failed to join the kubernetes cluster", "NodeCreationFailure"),
        ("Ec2SubnetInvalidConfiguration: gone", "Ec2Subnet"),
    ],
)
def test_a_node_groups_problem_is_told_by_its_most_telling_sign(text: str, sign: str) -> None:
    assert (explain(text) or "").startswith(f"{sign}: ")


@pytest.mark.parametrize(
    "code",
    [
        "AsgInstanceLaunchFailures",
        "InstanceLimitExceeded",
        "InsufficientFreeAddresses",
        "NodeCreationFailure",
        "AccessDenied",
        "Ec2SubnetInvalidConfiguration",
        "Ec2LaunchTemplateInvalidConfiguration",
        "Ec2SecurityGroupDeletionFailure",
        "IamNodeRoleNotFound",
        "PodEvictionFailure",
        "AmiIdNotFound",
        "Ec2InstanceTypeDoesNotExist",
    ],
)
def test_an_issue_code_of_eks_is_explained_by_itself(code: str) -> None:
    assert code in SESSION.client("eks").meta.service_model.shape_for("NodegroupIssueCode").enum
    assert explain(f"{code}: some message")


def test_what_is_no_known_problem_is_not_explained() -> None:
    assert explain("something else went wrong") is None
