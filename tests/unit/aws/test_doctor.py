"""The doctor on recorded answers: botocore's Stubber checks each of them, and each question, against AWS's own model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, date, datetime
from io import StringIO
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from mistral_on_l4.aws import quotas
from mistral_on_l4.aws.doctor import Doctor, Finding
from mistral_on_l4.config.settings import settings_from
from mistral_on_l4.planner import plan_stack
from mistral_on_l4.planner.catalogue import load_catalogue

TODAY = date(2026, 11, 25)
SERVICES = ("sts", "ec2", "service-quotas", "eks")
SESSION = boto3.Session("AKIAEXAMPLE", "not-a-real-secret", region_name="us-east-1")


class Account:
    """Stubbed clients, made once: loading AWS's models is what costs."""

    def __init__(self) -> None:
        self.clients = {name: SESSION.client(name) for name in SERVICES}
        self.stubs = {name: Stubber(found) for name, found in self.clients.items()}

    def answer(self, service: str, operation: str, response: dict[str, Any], asked: dict[str, Any] | None = None) -> None:
        self.stubs[service].add_response(operation, response, asked)

    def refuse(self, service: str, operation: str, code: str, message: str = "") -> None:
        self.stubs[service].add_client_error(operation, code, message)

    def __call__(self, service: str) -> Any:
        return self.clients[service]


@pytest.fixture
def account() -> Any:
    found = Account()
    for stub in found.stubs.values():
        stub.activate()
    return found


def doctor(account: Account, hub: Callable[[str], Any] = lambda _: None, **config: Any) -> Doctor:
    values: dict[str, Any] = {"platform": "eks", "tags": {"owner": "us", "expires": "2027-01-31"}, **config}
    settings = settings_from(values, "test")
    catalogue = load_catalogue()
    return Doctor("dev", "mistral-on-l4-dev", settings, plan_stack(settings, stack="dev"), catalogue, account, hub, TODAY)


def offerings(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {
        "InstanceTypeOfferings": [
            {"InstanceType": name, "LocationType": "availability-zone", "Location": zone} for name, zone in pairs
        ]
    }


def zones(*names: str | tuple[str, str]) -> dict[str, Any]:
    pairs = [(name, f"{name}-id") if isinstance(name, str) else name for name in names]
    return {"AvailabilityZones": [{"ZoneName": name, "ZoneId": zone} for name, zone in pairs]}


def quota(value: float) -> dict[str, Any]:
    return {"Quota": {"ServiceCode": "ec2", "QuotaCode": "L-DB2E81BA", "Value": value}}


def test_a_quota_of_zero_is_named_with_the_command_that_asks_for_more(account: Account) -> None:
    account.answer("service-quotas", "get_service_quota", quota(0), {"ServiceCode": "ec2", "QuotaCode": "L-DB2E81BA"})
    account.answer("ec2", "describe_instances", {"Reservations": []}, {"Filters": ANY})
    (finding,) = doctor(account)._quota("ON_DEMAND")
    assert finding.state == "fail"
    assert "56 vCPU asked + 0 in use of 0 (L-DB2E81BA)" in finding.says
    assert "--quota-code L-DB2E81BA --desired-value 56 --region us-east-1" in finding.fix


def test_what_runs_already_counts_and_what_is_ours_does_not_count_twice(account: Account) -> None:
    def instance(name: str, kind: str, **more: Any) -> dict[str, Any]:
        return {"InstanceId": name, "InstanceType": kind, **more}

    account.answer("service-quotas", "get_service_quota", quota(64))
    reservations = [
        {
            "Instances": [
                instance("i-1", "g5.xlarge"),
                instance("i-2", "g5.xlarge", InstanceLifecycle="spot"),
                instance("i-4", "m7i.large"),
                instance("i-5", "gr6.4xlarge"),
                instance("i-3", "g6.12xlarge", Tags=[{"Key": "mistral-on-l4:stack", "Value": "dev"}]),
            ]
        }
    ]
    account.answer("ec2", "describe_instances", {"Reservations": reservations})
    sizes = {"g5.xlarge": 4, "gr6.4xlarge": 16}
    types = {"InstanceTypes": [{"InstanceType": name, "VCpuInfo": {"DefaultVCpus": size}} for name, size in sizes.items()]}
    account.answer("ec2", "describe_instance_types", types, {"InstanceTypes": list(sizes)})
    (finding,) = doctor(account)._quota("ON_DEMAND")
    assert (finding.state, finding.says) == ("fail", "56 vCPU asked + 20 in use of 64 (L-DB2E81BA): these nodes would not start")


def test_system_nodes_are_asked_for_in_the_quota_of_the_standard_families(account: Account) -> None:
    names = ("m7i.large", "t3.large", "g5.xlarge", "inf2.xlarge", "trn1.2xlarge", "mac2.metal", "is4gen.large")
    reservations = [{"Instances": [{"InstanceId": f"i-{name}", "InstanceType": name} for name in names]}]
    account.answer("service-quotas", "get_service_quota", quota(5), {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"})
    account.answer("ec2", "describe_instances", {"Reservations": reservations})
    counted = ["is4gen.large", "m7i.large", "t3.large"]
    types = {"InstanceTypes": [{"InstanceType": name, "VCpuInfo": {"DefaultVCpus": 2}} for name in counted]}
    account.answer("ec2", "describe_instance_types", types, {"InstanceTypes": counted})
    (finding,) = doctor(account)._quota("STANDARD")
    assert (finding.check, finding.state) == ("quota system nodes", "fail")
    assert finding.says.startswith("8 vCPU asked + 6 in use of 5 (L-1216C47A)")


def test_an_account_that_never_asked_has_the_default_quota(account: Account) -> None:
    account.refuse("service-quotas", "get_service_quota", "NoSuchResourceException")
    account.answer("service-quotas", "get_aws_default_service_quota", quota(0))
    account.answer("ec2", "describe_instances", {"Reservations": []})
    assert doctor(account)._quota("ON_DEMAND")[0].state == "fail"


def test_spot_pools_are_asked_for_in_the_spot_quota(account: Account) -> None:
    found = doctor(account, pools={"groups": {"l4-1gpu": {"capacityType": "SPOT"}}})
    assert quotas.needed(found.settings, found.catalogue) == {"SPOT": 8, "ON_DEMAND": 48, "STANDARD": 8}
    account.answer("service-quotas", "get_service_quota", quota(8), {"ServiceCode": "ec2", "QuotaCode": "L-3819A6DF"})
    account.answer("ec2", "describe_instances", {"Reservations": []})
    assert found._quota("SPOT") == [Finding("quota spot", "ok", "8 vCPU asked + 0 in use of 8 (L-3819A6DF)")]


def test_a_type_that_only_one_zone_offers_is_named_with_its_zones(account: Account) -> None:
    pairs = [("g6.2xlarge", "us-east-1a"), ("g6.2xlarge", "us-east-1b"), ("g6.12xlarge", "us-east-1b")]
    account.answer("ec2", "describe_availability_zones", zones("us-east-1a", "us-east-1b"))
    account.answer("ec2", "describe_instance_type_offerings", offerings(*pairs))
    (finding,) = doctor(account)._offerings()
    assert finding.state == "fail"
    assert "g6.12xlarge in us-east-1b" in finding.says
    assert "aws:region" in finding.fix


def test_two_zones_with_every_type_are_enough_and_system_nodes_have_a_type_too(account: Account) -> None:
    pairs = [(name, zone) for name in ("g6.2xlarge", "g6.12xlarge") for zone in ("us-east-1a", "us-east-1b")]
    system = [("m7i.xlarge", zone) for zone in ("us-east-1a", "us-east-1b")]
    for offered, state in ((pairs + system, "ok"), (pairs, "fail")):
        account.answer("ec2", "describe_availability_zones", zones("us-east-1a", "us-east-1b"))
        account.answer("ec2", "describe_instance_type_offerings", offerings(*offered))
        assert doctor(account)._offerings()[0].state == state


def test_a_zone_that_takes_no_eks_cluster_is_not_counted(account: Account) -> None:
    names = ("g6.2xlarge", "g6.12xlarge", "m7i.xlarge")
    without = [("us-east-1a", "use1-az1"), ("us-east-1b", "use1-az3")]
    account.answer("ec2", "describe_availability_zones", zones(*without))
    every = [(name, zone) for name in names for zone, _ in without]
    account.answer("ec2", "describe_instance_type_offerings", offerings(*every))
    assert doctor(account)._offerings()[0].state == "fail"


def test_an_adopted_cluster_needs_one_zone_for_each_pool_and_no_system_nodes(account: Account) -> None:
    shared = {"name": "shared", "existing": True}
    account.answer("ec2", "describe_availability_zones", zones("us-east-1a", "us-east-1b"))
    pairs = [("g6.2xlarge", "us-east-1a"), ("g6.12xlarge", "us-east-1b")]
    account.answer("ec2", "describe_instance_type_offerings", offerings(*pairs))
    assert doctor(account, cluster=shared)._offerings()[0].state == "ok"


@pytest.mark.parametrize(
    ("code", "says", "fix"),
    [
        ("ExpiredToken", "the session has expired", "aws sso login"),
        ("InvalidClientTokenId", "AWS does not know these credentials", "aws sts get-caller-identity"),
        ("Throttling", "AWS answers GetCallerIdentity with Throttling after six tries", "wait a minute"),
        ("AccessDenied", "not allowed to call GetCallerIdentity", "docs/aws.md"),
    ],
)
def test_an_account_that_does_not_answer_is_one_finding_and_hides_no_other(
    account: Account, code: str, says: str, fix: str
) -> None:
    account.refuse("sts", "get_caller_identity", code, "some text of AWS")
    for service, operation in (("ec2", "describe_availability_zones"), ("service-quotas", "get_service_quota")):
        account.refuse(service, operation, code)
    account.refuse("eks", "describe_cluster_versions", code)
    account.refuse("eks", "describe_cluster", code)
    findings = doctor(account, hub=lambda _: Hub()).run()
    first = findings[0]
    assert (first.check, first.state) == ("account", "fail")
    assert says in first.says
    assert fix in f"{first.says} {first.fix}"
    assert [found.state for found in findings if found.check.startswith("weights")] == ["ok", "ok"]


def test_what_aws_refuses_for_another_reason_is_told_in_its_own_words_and_not_as_what_to_do(account: Account) -> None:
    account.refuse("ec2", "describe_subnets", "InvalidSubnetID.NotFound", "The subnet ID 'subnet-a' does not exist")
    network = {"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-a", "subnet-b"]}
    (finding,) = [found for found in doctor(account, hub=lambda _: Hub(), network=network).run() if found.check == "network"]
    assert finding.says == "DescribeSubnets: InvalidSubnetID.NotFound: The subnet ID 'subnet-a' does not exist"
    assert finding.fix == ""


def test_no_credentials_at_all_name_the_ways_to_get_some(account: Account) -> None:
    from botocore.exceptions import NoCredentialsError

    class Nobody:
        def get_caller_identity(self) -> None:
            raise NoCredentialsError

    account.clients["sts"] = Nobody()  # type: ignore[assignment]
    for service, operation in (("ec2", "describe_availability_zones"), ("service-quotas", "get_service_quota")):
        account.refuse(service, operation, "AuthFailure")
    account.refuse("eks", "describe_cluster_versions", "AuthFailure")
    account.refuse("eks", "describe_cluster", "AuthFailure")
    finding = doctor(account, hub=lambda _: Hub()).run()[0]
    assert (finding.state, finding.says) == ("fail", "no AWS credentials")
    assert "aws configure sso" in finding.fix


def version(status: str, until: datetime) -> dict[str, Any]:
    return {"clusterVersions": [{"clusterVersion": "1.36", "versionStatus": status, "endOfStandardSupportDate": until}]}


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (version("STANDARD_SUPPORT", datetime(2027, 8, 2, tzinfo=UTC)), "ok", "until 2027-08-02"),
        (version("STANDARD_SUPPORT", datetime(2026, 12, 2, tzinfo=UTC)), "warn", "in 7 days"),
        (version("EXTENDED_SUPPORT", datetime(2026, 7, 29, tzinfo=UTC)), "fail", "out of standard support"),
        ({"clusterVersions": []}, "fail", "EKS has no Kubernetes 1.36"),
    ],
)
def test_a_kubernetes_version_is_judged_by_its_support(account: Account, answer: Any, state: str, says: str) -> None:
    account.answer("eks", "describe_cluster_versions", answer, {"clusterVersions": ["1.36"]})
    (finding,) = doctor(account)._version()
    assert finding.state == state
    assert says in finding.says


def test_an_adopted_cluster_is_judged_by_its_own_version(account: Account) -> None:
    shared = {"name": "shared", "existing": True}
    account.answer("eks", "describe_cluster", {"cluster": {"name": "shared", "version": "1.33"}})
    old = {"clusterVersion": "1.33", "versionStatus": "EXTENDED_SUPPORT"}
    account.answer("eks", "describe_cluster_versions", {"clusterVersions": [old]}, {"clusterVersions": ["1.33"]})
    (finding,) = doctor(account, cluster=shared)._version()
    assert (finding.state, finding.says) == ("fail", "1.33 is out of standard support (EXTENDED_SUPPORT)")
    assert "update-cluster-version" in finding.fix
    account.refuse("eks", "describe_cluster", "ResourceNotFoundException")
    assert doctor(account, cluster=shared)._version() == []


@pytest.mark.parametrize(("status", "adopted"), [("DELETING", False), ("FAILED", False), ("CREATING", True)])
def test_a_cluster_that_nothing_can_be_put_into_fails(account: Account, status: str, adopted: bool) -> None:
    found = {"name": "x", "status": status, "version": "1.36", "tags": {"mistral-on-l4:stack": "dev"}}
    account.answer("eks", "describe_cluster", {"cluster": found})
    (finding,) = doctor(account, cluster={"name": "x", "existing": adopted})._cluster()
    assert finding.state == "fail"
    assert status in finding.says
    assert finding.fix


@pytest.mark.parametrize(
    ("addons", "configuration", "warned"),
    [
        (["aws-ebs-csi-driver", "vpc-cni"], '{"enableNetworkPolicy": "true"}', []),
        (["aws-ebs-csi-driver", "vpc-cni"], "enableNetworkPolicy: 'true'", []),
        (["aws-ebs-csi-driver", "vpc-cni"], '{"enableNetworkPolicy": "false"}', ["NetworkPolicies are ignored"]),
        (["vpc-cni"], "", ["no volume is made", "NetworkPolicies are ignored"]),
    ],
)
def test_what_an_adopted_cluster_has_to_bring_is_looked_for(
    account: Account, addons: list[str], configuration: str, warned: list[str]
) -> None:
    account.answer("eks", "list_addons", {"addons": addons})
    account.answer("eks", "describe_addon", {"addon": {"configurationValues": configuration}})
    findings = doctor(account, cluster={"name": "shared", "existing": True})._addons()
    assert [found.state for found in findings] == (["warn"] * len(warned) or ["ok"])
    assert all(text in found.says and found.fix for text, found in zip(warned, findings, strict=False))
    assert doctor(account)._addons() == []


def test_an_existing_network_is_looked_at_before_nodes_do_not_join_it(account: Account) -> None:
    def answers(vpc: str, free: int, on: bool) -> list[Finding]:
        subnets = [{"SubnetId": name, "VpcId": vpc, "AvailableIpAddressCount": free} for name in ("subnet-a", "subnet-b")]
        account.answer("ec2", "describe_subnets", {"Subnets": subnets}, {"SubnetIds": ["subnet-a", "subnet-b"]})
        for attribute in ("enableDnsSupport", "enableDnsHostnames"):
            asked = {"VpcId": "vpc-1", "Attribute": attribute}
            account.answer("ec2", "describe_vpc_attribute", {attribute[0].upper() + attribute[1:]: {"Value": on}}, asked)
        network = {"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-a", "subnet-b"]}
        return doctor(account, network=network)._network()

    assert answers("vpc-1", 4000, True) == [Finding("network", "ok", "vpc-1 with 2 subnets")]
    assert [(found.state, found.says.partition(" ")[0]) for found in answers("vpc-1", 8, True)] == [
        ("warn", "subnet-a"),
        ("warn", "subnet-b"),
    ]
    elsewhere = answers("vpc-2", 4000, False)
    assert [found.state for found in elsewhere] == ["fail"] * 4
    assert "subnet-a is in vpc-2, not vpc-1" in elsewhere[0].says
    assert "--enable-dns-hostnames" in elsewhere[3].fix
    assert doctor(account)._network() == []


def test_an_api_inside_a_network_that_is_still_to_be_made_fails(account: Account) -> None:
    account.refuse("eks", "describe_cluster", "ResourceNotFoundException")
    free, access = doctor(account)._cluster()
    assert (free.state, access.state) == ("ok", "fail")
    assert "publicAccessCidrs" in access.fix
    account.refuse("eks", "describe_cluster", "ResourceNotFoundException")
    network = {"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-a", "subnet-b"]}
    assert len(doctor(account, network=network)._cluster()) == 1


def test_what_aws_says_in_brackets_is_shown() -> None:
    from rich.console import Console

    from mistral_on_l4.cli.doctor import _table

    printed = StringIO()
    Console(width=200, file=printed).print(_table([Finding("cluster", "fail", "none in [us-east-1a] [/x]", "look")]))
    assert "none in [us-east-1a] [/x]" in printed.getvalue()


def test_a_cluster_of_somebody_else_under_our_name_fails_and_one_of_ours_does_not(account: Account) -> None:
    def cluster(tags: dict[str, str]) -> dict[str, Any]:
        return {"cluster": {"name": "mistral-on-l4-dev", "status": "ACTIVE", "version": "1.36", "tags": tags}}

    account.refuse("eks", "describe_cluster", "ResourceNotFoundException")
    open_to_us = {"publicAccessCidrs": ["203.0.113.7/32"]}
    assert doctor(account, cluster=open_to_us)._cluster() == [Finding("cluster", "ok", "the name mistral-on-l4-dev is free")]
    account.answer("eks", "describe_cluster", cluster({}))
    assert "belongs to somebody else" in doctor(account)._cluster()[0].says
    account.answer("eks", "describe_cluster", cluster({"mistral-on-l4:stack": "dev"}))
    account.answer("eks", "list_nodegroups", {"nodegroups": ["l4-1gpu-1"]})
    issue = {"code": "AsgInstanceLaunchFailures", "message": "Could not launch. VcpuLimitExceeded - You have requested more vCPU"}
    account.answer("eks", "describe_nodegroup", {"nodegroup": {"health": {"issues": [issue]}}})
    findings = doctor(account)._cluster()
    assert [found.state for found in findings] == ["ok", "fail"]
    assert findings[1].fix.startswith("VcpuLimitExceeded: the account's vCPU quota")


class Hub:
    """Answers as huggingface_hub's HfApi does for one repository, or raises what it would."""

    def __init__(self, error: type[Exception] | None = None) -> None:
        self.error = error

    def model_info(self, repository: str, revision: str, files_metadata: bool) -> Any:
        if self.error is not None:
            # Its errors take the response that they are about; none of it is read here.
            raise self.error.__new__(self.error)
        files = [("model-00001-of-00002.safetensors", 10e9), ("model-00002-of-00002.safetensors", 13.5e9)]
        more = [("consolidated.safetensors", 23.5e9), ("config.json", 700)]
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in files + more]
        return SimpleNamespace(sha="0123456789abcdef", siblings=siblings, gated=False)


def test_the_size_of_a_checkpoint_leaves_out_the_copy_that_is_not_fetched(account: Account) -> None:
    findings = doctor(account, hub=lambda _: Hub())._weights()
    assert {found.says for found in findings} == {"23.5 GB in 2 files at 0123456789ab"}


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("GatedRepoError", "accept the licence at https://huggingface.co/"),
        ("RevisionNotFoundError", "correct mistral-on-l4:services.{}.revision; "),
        ("RepositoryNotFoundError", "correct mistral-on-l4:services.{}.repository"),
    ],
)
def test_weights_that_cannot_be_fetched_are_named_with_the_way_to_them(account: Account, error: str, fix: str) -> None:
    from huggingface_hub import errors

    findings = doctor(account, hub=lambda _: Hub(getattr(errors, error)))._weights()
    for name, found in zip(("mistral-24b-full", "mistral-24b-fp8"), findings, strict=True):
        assert found.state == "fail"
        assert fix.format(name) in found.fix


def test_a_hub_that_cannot_be_reached_is_a_finding_whatever_client_says_so(account: Account) -> None:
    class Unreachable(Exception):
        pass

    class NoHub:
        def model_info(self, repository: str, revision: str, files_metadata: bool) -> Any:
            raise Unreachable("[Errno -2] Name or service not known\nand more")

    findings = doctor(account, hub=lambda _: NoHub())._weights()
    assert {found.says for found in findings} == {
        "the hub at https://huggingface.co does not answer: [Errno -2] Name or service not known"
    }


def test_a_check_that_is_wrong_itself_hides_no_other(account: Account) -> None:
    def broken(service: str) -> Any:
        raise ZeroDivisionError("nobody thought of it")

    findings = doctor(account, hub=lambda _: Hub())
    object.__setattr__(findings, "client", broken)
    by_check = {found.check: found for found in findings.run()}
    assert by_check["account"].says == "the check itself broke: ZeroDivisionError: nobody thought of it"
    assert by_check["engine image"].state == "ok"


def test_an_image_for_another_driver_than_the_nodes_have_fails(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    (fine,) = doctor(account)._driver()
    assert fine.state == "ok"
    # A node chooses at its first boot, so both have to do.
    assert "580 or 595" in fine.says
    for drivers in ((535,), (580, 535)):
        monkeypatch.setattr("mistral_on_l4.aws.doctor.AMI_DRIVERS", drivers)
        assert doctor(account)._driver()[0].state == "fail"


def test_an_engine_with_known_faults_is_warned_of_with_the_versions_that_mend_them(account: Account) -> None:
    found = doctor(account)
    old, new = (found.catalogue.model_copy(update={"default_engine": name}) for name in ("vllm-0.11", "vllm-0.33"))
    (warned,) = dataclasses.replace(found, catalogue=old)._advisories()
    assert warned.state == "warn"
    assert "GHSA-mrw7-hf4f-83pf (fixed in 0.11.1)" in warned.says
    assert [finding.state for finding in dataclasses.replace(found, catalogue=new)._advisories()] == ["ok"]


def test_an_expired_stack_and_a_private_api_are_pointed_out(account: Account) -> None:
    assert doctor(account, tags={"owner": "us", "expires": "2026-11-24"})._tags()[0].state == "fail"
    assert doctor(account, tags={"owner": "us"})._tags()[0].state == "warn"
    assert doctor(account)._access()[0].state == "warn"
    assert doctor(account, cluster={"publicAccessCidrs": ["203.0.113.7/32"]})._access() == []
