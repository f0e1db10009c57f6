"""The whole graph on platform `eks`, as the engine is told of it: nothing here reaches AWS."""

from __future__ import annotations

import base64
import dataclasses
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from unittest.mock import create_autospec

import pulumi
import pytest
import yaml

from components import hub_access, last_words
from embedded.plugins.aws import LEDGER_VARIABLE
from mistral_on_l4.aws import quotas
from mistral_on_l4.aws.account import REHEARSAL_ACCOUNT
from mistral_on_l4.cluster.client import KubeClient
from tests.support.account import OUTPUTS, ZONES, account, existing
from tests.support.configuration import only_pools, only_services
from tests.support.engine import Engine


@pytest.fixture
def engine_of() -> Callable[..., Any]:
    """An engine whose invokes answer like an account."""
    return lambda **kwargs: Engine(calls=account(**kwargs), outputs=OUTPUTS)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test looks for AWS credentials on this machine, or asks a hub."""
    from components.aws import refusals
    from mistral_on_l4.aws.session import AwsTrouble

    def nobody(*_: Any) -> Any:
        raise AwsTrouble("no AWS credentials")

    monkeypatch.setattr(refusals, "token_status", nobody)
    monkeypatch.setattr(refusals.quotas, "granted", create_autospec(GRANTED, side_effect=nobody))
    monkeypatch.setattr(hub_access, "problem_of", create_autospec(PROBLEM_OF, return_value=None))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


MINE = ["203.0.113.7/32"]
GRANTED = quotas.granted
PROBLEM_OF = hub_access.problem_of
SERVICE_TOKEN = "kubernetes:serving.kserve.io/v1beta1:InferenceService"


@pytest.fixture
def run_program(run_program: Callable[..., Any]) -> Callable[..., Any]:
    """As it is; an `up` in a network of the stack's own is one of somebody who can reach its API, unless a test says otherwise."""

    def program(preview: bool = False, **kwargs: Any) -> Any:
        if not preview and "existingVpcId" not in kwargs.get("network", {}):
            kwargs["cluster"] = {"publicAccessCidrs": MINE} | kwargs.get("cluster", {})
        return run_program(preview=preview, **kwargs)

    return program


# Runs of the program by what went in: a test only looks at what a run recorded, so tests share it.
_RUNS: dict[str, Any] = {}


@pytest.fixture
def up(run_program: Callable[..., Any], engine_of: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the program of stack dev: up(account={...}, preview=False, **config)."""

    def program(account: Mapping[str, Any] | None = None, preview: bool = False, **config: Any) -> Any:
        key = json.dumps([account, preview, config])
        if key not in _RUNS:
            _RUNS[key] = run_program(stack="dev", preview=preview, engine=engine_of(**(account or {})), **config)
        return _RUNS[key]

    return program


def upstream(engine: Any, start: Any) -> list[Any]:
    """Everything that a resource depends on, directly or not, by dependency or by being a child of what does."""
    by_urn = {found.urn: found for found in engine.resources}
    seen: dict[str, Any] = {}
    queue = [start]
    while queue:
        found = queue.pop()
        for urn in (*found.depends_on, found.parent):
            if urn in by_urn and urn not in seen:
                seen[urn] = by_urn[urn]
                queue.append(by_urn[urn])
    return list(seen.values())


def tokens_before(engine: Any, start: Any) -> set[str]:
    return {found.token for found in upstream(engine, start)}


def pool(engine: Any, name: str) -> Any:
    return next(found for found in engine.of("aws:eks/nodeGroup:NodeGroup") if found.inputs["nodeGroupNamePrefix"] == f"{name}-")


def template_of(engine: Any, name: str) -> Any:
    (found,) = [found for found in upstream(engine, pool(engine, name)) if found.token == "aws:ec2/launchTemplate:LaunchTemplate"]
    return found


def release(engine: Any, name: str) -> Any:
    return next(found for found in engine.of("kubernetes:helm.sh/v3:Release") if found.inputs["name"] == name)


# -- network -----------------------------------------------------------------------------------------------------------------


def test_a_new_network_has_private_nodes_in_three_zones_one_nat_gateway_and_s3_beside_it(up: Callable[..., Any]) -> None:
    engine = up()
    subnets = engine.of("aws:ec2/subnet:Subnet")
    # They register beside each other, in no particular order.
    private = {found.inputs["availabilityZone"]: found.inputs["cidrBlock"] for found in subnets if "private" in found.name}
    assert private == dict(zip(ZONES, ["10.42.0.0/19", "10.42.32.0/19", "10.42.64.0/19"], strict=False))
    assert len(subnets) == 4
    assert not any(found.inputs.get("mapPublicIpOnLaunch") for found in subnets)
    assert len(engine.of("aws:ec2/natGateway:NatGateway")) == 1
    (endpoint,) = engine.of("aws:ec2/vpcEndpoint:VpcEndpoint")
    assert (endpoint.inputs["serviceName"], endpoint.inputs["vpcEndpointType"]) == ("com.amazonaws.us-east-1.s3", "Gateway")


def test_one_nat_gateway_per_zone_gives_each_zone_a_way_out_of_its_own(up: Callable[..., Any]) -> None:
    engine = up(network={"natGateways": "one-per-zone"})
    assert len(engine.of("aws:ec2/natGateway:NatGateway")) == 3
    routed = {found.inputs["routeTableId"] for found in engine.of("RouteTableAssociation") if "private" in found.name}
    assert len(routed) == 3


def test_an_existing_network_is_looked_up_and_nothing_of_it_is_made(up: Callable[..., Any]) -> None:
    engine = up(network={"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-a", "subnet-b"]})
    assert [found.token for found in engine.resources if found.token.startswith("aws:ec2/")] == [
        "aws:ec2/launchTemplate:LaunchTemplate"
    ] * 4
    (cluster,) = engine.of("aws:eks/cluster:Cluster")
    assert cluster.inputs["vpcConfig"]["subnetIds"] == ["subnet-a", "subnet-b"]


def test_subnets_of_another_network_than_the_named_one_are_refused(
    run_program: Callable[..., Any], engine_of: Callable[..., Any]
) -> None:
    engine = engine_of()
    places = {"subnet-a": "vpc-1", "subnet-b": "vpc-2"}
    engine.calls["aws:ec2/getSubnet:getSubnet"] = lambda args: {
        "id": args["id"],
        "availabilityZone": f"us-east-1{args['id'][-1]}",
        "vpcId": places[args["id"]],
    }
    with pytest.raises(pulumi.RunError, match="existingSubnetIds: subnet-b in vpc-2, not in vpc-1"):
        run_program(stack="dev", engine=engine, network={"existingVpcId": "vpc-1", "existingSubnetIds": list(places)})


def test_system_nodes_start_in_a_zone_that_offers_their_type(
    run_program: Callable[..., Any], engine_of: Callable[..., Any]
) -> None:
    network = {"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-a", "subnet-b"]}
    offered = {"g6.2xlarge": ZONES, "g6.12xlarge": ZONES, "m7i.xlarge": ("us-east-1b", "us-east-1c")}
    engine = run_program(stack="dev", engine=engine_of(offered=offered), network=network)
    assert pool(engine, "storage").inputs["subnetIds"] == pool(engine, "system").inputs["subnetIds"] == ["subnet-b"]
    nowhere = engine_of(offered={**offered, "m7i.xlarge": ("us-east-1c", "us-east-1d")})
    with pytest.raises(pulumi.RunError, match=r"none of the zones us-east-1a, us-east-1b offers the system nodes' types"):
        run_program(stack="dev", engine=nowhere, network=network)


def test_a_type_that_two_zones_do_not_offer_is_named_before_anything_is_declared(
    run_program: Callable[..., Any], engine_of: Callable[..., Any]
) -> None:
    offered = {"g6.2xlarge": ZONES, "g6.12xlarge": ("us-east-1a",), "m7i.xlarge": ZONES}
    engine = engine_of(offered=offered)
    with pytest.raises(
        pulumi.RunError, match=r"1 zone with all instance types.*g6\.12xlarge: us-east-1a; g6\.2xlarge: us-east-1a, "
    ):
        run_program(stack="dev", engine=engine)
    assert not [found for found in engine.resources if found.token.startswith("aws:")]


@pytest.mark.parametrize(
    ("cidr", "says"), [("10.42.0.0/28", "must be a /16"), ("10.42.0.1/16", "has host bits set"), ("ten", "ten")]
)
def test_a_block_that_no_vpc_can_have_is_refused_by_its_key(up: Callable[..., Any], cidr: str, says: str) -> None:
    with pytest.raises(pulumi.RunError, match=rf"mistral-on-l4:network\.cidr: .*{says}"):
        up(network={"cidr": cidr})


# -- cluster -----------------------------------------------------------------------------------------------------------------


def test_the_control_plane_takes_access_entries_standard_support_and_no_default_add_ons(up: Callable[..., Any]) -> None:
    (cluster,) = up().of("aws:eks/cluster:Cluster")
    assert cluster.inputs["name"] == "mistral-on-l4-dev"
    assert cluster.inputs["version"] == "1.36"
    assert cluster.inputs["accessConfig"]["authenticationMode"] == "API"
    assert cluster.inputs["upgradePolicy"] == {"supportType": "STANDARD"}
    assert cluster.inputs["bootstrapSelfManagedAddons"] is False
    # Its log group would come back after destroy.
    assert "enabledClusterLogTypes" not in cluster.inputs


def test_the_api_is_private_unless_addresses_are_named(up: Callable[..., Any]) -> None:
    private = up(preview=True).of("aws:eks/cluster:Cluster")[0].inputs["vpcConfig"]
    assert (private["endpointPrivateAccess"], private["endpointPublicAccess"]) == (True, False)
    assert "publicAccessCidrs" not in private
    public = up(cluster={"publicAccessCidrs": ["203.0.113.7/32"]}).of("aws:eks/cluster:Cluster")[0].inputs["vpcConfig"]
    assert (public["endpointPrivateAccess"], public["endpointPublicAccess"]) == (True, True)
    assert public["publicAccessCidrs"] == ["203.0.113.7/32"]


def test_the_private_endpoint_lets_those_in_who_are_inside_and_not_nodes(up: Callable[..., Any]) -> None:
    network = {"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-a", "subnet-b"]}
    mine = {"publicAccessCidrs": ["203.0.113.7/32"]}
    for engine in (up(preview=True), up(network=network), up(network=network, cluster=mine)):
        rules = engine.of("SecurityGroupIngressRule")
        assert {found.inputs["cidrIpv4"] for found in rules} == {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}
        assert {(found.inputs["ipProtocol"], found.inputs["fromPort"], found.inputs["toPort"]) for found in rules} == {
            ("tcp", 443, 443)
        }
        (provider,) = engine.of("pulumi:providers:kubernetes")
        assert {found.urn for found in rules} <= {found.urn for found in upstream(engine, provider)}
    assert up(cluster=mine).of("SecurityGroupIngressRule") == []


def test_a_private_api_is_warned_of_by_who_could_reach_it(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    mine = {"mistral-on-l4-dev": existing("mistral-on-l4-dev", {"mistral-on-l4:stack": "dev"})}
    network = {"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-a", "subnet-b"]}
    for account_of, config, words in (
        ({"clusters": mine}, {}, "so this command must run there"),
        ({}, {"network": network}, "so this command must run there"),
    ):
        said.clear()
        run_program(stack="dev", preview=True, engine=engine_of(**account_of), **config)
        assert [words in line for line in said if "inside its VPC only" in line] == [True]


def test_a_private_api_that_nobody_could_reach_is_said_first_in_a_preview_and_refused_in_an_up(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    run_program(stack="dev", preview=True, engine=engine_of())
    assert said[0].startswith("`pulumi up` will be refused: ")
    command = "pulumi config set --path 'mistral-on-l4:cluster.publicAccessCidrs[0]' 203.0.113.7/32 -s dev"
    assert command in said[0]
    engine = engine_of()
    with pytest.raises(pulumi.RunError, match="which nobody is in yet") as refused:
        run_program(stack="dev", engine=engine, cluster={"publicAccessCidrs": []})
    assert command in str(refused.value)
    # The provider and the component that asks are nothing in an account.
    assert not [found for found in engine.resources if found.token.startswith(("aws:", "kubernetes:"))]


@pytest.mark.parametrize(("limits", "lacking"), [((5, 64), ["L-1216C47A"]), ((5, 0), ["L-1216C47A", "L-DB2E81BA"]), ((8, 56), [])])
def test_a_quota_that_is_too_small_is_said_in_a_preview_and_refused_in_an_up(
    run_program: Callable[..., Any],
    engine_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[int, int],
    lacking: list[str],
) -> None:
    from components.aws import refusals

    grants = {"STANDARD": quotas.Grant(limits[0]), "ON_DEMAND": quotas.Grant(limits[1])}
    monkeypatch.setattr(refusals.quotas, "granted", create_autospec(GRANTED, return_value=grants))
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    run_program(stack="dev", preview=True, engine=engine_of(), cluster={"publicAccessCidrs": MINE})
    stops = [text for text in said if text.startswith("`pulumi up` will be refused: ")]
    assert [next(code for code in quotas.CODES.values() if code in text) for text in stops] == lacking
    assert all("aws service-quotas request-service-quota-increase --service-code ec2" in text for text in stops)
    engine = engine_of()
    if not lacking:
        assert run_program(stack="dev", engine=engine).of("aws:eks/cluster:Cluster")
        return
    with pytest.raises(pulumi.RunError, match=lacking[-1]):
        run_program(stack="dev", engine=engine)
    assert not [found for found in engine.resources if found.token.startswith(("aws:", "kubernetes:"))]


def test_quotas_that_may_not_be_asked_are_said_to_be_unknown_and_stop_nothing(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    run_program(stack="dev", engine=engine_of())
    assert [text for text in said if "quotas" in text] == [
        "whether the account's quotas hold the stack's nodes could not be asked: no AWS credentials"
    ]


def test_a_rehearsed_account_has_the_quotas_that_its_ledger_names(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ledger = tmp_path / "aws-account.json"
    monkeypatch.setenv(LEDGER_VARIABLE, str(ledger))
    engine = engine_of()
    answer = engine.calls["aws:index/getCallerIdentity:getCallerIdentity"](None)
    engine.calls["aws:index/getCallerIdentity:getCallerIdentity"] = lambda _: {**answer, "accountId": REHEARSAL_ACCOUNT}
    ledger.write_text(json.dumps({"resources": {}, "journal": [], "quotas": {"L-DB2E81BA": 8}}))
    with pytest.raises(pulumi.RunError, match="need 56 vCPU, and the account's quota L-DB2E81BA is 8"):
        run_program(stack="dev", engine=engine)


def test_named_principals_administer_the_cluster_and_nobody_else_does(up: Callable[..., Any]) -> None:
    assert up().of("AccessEntry") == []
    engine = up(cluster={"adminPrincipalArns": ["arn:aws:iam::123456789012:role/ops"]})
    (entry,) = engine.of("AccessEntry")
    (policy,) = engine.of("AccessPolicyAssociation")
    assert entry.inputs["principalArn"] == policy.inputs["principalArn"] == "arn:aws:iam::123456789012:role/ops"
    assert policy.inputs["accessScope"] == {"type": "cluster"}


@pytest.mark.parametrize(
    ("principals", "caller", "says"),
    [
        (["arn:aws:sts::123456789012:assumed-role/ops/me"], "", "is no ARN of an IAM user or role"),
        (["ops"], "", "is no ARN of an IAM user or role"),
        (["arn:aws:iam::123456789012:role/ops"] * 2, "", "is named more than once"),
        (["arn:aws:iam::123456789012:role/a/path/ops"], "arn:aws:sts::123456789012:assumed-role/ops/me", "administers it anyway"),
        (["arn:aws:iam::123456789012:user/me"], "arn:aws:iam::123456789012:user/me", "administers it anyway"),
    ],
)
def test_an_administrator_that_eks_would_not_take_is_refused(principals: list[str], caller: str, says: str) -> None:
    from components.aws.refusals import refuse_principals

    with pytest.raises(pulumi.RunError, match=f"adminPrincipalArns: .*{says}"):
        refuse_principals(principals, caller)


def test_administrators_beside_the_creator_and_the_creator_of_an_older_day_are_taken() -> None:
    from components.aws.refusals import refuse_principals

    ops = "arn:aws:iam::123456789012:role/ops"
    refuse_principals([ops, "arn:aws:iam::123456789012:user/ops"], "arn:aws:sts::123456789012:assumed-role/other/ops")
    refuse_principals([ops], "arn:aws:iam::123456789012:root")
    # The cluster is there: whoever runs this is not its creator by that.
    refuse_principals([ops], None)


def test_whoever_makes_the_cluster_is_no_further_administrator(
    run_program: Callable[..., Any], engine_of: Callable[..., Any]
) -> None:
    me = {"cluster": {"adminPrincipalArns": ["arn:aws:iam::123456789012:user/me"]}}
    caller = {"accountId": "123456789012", "arn": "arn:aws:iam::123456789012:user/me", "userId": "", "id": ""}
    for clusters, refused in (
        ({}, True),
        ({"mistral-on-l4-dev": existing("mistral-on-l4-dev", {"mistral-on-l4:stack": "dev"})}, False),
    ):
        engine = engine_of(clusters=clusters)
        engine.calls["aws:index/getCallerIdentity:getCallerIdentity"] = lambda _: caller
        if refused:
            with pytest.raises(pulumi.RunError, match="administers it anyway"):
                run_program(stack="dev", preview=True, engine=engine, **me)
        else:
            assert run_program(stack="dev", engine=engine, **me).of("AccessEntry")


def test_kubernetes_is_reached_by_a_command_of_our_own_and_no_token_stands_in_the_state(up: Callable[..., Any]) -> None:
    (provider,) = up().of("pulumi:providers:kubernetes")
    config = json.loads(provider.inputs["kubeconfig"])
    assert config["clusters"][0]["cluster"] == {"server": "https://api.example.com", "certificate-authority-data": "Q0E="}
    (user,) = config["users"]
    assert set(user["user"]) == {"exec"}
    assert user["user"]["exec"]["command"] == "demo"
    assert user["user"]["exec"]["args"] == ["eks-token", "--cluster", "mistral-on-l4-dev", "--region", "us-east-1"]
    assert provider.inputs["clusterIdentifier"] == "arn:aws:eks:us-east-1:123456789012:cluster/x@2026-11-25T00:00:00Z"


def test_an_existing_cluster_is_adopted_and_gets_gpu_pools_charts_and_storage_only(up: Callable[..., Any]) -> None:
    engine = up({"clusters": {"shared": existing("shared")}}, cluster={"name": "shared", "existing": True})
    made = {found.token for found in engine.resources if found.token.startswith("aws:")}
    assert made == {
        "aws:ec2/launchTemplate:LaunchTemplate",
        "aws:eks/nodeGroup:NodeGroup",
        "aws:iam/role:Role",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    }
    assert len(engine.of("NodeGroup")) == 2
    assert pool(engine, "l4-1gpu").inputs["clusterName"] == "shared"
    assert pool(engine, "l4-1gpu").inputs["subnetIds"] == ["subnet-a", "subnet-b"]
    assert release(engine, "kserve")


@pytest.mark.parametrize(
    ("clusters", "config", "says"),
    [
        ({"mistral-on-l4-dev": existing("mistral-on-l4-dev")}, {}, "was not made by this project"),
        (
            {"mistral-on-l4-dev": existing("mistral-on-l4-dev", {"mistral-on-l4:stack": "other"})},
            {},
            "belongs to stack 'other'",
        ),
        ({}, {"cluster": {"name": "shared", "existing": True}}, r"no EKS cluster 'shared' in us-east-1 \(there are: none\)"),
        (
            {"shared": existing("shared", status="DELETING")},
            {"cluster": {"name": "shared", "existing": True}},
            "is DELETING, not ACTIVE",
        ),
    ],
)
def test_a_cluster_that_cannot_be_ours_is_named_at_preview(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], clusters: Any, config: Any, says: str
) -> None:
    engine = engine_of(clusters=clusters)
    with pytest.raises(pulumi.RunError, match=says):
        run_program(stack="dev", preview=True, engine=engine, **config)
    assert not [found for found in engine.resources if found.token.startswith("aws:")]


def test_a_cluster_of_this_very_stack_is_no_collision(up: Callable[..., Any]) -> None:
    mine = existing("mistral-on-l4-dev", {"mistral-on-l4:stack": "dev"})
    assert len(up({"clusters": {"mistral-on-l4-dev": mine}}).of("aws:eks/cluster:Cluster")) == 1


@pytest.mark.usefixtures("local_home")
@pytest.mark.parametrize("namespace_owners", [{"private-ai": "other"}])
def test_an_adopted_cluster_with_another_stack_in_our_namespaces_is_refused(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.aws import refusals
    from embedded.home import LocalHome

    monkeypatch.setattr(refusals, "token_status", lambda *_: {"token": "a-token"})
    shared = {**existing("shared"), "endpoint": LocalHome.default().cluster().api_server_url}
    shared["certificateAuthorities"] = [{"data": ""}]
    engine = engine_of(clusters={"shared": shared})
    with pytest.raises(pulumi.RunError, match="namespace private-ai belongs to stack 'other' of this cluster"):
        run_program(stack="dev", preview=True, engine=engine, cluster={"name": "shared", "existing": True})
    assert not [found for found in engine.resources if found.token.startswith("aws:")]


@pytest.mark.usefixtures("local_home")
@pytest.mark.parametrize(
    ("namespace_owners", "says"),
    [
        ({"cert-manager": "other"}, "Namespace cert-manager of stack 'other'"),
        ({"kserve": None}, "Namespace kserve of its own"),
    ],
)
def test_an_adopted_cluster_that_has_what_the_stack_brings_is_refused(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    from components.aws import refusals
    from embedded.home import LocalHome

    monkeypatch.setattr(refusals, "token_status", lambda *_: {"token": "a-token"})
    shared = {**existing("shared"), "endpoint": LocalHome.default().cluster().api_server_url}
    shared["certificateAuthorities"] = [{"data": ""}]
    engine = engine_of(clusters={"shared": shared})
    with pytest.raises(pulumi.RunError, match=f"cluster shared has a {says}, and the stack brings one"):
        run_program(stack="dev", preview=True, engine=engine, cluster={"name": "shared", "existing": True})
    assert not [found for found in engine.resources if found.token.startswith("aws:")]


def test_what_the_stack_itself_put_into_an_adopted_cluster_is_no_collision(monkeypatch: pytest.MonkeyPatch) -> None:
    from components.aws import refusals
    from mistral_on_l4.cluster.client import ApiError

    class Client:
        def __init__(self, foreign: str) -> None:
            self.foreign = foreign

        def get(self, _: str, kind: str, name: str) -> Any:
            if name == "gp3-weights":
                raise ApiError(404, "NotFound", "no such class")
            return {"metadata": {"name": name, "labels": {"mistral-on-l4/stack": "theirs" if name == self.foreign else "dev"}}}

    monkeypatch.setattr(refusals.pulumi, "get_stack", lambda: "dev")
    for foreign, said in (("", None), ("gp3", "cluster shared has a StorageClass gp3 of stack 'theirs'")):
        found = refusals._installed_already(Client(foreign), "shared")  # type: ignore[arg-type]
        assert found is None if said is None else (found or "").startswith(said)


def test_what_a_second_stack_of_the_cluster_would_run_into_says_whose_it_is(up: Callable[..., Any]) -> None:
    engine = up()
    for kind, names in (("Namespace", ("cert-manager", "kserve", "nvidia")), ("StorageClass", ("gp3", "gp3-weights"))):
        for name in names:
            assert engine.named(kind, name).inputs["metadata"]["labels"]["mistral-on-l4/stack"] == "dev"


def test_a_pool_of_the_platforms_own_name_is_refused(up: Callable[..., Any]) -> None:
    groups = [{"name": "system", "instanceType": "g6.2xlarge"}, {"name": "l4-4gpu", "instanceType": "g6.12xlarge"}]
    services = [{"name": "a", "variant": "w4a16", "prefix": "a/", "pool": "system"}]
    with pytest.raises(pulumi.RunError, match="the platform has a pool 'system' of its own"):
        up(pools={"groups": only_pools(*groups)}, services=only_services(*services))


# -- nodes -------------------------------------------------------------------------------------------------------------------


def test_gpu_pools_have_the_nvidia_image_the_taint_the_label_and_the_planned_size(up: Callable[..., Any]) -> None:
    engine = up()
    for name, instance_type in (("l4-1gpu", "g6.2xlarge"), ("l4-4gpu", "g6.12xlarge")):
        inputs = pool(engine, name).inputs
        assert inputs["amiType"] == "AL2023_x86_64_NVIDIA"
        assert inputs["instanceTypes"] == [instance_type]
        assert inputs["capacityType"] == "ON_DEMAND"
        assert inputs["labels"] == {"mistral-on-l4/pool": name, "nvidia.com/gpu.present": "true"}
        assert inputs["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}]
        assert inputs["scalingConfig"] == {"minSize": 0, "desiredSize": 1, "maxSize": 1}
        assert inputs["releaseVersion"] == "1.36.1-20260714"


def test_a_node_group_that_does_not_come_up_is_explained_in_words_and_not_tried_again(
    up: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", said.append)
    hook = up().error_hooks["pool-l4-4gpu-explanation"]
    error = "CREATE_FAILED: AsgInstanceLaunchFailures: Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested"
    again = hook.callback(pulumi.ErrorHookArgs("urn", "id", "pool", "aws:eks/nodeGroup:NodeGroup", errors=[error]))
    assert again is False
    assert len(said) == 1
    assert said[0].startswith("pool-l4-4gpu: VcpuLimitExceeded: the account's vCPU quota for these instances is too small")
    hook.callback(pulumi.ErrorHookArgs("urn", "id", "pool", "aws:eks/nodeGroup:NodeGroup", errors=["context deadline exceeded"]))
    assert len(said) == 1


def test_a_pool_whose_zones_run_dry_is_told_with_its_zones_and_the_types_that_the_plan_would_take(
    up: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", said.append)
    hook = up().error_hooks["pool-l4-4gpu-explanation"]
    error = "AsgInstanceLaunchFailures: InsufficientInstanceCapacity - We currently do not have sufficient g6.12xlarge capacity"
    hook.callback(pulumi.ErrorHookArgs("urn", "id", "pool", "aws:eks/nodeGroup:NodeGroup", errors=[error]))
    (line,) = said
    assert "g6.12xlarge was asked for in us-east-1a, us-east-1b, us-east-1c" in line
    # Cheapest first, and each with four cards on which BF16 loads.
    assert "also run on g5.12xlarge, g6.24xlarge, g6e.12xlarge: " in line
    assert "`pulumi config set --path 'mistral-on-l4:pools.groups.l4-4gpu.instanceType' g5.12xlarge -s dev`" in line


def test_a_spot_pool_asks_for_all_its_types_and_a_dry_one_is_told_which_to_add(
    up: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = {"capacityType": "SPOT", "alsoInstanceTypes": ["g6.4xlarge"]}
    engine = up(pools={"groups": {"l4-1gpu": group}})
    assert pool(engine, "l4-1gpu").inputs["instanceTypes"] == ["g6.2xlarge", "g6.4xlarge"]
    assert pool(engine, "l4-1gpu").inputs["capacityType"] == "SPOT"
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", said.append)
    hook = engine.error_hooks["pool-l4-1gpu-explanation"]
    hook.callback(pulumi.ErrorHookArgs("urn", "id", "pool", "aws:eks/nodeGroup:NodeGroup", errors=["UnfulfillableCapacity"]))
    assert "g6.2xlarge, g6.4xlarge was asked for in us-east-1a" in said[0]
    assert "groups.l4-1gpu.alsoInstanceTypes[1]' gr6.4xlarge -s dev`" in said[0]


@pytest.mark.parametrize("token", ["kubernetes:batch/v1:Job", "kubernetes:apps/v1:StatefulSet", SERVICE_TOKEN])
def test_whatever_waits_for_pods_repeats_their_last_words_when_it_fails(
    token: str, up: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = up()
    bound = [registered.error_hooks for registered in engine.of(token)]
    assert bound
    assert all("eks-kubernetes-last-words" in hooks for hooks in bound)
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", said.append)
    monkeypatch.setattr(last_words, "_client", lambda kubeconfig: create_autospec(KubeClient, instance=True))
    monkeypatch.setattr(last_words, "last_words", lambda client, namespace, selector: [f"pod of {namespace} {selector}", "  why"])
    hook = engine.error_hooks["eks-kubernetes-last-words"]
    inputs = {"metadata": {"name": "it", "namespace": "ai"}, "spec": {"selector": {"matchLabels": {"app": "it"}}}}
    failed = pulumi.ErrorHookArgs("urn", "id", "it", token, new_inputs=inputs, failed_operation="create", errors=["timed out"])
    assert hook.callback(failed) is False
    kind = token.rpartition(":")[2]
    assert said[0].startswith(f"{kind} ai/it: pod of ai ")
    assert said[0].endswith("=it\n  why")


def test_a_preview_asks_the_hub_for_each_checkpoint_with_the_token_of_the_seed_jobs_and_an_up_does_not(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    ask = create_autospec(PROBLEM_OF, side_effect=lambda repository, *_: f"{repository} is gated" if "FP8" in repository else None)
    monkeypatch.setattr(hub_access, "problem_of", ask)
    run_program(stack="dev", preview=True, engine=engine_of(), hubToken="hf-not-a-real-token")
    assert {call.args[2:] for call in ask.call_args_list} == {("https://huggingface.co", "hf-not-a-real-token")}
    assert len(ask.call_args_list) == 2
    assert len([text for text in said if text.endswith("is gated")]) == 1
    ask.reset_mock()
    run_program(stack="dev", engine=engine_of())
    assert not ask.called


def test_a_pinned_node_image_is_not_looked_up(run_program: Callable[..., Any], engine_of: Callable[..., Any]) -> None:
    engine = run_program(stack="dev", engine=engine_of(), cluster={"gpuReleaseVersion": "1.36.0-20260601"})
    assert pool(engine, "l4-4gpu").inputs["releaseVersion"] == "1.36.0-20260601"
    assert "releaseVersion" not in pool(engine, "system").inputs
    assert "aws:ssm/getParameter:getParameter" not in engine.invoked


def test_a_pinned_node_image_of_another_kubernetes_is_refused(up: Callable[..., Any]) -> None:
    with pytest.raises(
        pulumi.RunError,
        match=r"gpuReleaseVersion 1\.35\.6-20260714 is a node image for another Kubernetes than the cluster's 1\.36",
    ):
        up(cluster={"gpuReleaseVersion": "1.35.6-20260714"})


@pytest.mark.parametrize(
    ("cluster", "ignored", "replaces"),
    [({}, ["releaseVersion"], None), ({"gpuReleaseVersion": "1.36.0-20260601"}, None, ["releaseVersion"])],
)
def test_a_newer_image_is_ignored_and_a_pinned_one_wanted(
    run_program: Callable[..., Any],
    engine_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    cluster: Any,
    ignored: Any,
    replaces: Any,
) -> None:
    from components.aws import node_pool

    # The engine is told of them, and the recording one does not keep them.
    options: dict[str, pulumi.ResourceOptions] = {}

    node_group = node_pool.eks.NodeGroup

    def noted(name: str, *, opts: pulumi.ResourceOptions, **inputs: Any) -> Any:
        options[name] = opts
        return node_group(name, opts=opts, **inputs)

    monkeypatch.setattr(node_pool.eks, "NodeGroup", noted)
    run_program(stack="dev", engine=engine_of(), cluster=cluster)
    found = options["pool-l4-1gpu-nodes"]
    assert (found.ignore_changes, found.replace_on_changes) == (ignored, replaces)


def test_an_update_of_gpu_nodes_needs_no_room_for_twice_as_many(up: Callable[..., Any]) -> None:
    engine = up()
    assert pool(engine, "l4-4gpu").inputs["updateConfig"] == {"maxUnavailable": 1, "updateStrategy": "MINIMAL"}
    assert pool(engine, "storage").inputs["updateConfig"] == {"maxUnavailable": 1}


def test_every_node_group_has_a_launch_template_and_so_no_disk_size_no_fixed_name_and_no_security_group(
    up: Callable[..., Any],
) -> None:
    engine = up()
    assert len(engine.of("NodeGroup")) == 4
    for group in engine.of("NodeGroup"):
        assert group.inputs["launchTemplate"]["version"] == "1"
        assert not {"diskSize", "nodeGroupName", "remoteAccess"} & set(group.inputs)
    for template in engine.of("LaunchTemplate"):
        assert not {"imageId", "instanceType", "vpcSecurityGroupIds", "networkInterfaces"} & set(template.inputs)
        assert template.inputs["metadataOptions"] == {
            "httpEndpoint": "enabled",
            "httpTokens": "required",
            "httpPutResponseHopLimit": 1,
        }
        (disk,) = template.inputs["blockDeviceMappings"]
        assert (disk["ebs"]["encrypted"], disk["ebs"]["volumeType"]) == ("true", "gp3")
        for spec in template.inputs["tagSpecifications"]:
            assert {"mistral-on-l4:stack", "owner", "expires"} <= set(spec["tags"])
        assert {spec["resourceType"] for spec in template.inputs["tagSpecifications"]} == {"instance", "volume"}


def test_weights_land_on_the_instances_own_disks_where_there_are_any(up: Callable[..., Any]) -> None:
    engine = up()
    document = base64.b64decode(template_of(engine, "l4-4gpu").inputs["userData"]).decode()
    assert document.startswith("MIME-Version: 1.0\nContent-Type: multipart/mixed")
    part = document.split("Content-Type: application/node.eks.aws\n\n")[1].split("\n--")[0]
    node = yaml.safe_load(part)
    assert node["kind"] == "NodeConfig"
    assert node["spec"]["instance"]["localStorage"]["strategy"] == "RAID0"
    assert "userData" not in template_of(engine, "system").inputs


def test_a_spot_pool_of_three_asks_for_spot_and_three(up: Callable[..., Any]) -> None:
    groups = [
        {"name": "l4-1gpu", "instanceType": "g6.2xlarge", "count": 3, "capacityType": "SPOT"},
        {"name": "l4-4gpu", "instanceType": "g6.12xlarge", "count": 0},
    ]
    engine = up(pools={"groups": only_pools(*groups)})
    assert pool(engine, "l4-1gpu").inputs["capacityType"] == "SPOT"
    assert pool(engine, "l4-1gpu").inputs["scalingConfig"] == {"minSize": 0, "desiredSize": 3, "maxSize": 3}
    # Zero is a size; a largest size of zero is none to AWS.
    assert pool(engine, "l4-4gpu").inputs["scalingConfig"] == {"minSize": 0, "desiredSize": 0, "maxSize": 1}


def test_a_pool_starts_only_in_zones_that_offer_its_type(up: Callable[..., Any]) -> None:
    offered = {"g6.2xlarge": ("us-east-1b",), "g6.12xlarge": ("us-east-1a", "us-east-1b")}
    engine = up({"offered": offered, "clusters": {"shared": existing("shared")}}, cluster={"name": "shared", "existing": True})
    assert pool(engine, "l4-1gpu").inputs["subnetIds"] == ["subnet-b"]
    assert pool(engine, "l4-4gpu").inputs["subnetIds"] == ["subnet-a", "subnet-b"]


def test_the_store_has_a_node_and_a_fast_volume_of_its_own(up: Callable[..., Any]) -> None:
    engine = up(objectStore={"volumeThroughputMibps": 1000})
    store = engine.named("StatefulSet", "minio").inputs["spec"]
    assert store["template"]["spec"]["nodeSelector"] == {"mistral-on-l4/pool": "storage"}
    assert pool(engine, "storage").inputs["labels"] == {"mistral-on-l4/pool": "storage"}
    claim = next(found for found in engine.of("PersistentVolumeClaim") if found.name == "store-data")
    assert {"claimName": "store-data-0a1b2c3"} in [
        volume.get("persistentVolumeClaim") for volume in store["template"]["spec"]["volumes"]
    ]
    wanted = claim.inputs["spec"]["storageClassName"]
    parameters = engine.named("StorageClass", wanted).inputs["parameters"]
    assert (parameters["throughput"], parameters["iops"], parameters["encrypted"]) == ("1000", "4000", "true")
    assert "mistral-on-l4:stack=dev" in parameters.values()
    assert all(isinstance(text, str) for text in parameters.values())


def test_what_holds_volumes_stays_in_the_nat_gateways_zone_and_gpus_may_start_in_any(up: Callable[..., Any]) -> None:
    engine = up()
    first = "mistral-on-l4-dev-private-0-id"
    assert pool(engine, "storage").inputs["subnetIds"] == pool(engine, "system").inputs["subnetIds"] == [first]
    assert len(pool(engine, "l4-4gpu").inputs["subnetIds"]) == 3
    (nat,) = engine.of("aws:ec2/natGateway:NatGateway")
    public = next(found for found in engine.of("aws:ec2/subnet:Subnet") if nat.inputs["subnetId"] == f"{found.name}-id")
    private = next(found for found in engine.of("aws:ec2/subnet:Subnet") if f"{found.name}-id" == first)
    assert public.inputs["availabilityZone"] == private.inputs["availabilityZone"]


def test_an_external_store_needs_no_storage_node_no_certificate_and_no_raised_volume(up: Callable[..., Any]) -> None:
    engine = up(
        objectStore={"kind": "external", "endpoint": "https://s3.us-east-1.amazonaws.com"},
        storeAccessKeyId="AKIAEXAMPLE",
        storeSecretAccessKey="not-a-real-secret",
    )
    assert [found for found in engine.of("NodeGroup") if found.inputs["nodeGroupNamePrefix"] == "storage-"] == []
    assert [found for found in engine.resources if found.token.startswith("kubernetes:cert-manager.io/")] == []


def test_pools_that_start_after_the_seed_wait_for_every_checkpoint_and_others_for_none(up: Callable[..., Any]) -> None:
    before = {found.name for found in upstream(*_with(up(), "l4-1gpu"))}
    assert not any(name.endswith("-seed") for name in before)
    after = {found.name for found in upstream(*_with(up(pools={"start": "after-seed"}), "l4-1gpu"))}
    assert {"mistral-24b-seed", "mistral-24b-fp8-seed"} <= after


def _with(engine: Any, name: str) -> tuple[Any, Any]:
    return engine, pool(engine, name)


# -- order -------------------------------------------------------------------------------------------------------------------


def test_destroy_takes_services_first_then_registry_store_and_kserve_then_nodes_cluster_and_network(up: Callable[..., Any]) -> None:
    engine = up()
    for service in engine.of("InferenceService"):
        if not service.token.startswith("kubernetes:"):
            continue
        before = upstream(engine, service)
        assert {"minio", "private-ai-registry", "kserve", "kserve-crd", "cert-manager"} <= {
            str((found.inputs.get("metadata") or {}).get("name") or found.inputs.get("name")) for found in before
        }
        groups = {found.inputs["nodeGroupNamePrefix"] for found in before if found.token.endswith(":NodeGroup")}
        assert {"system-", "storage-"} < groups
        assert groups & {"l4-1gpu-", "l4-4gpu-"}
    for name in ("kserve", "cert-manager", "nvidia-device-plugin"):
        assert "aws:eks/nodeGroup:NodeGroup" in tokens_before(engine, release(engine, name))
    for group in engine.of("NodeGroup"):
        before_group = tokens_before(engine, group)
        assert {"aws:eks/cluster:Cluster", "aws:ec2/natGateway:NatGateway", "aws:ec2/vpcEndpoint:VpcEndpoint"} <= before_group
        addons = {found.inputs["addonName"] for found in upstream(engine, group) if found.token.endswith(":Addon")}
        assert addons == {"vpc-cni", "kube-proxy", "eks-pod-identity-agent"}
    assert "aws:ec2/routeTableAssociation:RouteTableAssociation" in tokens_before(engine, engine.of("aws:eks/cluster:Cluster")[0])


def test_roles_outlive_what_uses_them(up: Callable[..., Any]) -> None:
    engine = up()
    attached = {
        purpose: {
            found.inputs["policyArn"].rpartition("/")[2]
            for found in upstream(engine, user)
            if found.name.startswith(purpose) and found.token.endswith(":RolePolicyAttachment")
        }
        for purpose, user in (
            ("eks-control-plane", engine.of("aws:eks/cluster:Cluster")[0]),
            ("nodes", pool(engine, "l4-4gpu")),
            ("storage-driver", _addon(engine, "aws-ebs-csi-driver")),
        )
    }
    assert attached == {
        "eks-control-plane": {"AmazonEKSClusterPolicy"},
        "nodes": {"AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy"},
        "storage-driver": {"AmazonEBSCSIDriverPolicy"},
    }


def _addon(engine: Any, name: str) -> Any:
    return next(found for found in engine.of("aws:eks/addon:Addon") if found.inputs["addonName"] == name)


def test_volumes_go_while_their_driver_lives(up: Callable[..., Any]) -> None:
    engine = up()
    before = {found.inputs.get("addonName") for found in upstream(engine, engine.named("StatefulSet", "minio"))}
    assert "aws-ebs-csi-driver" in before


def test_the_guard_of_volumes_goes_after_every_claim_and_before_the_driver_and_may_take_its_time(up: Callable[..., Any]) -> None:
    engine = up()
    guard = engine.named("Deployment", "volume-guard")
    pod = guard.inputs["spec"]["template"]["spec"]
    environment = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    namespaces = environment["VOLUME_NAMESPACES"].split(",")
    assert pod["terminationGracePeriodSeconds"] > int(environment["VOLUME_SECONDS"])
    before = upstream(engine, guard)
    assert _addon(engine, "aws-ebs-csi-driver") in before
    # Its account outlives it: it reads until the end.
    assert {"ClusterRole", "ClusterRoleBinding", "ServiceAccount"} <= {found.token.rpartition(":")[2] for found in before}
    claims = engine.of("PersistentVolumeClaim")
    assert {found.inputs["metadata"]["namespace"] for found in claims} == set(namespaces)
    for found in [*claims, *(engine.named("Namespace", name) for name in namespaces)]:
        assert guard in upstream(engine, found)


def test_an_adopted_cluster_keeps_its_driver_and_needs_no_guard(up: Callable[..., Any]) -> None:
    engine = up({"clusters": {"shared": existing("shared")}}, cluster={"name": "shared", "existing": True})
    assert not [found for found in engine.of("Deployment") if found.inputs["metadata"]["name"] == "volume-guard"]


def test_no_service_asks_aws_for_a_load_balancer(up: Callable[..., Any]) -> None:
    engine = up()
    assert all(found.inputs["spec"].get("type", "ClusterIP") == "ClusterIP" for found in engine.of("kubernetes:core/v1:Service"))


# -- software ----------------------------------------------------------------------------------------------------------------


def test_add_ons_carry_what_their_defaults_leave_out(up: Callable[..., Any]) -> None:
    engine = up()
    assert json.loads(_addon(engine, "vpc-cni").inputs["configurationValues"]) == {"enableNetworkPolicy": "true"}
    driver = _addon(engine, "aws-ebs-csi-driver").inputs
    assert json.loads(driver["configurationValues"])["controller"]["extraVolumeTags"]["mistral-on-l4:stack"] == "dev"
    assert driver["podIdentityAssociations"][0]["serviceAccount"] == "ebs-csi-controller-sa"
    assert not any(found.inputs.get("preserve") for found in engine.of("aws:eks/addon:Addon"))


def test_charts_are_pinned_and_kserve_comes_after_its_definitions_and_certificates(up: Callable[..., Any]) -> None:
    engine = up()
    versions = {found.inputs["name"]: found.inputs["version"] for found in engine.of("kubernetes:helm.sh/v3:Release")}
    assert versions == {
        "cert-manager": "v1.21.1",
        "kserve-crd": "v0.20.0",
        "kserve": "v0.20.0",
        "nvidia-device-plugin": "0.20.0",
        "dcgm-exporter": "4.8.2",
    }
    before = {found.inputs.get("name") for found in upstream(engine, release(engine, "kserve"))}
    assert {"cert-manager", "kserve-crd"} <= before
    values = release(engine, "kserve").inputs["values"]["kserve"]
    assert values["controller"]["deploymentMode"] == "Standard"
    assert values["controller"]["gateway"] == {"disableIngressCreation": True}
    assert release(engine, "cert-manager").inputs["values"]["crds"] == {"enabled": True, "keep": False}


def test_downloads_get_as_much_as_every_services_own_container_asks_for_and_can_use(up: Callable[..., Any]) -> None:
    def size(engine: Any) -> Any:
        spec = engine.named("ClusterStorageContainer", "services-with-a-storage-key").inputs["spec"]
        return spec["container"]["resources"]["requests"]

    assert size(up()) == {"cpu": "4", "memory": "4Gi"}
    small = up(
        pools={"groups": {"l4-1gpu": None, "small": {"instanceType": "g6e.xlarge"}}},
        services={"mistral-24b-fp8": None, "mistral-24b-w4a16": {"enabled": True, "pool": "small"}},
    )
    assert size(small) == {"cpu": "3", "memory": "4Gi"}


def test_gpu_software_reaches_tainted_gpu_nodes_and_no_others(up: Callable[..., Any]) -> None:
    engine = up()
    for name in ("nvidia-device-plugin", "dcgm-exporter"):
        values = release(engine, name).inputs["values"]
        assert values["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert values["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert _of_our_pools(values)
    pull = engine.named("DaemonSet", "engine-image").inputs["spec"]["template"]["spec"]
    assert _of_our_pools(pull)
    assert "nvidia.com/gpu" not in json.dumps(pull["containers"][0]["resources"])


def test_nothing_waits_for_metrics(up: Callable[..., Any]) -> None:
    engine = up()
    metrics = release(engine, "dcgm-exporter")
    waiting = [found.name for found in engine.resources if metrics.urn in found.depends_on]
    assert waiting == []
    # The same question about a chart that is needed finds somebody.
    assert [found for found in engine.resources if release(engine, "nvidia-device-plugin").urn in found.depends_on]


def test_the_pod_that_pulls_the_engines_image_gets_nothing_of_nvidias_and_room_for_the_runtimes_hooks(
    up: Callable[..., Any],
) -> None:
    (container,) = up().named("DaemonSet", "engine-image").inputs["spec"]["template"]["spec"]["containers"]
    # `none` still injects the driver's files.
    assert container["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    assert container["resources"]["limits"]["memory"] == "64Mi"


def model_of(engine: Any, service: str) -> Any:
    return engine.named("InferenceService", service).inputs["spec"]["predictor"]["model"]


def test_cards_that_talk_through_the_host_do_without_nccls_host_memory_of_cuda(up: Callable[..., Any]) -> None:
    engine = up()
    environment = {entry["name"]: entry.get("value") for entry in model_of(engine, "mistral-24b-full")["env"]}
    assert environment["NCCL_CUMEM_HOST_ENABLE"] == "0"
    assert [entry["name"] for entry in model_of(engine, "mistral-24b-fp8")["env"]] == ["VLLM_API_KEY"]


def test_a_service_on_several_gpus_may_compile_for_a_quarter_of_an_hour_at_its_first_start(up: Callable[..., Any]) -> None:
    engine = up()
    probe = model_of(engine, "mistral-24b-full")["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 900
    single = model_of(engine, "mistral-24b-fp8")["startupProbe"]
    assert single["failureThreshold"] * single["periodSeconds"] < 900
    # Image and download come before the probe, and the wait for the service holds all three.
    annotations = engine.named("InferenceService", "mistral-24b-full").inputs["metadata"]["annotations"]
    assert int(annotations["pulumi.com/timeoutSeconds"]) > 900 + 300


def test_no_container_writes_where_the_runtime_makes_the_parents_of_a_mount(up: Callable[..., Any]) -> None:
    made_somewhere = set()
    for container in containers_of(up()):
        paths = [mount["mountPath"] for mount in container.get("volumeMounts") or ()]
        # Missing folders above a mount belong to root: between it and the mount that it lies in, or the image.
        made = {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"/", *paths}
        written = {entry["value"] for entry in container.get("env") or () if entry["name"] in WRITTEN}
        assert not made & written, container["name"]
        made_somewhere |= made
    assert "/mc/certs" in made_somewhere


# Environment variables that name a folder which a program writes into.
WRITTEN = {"HOME", "TMPDIR", "MC_CONFIG_DIR", "PGDATA", "HF_HOME", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT"}


def containers_of(engine: Any) -> Iterator[Mapping[str, Any]]:
    """Every container of the stack's own manifests."""

    def look(value: Any) -> Iterator[Mapping[str, Any]]:
        if isinstance(value, dict):
            yield from value.get("containers") or () if isinstance(value.get("containers"), list) else ()
            for inner in value.values():
                yield from look(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from look(inner)

    for found in engine.resources:
        if found.token.startswith("kubernetes:") and not found.token.endswith(":Release"):
            yield from look(found.inputs)


def _of_our_pools(spec: Mapping[str, Any]) -> bool:
    """Whether it stays off GPU nodes that an adopted cluster has of its own."""
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return {"key": "mistral-on-l4/pool", "operator": "Exists"} in term["matchExpressions"]


def test_a_mirror_stands_in_front_of_the_charts_images_too(up: Callable[..., Any]) -> None:
    engine = up(images={"mirror": "mirror.example.com/all"})
    values = release(engine, "cert-manager").inputs["values"]
    assert values["image"]["repository"] == "mirror.example.com/all/jetstack/cert-manager-controller"
    assert values["webhook"]["image"]["repository"] == "mirror.example.com/all/jetstack/cert-manager-webhook"
    assert (
        release(engine, "kserve").inputs["values"]["kserve"]["storage"]["image"]
        == "mirror.example.com/all/kserve/storage-initializer"
    )
    assert "image" not in release(up(), "cert-manager").inputs["values"]


def test_the_store_speaks_tls_and_only_its_namespace_holds_the_key(up: Callable[..., Any]) -> None:
    engine = up()
    certificate = engine.named("Certificate", "minio-tls").inputs["spec"]
    assert "minio.minio-storage.svc" in certificate["dnsNames"]
    assert engine.named("Certificate", "minio-ca").inputs["spec"]["isCA"] is True
    trusted = [
        found for found in engine.of("kubernetes:core/v1:Secret") if found.inputs.get("metadata", {}).get("name") == "minio-tls"
    ]
    assert [found.inputs["metadata"]["namespace"] for found in trusted] == ["rhoai-model-registries"]
    assert trusted[0].inputs["stringData"] == {"ca.crt": "an authority"}
    config = engine.named("ConfigMap", "minio-ca").inputs
    assert (config["metadata"]["namespace"], config["data"]) == ("private-ai", {"cabundle.crt": "an authority"})
    storage = json.loads(engine.named("Secret", "storage-config").inputs["stringData"]["minio"])
    assert storage["endpoint_url"] == "https://minio.minio-storage.svc:9000"
    assert storage["cabundle_configmap"] == "minio-ca"


def test_the_registry_keeps_its_data_in_postgresql(up: Callable[..., Any]) -> None:
    names = {found.inputs["metadata"]["name"] for found in up().of("StatefulSet")}
    assert len(names) == 2
    assert "minio" in names


# -- previews ----------------------------------------------------------------------------------------------------------------


def test_a_preview_before_the_first_up_declares_everything_though_it_knows_no_endpoint(
    run_program: Callable[..., Any],
) -> None:
    unknown = Engine(calls=account())
    previewed = run_program(stack="dev", preview=True, engine=unknown)
    done = run_program(stack="dev", engine=Engine(calls=account(), outputs=OUTPUTS))
    known = {(found.token, found.name) for found in previewed.resources}
    missing = {(found.token, found.name) for found in done.resources} - known
    assert missing == set()


# -- the account's provider ------------------------------------------------------------------------------------------------------


STACK_TAGS = {"mistral-on-l4:stack": "dev", "owner": "platform-team", "expires": "2027-01-31"}
SHARED = {"clusters": {"shared": existing("shared")}}
ADOPTED = {"name": "shared", "existing": True}


def account_provider(engine: Any) -> Any:
    (provider,) = engine.of("pulumi:providers:aws")
    return provider


def test_everything_on_aws_is_made_and_asked_by_the_stacks_own_provider(up: Callable[..., Any]) -> None:
    network = {"existingVpcId": "vpc-1", "existingSubnetIds": ["subnet-a", "subnet-b"]}
    admins = {"adminPrincipalArns": ["arn:aws:iam::123456789012:role/admin"]}
    for engine in (up(), up(SHARED, cluster=ADOPTED), up(network=network), up(cluster=admins), up(pools={"start": "after-seed"})):
        provider = account_provider(engine)
        made = [found for found in engine.resources if found.token.startswith("aws:")]
        assert made
        assert {found.provider for found in made} == {provider.urn}
        assert engine.invoked
        assert set(engine.asked_of) == {provider.urn}


def test_every_object_goes_to_the_cluster_by_its_own_provider(up: Callable[..., Any]) -> None:
    for engine in (up(), up(SHARED, cluster=ADOPTED)):
        (provider,) = engine.of("pulumi:providers:kubernetes")
        objects = [found for found in engine.resources if found.token.startswith("kubernetes:")]
        assert objects
        assert {found.provider for found in objects} == {provider.urn}


def test_the_region_is_the_stacks_whatever_the_environment_says(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    engine = run_program(stack="dev", engine=engine_of(), **{"aws:region": "us-east-1"})
    assert account_provider(engine).inputs["region"] == "us-east-1"
    # Where it is not named for the program, it is the provider's.
    assert not any("region" in arguments for _, arguments in engine.arguments)


def test_two_regions_in_one_configuration_are_refused(up: Callable[..., Any]) -> None:
    with pytest.raises(pulumi.RunError, match="mistral-on-l4:region is us-east-1 and aws:region is eu-central-1: set one of them"):
        up(region="us-east-1", **{"aws:region": "eu-central-1"})


def test_all_that_bills_is_tagged_by_the_provider_and_what_it_does_not_reach_by_itself(up: Callable[..., Any]) -> None:
    engine = up()
    assert json.loads(account_provider(engine).inputs["defaultTags"]) == {"tags": STACK_TAGS}
    # Its own tags would win over the provider's.
    assert not any(
        set(STACK_TAGS) & set(found.inputs.get("tags") or {}) for found in engine.resources if found.token.startswith("aws:")
    )
    for template in engine.of("LaunchTemplate"):
        for spec in template.inputs["tagSpecifications"]:
            assert spec["tags"].items() >= STACK_TAGS.items()
    driver = json.loads(_addon(engine, "aws-ebs-csi-driver").inputs["configurationValues"])
    assert driver["controller"]["extraVolumeTags"] == STACK_TAGS
    for name in ("gp3", "gp3-weights"):
        parameters = engine.named("StorageClass", name).inputs["parameters"]
        assert {f"{key}={value}" for key, value in STACK_TAGS.items()} <= set(parameters.values())


def test_tags_that_a_company_asks_of_everything_stand_beside_the_stacks_own(up: Callable[..., Any]) -> None:
    engine = up(**{"aws:defaultTags": {"tags": {"cost-centre": "4711", "owner": "somebody"}}})
    wanted = {**STACK_TAGS, "cost-centre": "4711"}
    assert json.loads(account_provider(engine).inputs["defaultTags"]) == {"tags": wanted}
    for spec in template_of(engine, "l4-4gpu").inputs["tagSpecifications"]:
        assert spec["tags"].items() >= wanted.items()


def test_tags_reach_the_provider_as_they_are_also_where_they_are_called_like_an_input(up: Callable[..., Any]) -> None:
    tags = {"cidr_block": "a tag", "vpcId": "another"}
    engine = up(**{"aws:defaultTags": {"tags": tags}})
    assert json.loads(account_provider(engine).inputs["defaultTags"])["tags"].items() >= tags.items()
    for spec in template_of(engine, "system").inputs["tagSpecifications"]:
        assert spec["tags"].items() >= tags.items()
    (public,) = [found for found in engine.of("aws:ec2/subnet:Subnet") if "public" in found.name]
    assert set(public.inputs["tags"]) == {"Name"}


def test_who_makes_the_cluster_signs_for_its_tokens_as_well(up: Callable[..., Any]) -> None:
    engine = up(**{"aws:profile": "demo-admin"})
    assert account_provider(engine).inputs["profile"] == "demo-admin"
    (kubernetes,) = engine.of("pulumi:providers:kubernetes")
    (user,) = json.loads(kubernetes.inputs["kubeconfig"])["users"]
    assert user["user"]["exec"]["args"][-2:] == ["--profile", "demo-admin"]
    assert "profile" not in account_provider(up()).inputs


def test_the_look_into_an_adopted_cluster_signs_by_the_profile_too(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.aws import refusals

    asked: list[Any] = []
    monkeypatch.setattr(refusals, "session", lambda *arguments: asked.append(arguments))
    run_program(stack="dev", engine=engine_of(**SHARED), cluster=ADOPTED, **{"aws:profile": "demo-admin"})
    assert asked == [("us-east-1", "demo-admin")]


@pytest.mark.parametrize("key", ["accessKey", "secretKey", "token"])
def test_a_static_key_in_the_configuration_is_refused_and_not_shown(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], key: str
) -> None:
    engine = engine_of()
    with pytest.raises(pulumi.RunError, match=rf"aws:{key} is a credential .* set aws:profile NAME") as refusal:
        run_program(stack="dev", engine=engine, **{f"aws:{key}": "not-to-be-shown"})
    assert "not-to-be-shown" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not [found for found in engine.resources if "aws" in found.token]


def test_a_role_to_assume_belongs_into_a_profile(up: Callable[..., Any]) -> None:
    with pytest.raises(pulumi.RunError, match=r"aws:assumeRoles is not used, .* would sign as somebody else"):
        up(**{"aws:assumeRoles": [{"roleArn": "arn:aws:iam::123456789012:role/ops"}]})


def test_no_key_of_the_providers_configuration_is_ignored_in_silence(up: Callable[..., Any]) -> None:
    import pulumi_aws

    from components.aws import provider

    handled = {*provider.TEXTS, *provider.VALUES, *provider.STATIC_KEYS, *provider.OTHER_PRINCIPALS, *provider.NOT_BUILT}
    known = {name.replace("_", "") for name in inspect.signature(pulumi_aws.ProviderArgs).parameters}
    # A role can be given as a list of one, or by itself as in older releases.
    assert known == {key.lower() for key in handled} - {"assumerole"} | {"region", "defaulttags"}
    engine = up(
        **{"aws:maxRetries": 3, "aws:allowedAccountIds": ["123456789012"], "aws:httpProxy": "http://proxy.example.com:3128"}
    )
    inputs = account_provider(engine).inputs
    assert (inputs["maxRetries"], inputs["allowedAccountIds"]) == ("3", '["123456789012"]')
    assert inputs["httpProxy"] == "http://proxy.example.com:3128"


# -- the engine's image ------------------------------------------------------------------------------------------------------------


def test_the_image_that_is_pulled_ahead_is_the_one_that_serves(
    run_program: Callable[..., Any], engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from components import stack

    plan_stack = stack.plan_stack

    def with_another_image(*args: Any, **kwargs: Any) -> Any:
        plan = plan_stack(*args, **kwargs)
        services = [dataclasses.replace(service, image="registry.example.com/vllm:next") for service in plan.services]
        return dataclasses.replace(plan, services=tuple(services))

    monkeypatch.setattr(stack, "plan_stack", with_another_image)
    for mirror, image in ({}, "registry.example.com/vllm:next"), ({"mirror": "mirror.example.com"}, "mirror.example.com/vllm:next"):
        engine = run_program(stack="dev", engine=engine_of(), images=mirror)
        (pulled,) = engine.named("DaemonSet", "engine-image").inputs["spec"]["template"]["spec"]["containers"]
        (runtime,) = engine.of("ServingRuntime")
        assert pulled["image"] == runtime.inputs["spec"]["containers"][0]["image"] == image


@pytest.mark.parametrize(("backend", "refused"), [("{home}/pulumi-state", True), ("{home}/elsewhere", False), ("", False)])
def test_an_up_in_the_local_stacks_shell_is_refused_and_a_rehearsal_there_is_not(
    run_program: Callable[..., Engine],
    engine_of: Callable[..., Engine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    refused: bool,
) -> None:
    monkeypatch.setenv("MISTRAL_ON_L4_HOME", str(tmp_path))
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{backend.format(home=tmp_path)}")
    monkeypatch.delenv("MISTRAL_ON_L4_ACCOUNT", raising=False)
    if refused:
        with pytest.raises(
            pulumi.RunError, match=f"^this shell belongs to the local stack in {tmp_path}, and stack dev runs on eks: "
        ):
            run_program(stack="dev", engine=engine_of())
        monkeypatch.setenv("MISTRAL_ON_L4_ACCOUNT", str(tmp_path / "account.json"))
    run_program(stack="dev", engine=engine_of())
