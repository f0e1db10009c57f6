"""Reading a rehearsal: an order that is not tied down, or was not kept, is found; and what is left, too."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from embedded.cli import theatre as theatre_module
from embedded.home import LocalHome
from embedded.plugins.aws.faults import Switch
from embedded.rehearsal import edges_in_events, edges_in_state, left_over, refusals, resources_of
from mistral_on_l4.cli import Failure


def resource(token: str, name: str, *dependencies: str, parent: str = "", **inputs: Any) -> dict[str, Any]:
    return {
        "type": token,
        "urn": urn(name),
        "inputs": inputs,
        "dependencies": [urn(found) for found in dependencies],
        "parent": parent,
    }


def urn(name: str) -> str:
    return f"urn:pulumi:dev::p::t::{name}"


def stack(service: tuple[str, ...] = ("store", "pool"), store: tuple[str, ...] = ("system",)) -> list[dict[str, Any]]:
    spec = {"predictor": {"nodeSelector": {"mistral-on-l4/pool": "l4-1gpu"}}}
    return [
        resource("aws:ec2/vpc:Vpc", "vpc"),
        resource("aws:eks/cluster:Cluster", "cluster", "vpc"),
        resource("aws:eks/nodeGroup:NodeGroup", "system", "cluster", nodeGroupNamePrefix="system-"),
        resource("aws:eks/nodeGroup:NodeGroup", "pool", "cluster", nodeGroupNamePrefix="l4-1gpu-"),
        resource("aws:eks/nodeGroup:NodeGroup", "other", "cluster", nodeGroupNamePrefix="l4-4gpu-"),
        resource("kubernetes:apps/v1:StatefulSet", "store", *store, metadata={"labels": {"a": "b"}}),
        resource("kubernetes:serving.kserve.io/v1beta1:InferenceService", "service", *service, spec=spec),
    ]


def test_a_stack_that_is_tied_together_has_no_violation_and_the_other_pool_is_none_of_the_services_business() -> None:
    found = edges_in_state(stack())
    assert found.violated == ()
    # service-store, service-pool, service-system, store-system, three groups-cluster, cluster-vpc.
    assert found.checked == 8


def test_a_missing_dependency_is_named() -> None:
    assert edges_in_state(stack(service=("pool",))).violated == (
        "InferenceService service does not depend on StatefulSet store",
        "InferenceService service does not depend on NodeGroup system",
    )
    assert "StatefulSet store does not depend on NodeGroup system" in edges_in_state(stack(store=())).violated


def test_a_certificate_that_may_outlive_cert_manager_is_named_and_other_releases_are_none_of_its_business() -> None:
    def release(name: str) -> dict[str, Any]:
        return {**resource("kubernetes:helm.sh/v3:Release", name, "system"), "inputs": {"name": name}}

    def with_certificate(*dependencies: str) -> list[dict[str, Any]]:
        certificate = resource("kubernetes:cert-manager.io/v1:Certificate", "certificate", *dependencies)
        return [*stack(), release("cert-manager"), release("kserve"), certificate]

    violated = set(edges_in_state(with_certificate()).violated) - set(edges_in_state(with_certificate("cert-manager")).violated)
    assert violated == {"Certificate certificate does not depend on Release cert-manager"}


def test_a_component_between_two_resources_ties_them_too() -> None:
    resources = stack(service=("pool",))
    resources.append(resource("mistral-on-l4:x:Component", "component", "store"))
    resources[-2]["parent"] = urn("component")
    assert edges_in_state(resources).violated == ()


def events(*steps: tuple[str, str]) -> str:
    kinds = {"begin": "resourcePreEvent", "end": "resOutputsEvent"}
    return "\n".join(json.dumps({kinds[what]: {"metadata": {"op": "delete", "urn": urn(name)}}}) for what, name in steps)


def test_what_began_before_its_predecessor_was_gone_is_found_in_the_events(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text(events(("begin", "service"), ("begin", "store"), ("end", "service"), ("end", "store")))
    found = edges_in_events(log, stack())
    assert (found.checked, found.violated) == (1, ("StatefulSet store began to go before InferenceService service was gone",))
    log.write_text(events(("begin", "service"), ("end", "service"), ("begin", "store"), ("end", "store")))
    assert edges_in_events(log, stack()).violated == ()


def test_leftovers_and_refusals_are_read_from_the_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "account.json"
    assert (left_over(ledger), refusals(ledger)) == ([], [])
    resources = {"vpc-1": {"kind": "vpc", "name": "", "id": "vpc-1"}, "c": {"kind": "cluster", "name": "c", "id": "c"}}
    journal = [{"deed": "created", "why": ""}, {"deed": "refused", "why": "DependencyViolation"}]
    ledger.write_text(json.dumps({"resources": resources, "journal": journal}))
    assert left_over(ledger) == ["cluster c", "vpc vpc-1"]
    assert refusals(ledger) == ["DependencyViolation"]


def test_the_stack_itself_is_no_resource() -> None:
    export = {"deployment": {"resources": [{"type": "pulumi:pulumi:Stack"}, {"type": "aws:ec2/vpc:Vpc"}]}}
    assert [found["type"] for found in resources_of(export)] == ["aws:ec2/vpc:Vpc"]
    assert resources_of({"deployment": {}}) == []


def test_a_kept_rehearsal_takes_the_stacks_file_as_it_is_now_and_keeps_the_salt_of_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theatre_module, "project_folder", lambda: tmp_path)
    (tmp_path / "home").mkdir()
    info: Any = SimpleNamespace(hub_url="http://127.0.0.1:1")
    settings: Any = None
    theatre = theatre_module.Theatre(LocalHome(tmp_path / "home"), info, "dev", settings, settings)
    for owner in ("before", "now"):
        (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": {"mistral-on-l4:tags": {"owner": owner}}}))
        theatre.configure()
        document = yaml.safe_load(theatre.config.read_text())
        if owner == "before":
            theatre.config.write_text(yaml.safe_dump({**document, "encryptionsalt": "v1:a-salt"}))
    assert document["encryptionsalt"] == "v1:a-salt"
    assert document["config"] == {
        "mistral-on-l4:tags": {"owner": "now"},
        "mistral-on-l4:hub": {"endpoint": "http://127.0.0.1:1"},
        # Without it the program refuses an `up`.
        "mistral-on-l4:cluster": {"publicAccessCidrs": ["203.0.113.7/32"]},
    }


@pytest.fixture
def theatre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A rehearsal whose pulumi is a list of exit codes, each with what the account refused; nothing is left in its state."""
    nothing: Any = None
    made: Any = theatre_module.Theatre(LocalHome(tmp_path), nothing, "dev", nothing, SimpleNamespace(rule=lambda *_, **__: None))
    made.acts, made.plans, made.sweeps = [], [], []

    def pulumi(what: str, *_: str, faults: Path) -> int:
        made.plans.append((what, json.loads(faults.read_text())))
        code, refused = made.acts.pop(0)
        journal = json.loads(made.ledger.read_text())["journal"] if made.ledger.exists() else []
        journal += [{"deed": "refused", "why": why} for why in refused]
        made.ledger.write_text(json.dumps({"resources": {}, "journal": journal}))
        return int(code)

    monkeypatch.setattr(made, "pulumi", pulumi)
    monkeypatch.setattr(made, "_chat", lambda: None)
    monkeypatch.setattr(made, "_swept", lambda kinds, when: made.sweeps.append((kinds, when)))
    monkeypatch.setattr(made, "_export", list)
    return made


STAYS = "DependencyViolation: subnet-1 has dependencies and cannot be deleted: network-interface eni-1 (aws-K8S)"


def test_each_hardship_that_no_up_gets_past_has_a_round_and_the_others_share_one(theatre: Any) -> None:
    theatre.acts = [(1, []), (0, [])] * 3 + [(0, []), (1, [STAYS]), (0, [])]
    theatre.hard_rounds(frozenset(Switch))
    assert theatre.acts == []
    ups = [plan["with"] for what, plan in theatre.plans if what == "up"]
    assert ups == [["create-failed"], ["degraded"], ["quotas"], ["address", "interfaces", "zone"]]
    assert theatre.plans[0][1]["create"] == ["aws:eks/nodeGroup:NodeGroup"]
    assert theatre.problems() == []
    # The sweep names what a refused destroy leaves, and finds nothing after the next.
    assert [kinds for kinds, _ in theatre.sweeps] == [set(), set(), set(), {"network interface", "network"}, set()]
    said = json.loads(theatre.summary())
    assert (sorted(said["switches"]), said["violations"]) == (sorted(Switch), 0)


@pytest.mark.parametrize("refused", [[STAYS, STAYS], ["DependencyViolation: subnet-1 has dependencies and cannot be deleted."]])
def test_more_than_one_refusal_or_one_that_names_nothing_is_a_problem(theatre: Any, refused: list[str]) -> None:
    theatre.acts = [(0, []), (1, refused), (0, [])]
    theatre.hard_rounds(frozenset({Switch.INTERFACES}))
    assert json.loads(theatre.summary())["violations"] == 1
    assert len(theatre.problems()) == 1


def test_an_up_that_gets_past_what_it_must_not_get_past_ends_the_rehearsal(theatre: Any) -> None:
    theatre.acts = [(0, [])]
    with pytest.raises(Failure, match="up with quotas` went through, though it had to fail"):
        theatre.hard_rounds(frozenset({Switch.QUOTAS}))
