"""What stands above the tables: changed gates, opened doors, rights, weights, and nothing that may be a secret."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_on_l4.pull_request.comment import Gates, render
from mistral_on_l4.pull_request.differences import differences
from mistral_on_l4.pull_request.events import Change, PolicyFinding, Preview
from mistral_on_l4.pull_request.plans import Plan
from mistral_on_l4.pull_request.redaction import visible
from mistral_on_l4.pull_request.risks import changed_gates, risks


def changed(kind: str, before: dict[str, Any], after: dict[str, Any], op: str = "update", **more: Any) -> Change:
    return Change(op, f"urn:pulumi:dev::p::{kind}::it", kind, before, after, **more)


def said(*changes: Change, before: Plan | None = None, after: Plan | None = None) -> str:
    return "; ".join(risks(Preview(changes, complete=True), before or Plan(), after or Plan()))


POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
NARROW = {"spec": {"ingress": [{"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]}]}}
OPEN = {"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}}


def test_a_door_that_opens_is_named_with_whom_it_lets_in() -> None:
    assert '"cidr": "0.0.0.0/0"' in said(changed(POLICY, NARROW, OPEN))
    assert said(changed(POLICY, OPEN, NARROW)).count("lets in") == 1
    assert said(changed(POLICY, {}, NARROW, op="create")) == ""


def test_an_attached_policy_a_kept_resource_and_spot_are_named() -> None:
    attachment = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
    assert "attaches AdministratorAccess" in said(
        changed(attachment, {"policyArn": "a"}, {"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}, op="replace")
    )
    store = "kubernetes:apps/v1:StatefulSet"
    assert "outlives a destroy (retainOnDelete)" in said(changed(store, {"a": 1}, {"a": 1}, kept=("", "retainOnDelete")))
    group = "aws:eks/nodeGroup:NodeGroup"
    assert "spot from now on" in said(changed(group, {"capacityType": "ON_DEMAND"}, {"capacityType": "SPOT"}))


def test_other_weights_are_named_with_what_becomes_of_the_old_ones() -> None:
    def service(weights: str, path: str) -> dict[str, Any]:
        return {
            "metadata": {"name": "full", "annotations": {"mistral-on-l4/weights": weights}},
            "spec": {"predictor": {"model": {"storage": {"path": path}}}},
        }

    kind = "kubernetes:serving.kserve.io/v1beta1:InferenceService"
    assert "serves b@2 in place of a@1; the old weights below w/ are replaced" in said(
        changed(kind, service("a@1", "w/"), service("b@2", "w/"))
    )
    assert "the old ones stay below w/" in said(changed(kind, service("a@1", "w/"), service("b@2", "v/")))


def test_nodes_that_would_serve_nothing_are_priced() -> None:
    def plan(total: float) -> Plan:
        return Plan(
            {"usd_per_hour": total, "fixed_usd_per_hour": 1.0, "services": [{"name": "a", "fits": True, "usd_per_hour": 2.0}]}
        )

    assert said(before=plan(3.0), after=plan(4.0)) == "GPU nodes for $1.00 an hour would serve nothing"
    assert said(before=plan(4.0), after=plan(4.0)) == ""


@pytest.mark.parametrize(
    ("path", "judges"),
    [
        ("policies/aws.py", True),
        (".github/workflows/preview.yml", True),
        ("mistral_on_l4/pull_request/comment.py", True),
        ("policies/README.md", False),
        ("components/stack.py", False),
    ],
)
def test_what_judges_a_change_is_told_from_what_is_judged(path: str, judges: bool) -> None:
    assert changed_gates([path]) == ([path] if judges else [])


def test_a_change_of_the_gates_is_said_first_and_what_only_the_base_refuses_blocks() -> None:
    preview = Preview(complete=True)
    finding = PolicyFinding("images-are-pinned", "mandatory", "high", "urn", "why", "the tag latest. Fix: name one")
    gates = Gates(("policies/images.py",), (finding,))
    comment = render("dev", preview, Plan(), Plan(), gates=gates)
    assert comment.text.splitlines()[3].startswith("**This pull request changes what judges it**: `policies/images.py`")
    assert any("the base's policies refuse" in reason for reason in comment.blocked)
    allowed = render("dev", preview, Plan(), Plan(), gates=Gates(gates.changed, gates.base_findings, allowed=True))
    assert not any("base's policies" in reason for reason in allowed.blocked)


def test_a_refused_configuration_says_why_and_removes_nothing() -> None:
    before = Plan({"services": [{"name": "full", "fits": True}], "usd_per_hour": 6.2})
    comment = render(
        "dev", Preview(failed=True, errors=("services.full.pool: no such pool",)), before, Plan(problem="no plan: refused")
    )
    assert "removed" not in comment.text
    assert "no such pool" in comment.text


@pytest.mark.parametrize("flag", ["--db-pass", "--extra", "-p"])
def test_no_value_of_a_flag_is_shown_that_is_not_known_to_be_harmless(flag: str) -> None:
    container = {"args": ["--max-model-len", "8192"]}
    more = {"args": ["--max-model-len", "16384", flag, "hunter2hunter2"]}
    shown = " ".join(differences(changed("kubernetes:core/v1:Pod", container, more)))
    assert "hunter2" not in shown
    assert "--max-model-len 8192 → 16384" in shown
    assert flag in shown


def test_characters_that_turn_text_round_are_shown_as_escapes() -> None:
    assert visible("a\u202eb\x1b[0m\u200b") == "a\\u202eb\\u001b[0m\\u200b"
