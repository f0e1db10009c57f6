"""What the comment does with previews that no recording shows: empty, huge, broken, strange, or holding secrets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mistral_on_l4.manifests.volumes import data_claim
from mistral_on_l4.pull_request.comment import LIMIT_BYTES, Comment, marker, render
from mistral_on_l4.pull_request.events import EventsError, between, preview_of, read_events
from mistral_on_l4.pull_request.plans import Plan, read_plan
from mistral_on_l4.pull_request.redaction import redacted

SECRET_SIGNATURE = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "[secret]"}
Step = Callable[..., dict[str, Any]]


def comment(*events: Mapping[str, Any], before: Plan = Plan(), after: Plan = Plan(), **options: Any) -> Comment:  # noqa: B008
    return render("dev", preview_of(events), before, after, **options)


def policy_event(
    level: str = "mandatory", policy: str = "images-are-pinned", text: str = "X has no tag. Fix: add one"
) -> dict[str, Any]:
    body = {"message": f"Because.\n{text}\n", "policyName": policy, "enforcementLevel": level, "severity": "high", "color": "raw"}
    return {"sequence": 2, "timestamp": 1, "policyEvent": body}


def error_event(text: str) -> dict[str, Any]:
    return {"sequence": 2, "timestamp": 1, "diagnosticEvent": {"message": text, "severity": "error", "color": "raw"}}


def test_an_empty_difference_says_that_nothing_changes(step: Step, summary: dict[str, Any]) -> None:
    found = comment(step("same", new={"data": {}}, old={"data": {}}), summary)
    assert "nothing changes (1 resource as they are)" in found.text
    assert found.blocked == ()


def test_the_first_line_is_the_stacks_own_marker(summary: dict[str, Any]) -> None:
    found = comment(summary)
    assert found.text.splitlines()[0] == marker("dev")
    assert marker("dev") != marker("local")
    # A stack's name cannot close the HTML comment and so pass for another marker.
    assert marker("a --> <!-- b").count("-->") == 1


@pytest.mark.parametrize("op", ["create", "update", "replace", "delete"])
def test_a_thousand_changes_are_counted_and_cut_below_githubs_limit(step: Step, summary: dict[str, Any], op: str) -> None:
    old = {"metadata": {"name": "x" * 60}, "data": {f"key-{index}": "a" for index in range(30)}}
    new = {"metadata": {"name": "x" * 60}, "data": {f"key-{index}": "b" for index in range(30)}}
    steps = [
        step(op, name=f"{'config-map' * 6}-{index}", old=None if op == "create" else old, new=None if op == "delete" else new)
        for index in range(1000)
    ]
    findings = [policy_event("advisory", text=f"number {index} is bad{' very' * 40}. Fix: do not") for index in range(1000)]
    found = comment(*steps, *findings, summary)
    assert len(found.text.encode()) < LIMIT_BYTES
    assert f"1,000 to {op}" in found.text
    assert re.search(r"9\d\d more|9\d\d ConfigMap|1,000 ConfigMap", found.text)


def test_ten_thousand_services_and_findings_still_end_below_the_limit(plan: Callable[..., Any], summary: dict[str, Any]) -> None:
    services = [
        {**plan()["services"][0], "name": f"service-{index}", "fits": False, "reason": "x" * 500} for index in range(10_000)
    ]
    found = comment(
        summary, *[policy_event(policy=f"p{index}") for index in range(2000)], after=Plan({**plan(), "services": services})
    )
    assert len(found.text.encode()) < LIMIT_BYTES
    assert "10,000 services do not fit" in found.text


def test_values_that_pulumi_hides_are_not_compared_and_not_printed(step: Step, summary: dict[str, Any]) -> None:
    change = step(
        "update",
        "kubernetes:core/v1:Secret",
        old={"stringData": {"password": SECRET_SIGNATURE}},
        new={"stringData": {"password": SECRET_SIGNATURE}},
        detailedDiff={"stringData.password": {"diffKind": "update"}},
    )
    found = comment(change, summary)
    assert "stringData.password" in found.text
    assert "ciphertext" not in found.text


LEAKS = {
    "hf": "hf_" + "aB3dE5fG7h" * 3,
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "hex": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "url": "hunter2hunter2",
    "plain": "correct-horse-battery",
}


def test_secrets_that_pulumi_does_not_know_are_not_printed_either(step: Step, summary: dict[str, Any]) -> None:
    old = {"spec": {"predictor": {"model": {"args": ["--max-model-len", "8192"], "env": []}}}, "data": {"a": "1"}}
    new = {
        "spec": {
            "predictor": {
                "model": {
                    "args": ["--max-model-len", "8192", "--api-key", LEAKS["plain"], "--hf-token", LEAKS["hf"]],
                    "env": [{"name": "PASSWORD", "value": LEAKS["plain"]}],
                    "image": f"registry/{LEAKS['hex']}:1",
                }
            }
        },
        "data": {"a": LEAKS["hex"], "dsn": f"postgresql://registry:{LEAKS['url']}@db/registry"},
    }
    found = comment(
        step("update", "kubernetes:serving.kserve.io/v1beta1:InferenceService", old=old, new=new),
        error_event(f"cannot log in with password={LEAKS['plain']} at postgresql://registry:{LEAKS['url']}@db/registry"),
        error_event(f"the hub refused {LEAKS['hf']} and {LEAKS['aws']}"),
        policy_event(text=f"--api-key {LEAKS['plain']} is in clear. Fix: use a Secret"),
        summary,
    )
    for leak in LEAKS.values():
        assert leak not in found.text
    assert "`--api-key: changed`" in found.text


@pytest.mark.parametrize(
    "text",
    [
        "password=correcthorse",
        '"password": "correct horse battery"',
        '{"token":"correcthorse"}',
        r"{\"token\":\"correcthorse\"}",
        "--api-key correcthorse",
        "secret_access_key = 'correct horse'",
    ],
)
def test_a_password_of_ordinary_words_is_hidden_with_all_of_its_words(text: str) -> None:
    assert "horse" not in redacted(text)
    assert "[hidden]" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "the token must be given as a Pulumi secret",
        "token: required for gated models",
        "environment HF_TOKEN is a value whose name says that it is secret",
        "--max-num-batched-tokens 2048",
        "~58 ms/token, $0.98/h",
        "quay.io/minio/minio@sha256:14cea493d9a34af32f524e538b8346cf79f3321eff8e708c1e2960462bd8936e",
        "RedHatAI/Mistral-Small-24B-Instruct-2501-quantized.w4a16",
        "http://private-ai-registry-internal.rhoai-model-registries.svc:8080",
    ],
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_a_change_names_what_changed_and_shows_only_telling_values(step: Step, summary: dict[str, Any]) -> None:
    change = step(
        "update",
        "aws:eks/nodeGroup:NodeGroup",
        "pool-l4-1gpu-nodes",
        old={"scalingConfig": {"desiredSize": 1.0}, "nodeRoleArn": "arn:aws:iam::1:role/a", "instanceTypes": ["g6.2xlarge"]},
        new={"scalingConfig": {"desiredSize": 2.0}, "nodeRoleArn": "arn:aws:iam::1:role/b", "instanceTypes": ["g6.2xlarge"]},
        parent="mistral-on-l4:aws:NodePool",
    )
    text = comment(change, summary).text
    assert "- **GPU nodes and cluster**\n  - update NodeGroup `pool-l4-1gpu-nodes`" in text
    assert "`scalingConfig.desiredSize 1 → 2`" in text
    assert "`nodeRoleArn`" in text
    assert "role/b" not in text


def test_what_an_up_is_refused_for_stands_above_everything_that_changes(step: Step, summary: dict[str, Any]) -> None:
    said = "`pulumi up` will be refused: the cluster's API will answer inside its VPC only"
    warnings = [{"diagnosticEvent": {"severity": "warning", "message": text}} for text in ("something slow", said)]
    lines = [line for line in comment(step("create"), *warnings, summary).text.splitlines() if line]
    assert lines[2] == f"**Before an up**: {said}"
    assert not any("something slow" in line for line in lines)


def test_a_list_that_comes_or_goes_is_told_by_its_items(step: Step, summary: dict[str, Any]) -> None:
    opened = step(
        "update", "aws:eks/cluster:Cluster", old={"vpcConfig": {}}, new={"vpcConfig": {"publicAccessCidrs": ["203.0.113.0/24"]}}
    )
    assert "`vpcConfig.publicAccessCidrs[0] (none) → 203.0.113.0/24`" in comment(opened, summary).text
    bare = step("update", old={"env": [{"name": "VLLM_API_KEY", "value": "x"}]}, new={"a": 1})
    assert "`env[VLLM_API_KEY]`" in comment(bare, summary).text


def test_arguments_are_compared_by_flag_and_not_by_place(step: Step, summary: dict[str, Any]) -> None:
    def service(*args: str) -> dict[str, Any]:
        return {"spec": {"predictor": {"model": {"args": list(args)}}}}

    change = step(
        "update",
        "kubernetes:serving.kserve.io/v1beta1:InferenceService",
        old=service("--kv-cache-dtype", "fp8", "--max-model-len", "8192"),
        new=service("--max-model-len=16384", "--max-num-seqs", "16", "--kv-cache-dtype", "fp8"),
    )
    text = comment(change, summary).text
    assert "`--max-model-len 8192 → 16384`" in text
    assert "`+ --max-num-seqs 16`" in text
    assert "kv-cache-dtype" not in text


def test_the_three_steps_of_a_replacement_are_one_change(step: Step, summary: dict[str, Any]) -> None:
    old, new = {"spec": {"version": "1"}}, {"spec": {"version": "2"}}
    steps = [step(op, "kubernetes:batch/v1:Job", old=old, new=new) for op in ("create-replacement", "replace", "delete-replaced")]
    text = comment(*steps, summary).text
    assert "1 to replace" in text
    assert "spec.version 1 → 2" in text


def test_unknown_operations_and_kinds_are_named_as_they_are(step: Step, summary: dict[str, Any]) -> None:
    strange = step("transmogrify", "cloudy:weather/v9:Rainbow", "arc", new={"colors": 7})
    text = comment(strange, {"sequence": 3, "someNewEvent": {"x": 1}}, {"sequence": 4}, summary).text
    assert "1 to transmogrify" in text
    assert "1 Rainbow (`arc`)" in text


def test_losing_a_volume_blocks_until_it_is_allowed(step: Step, summary: dict[str, Any]) -> None:
    gone = step("delete", "kubernetes:core/v1:PersistentVolumeClaim", old={"metadata": {"name": "postgres"}})
    refused, allowed = comment(gone, summary), comment(gone, summary, allow_data_loss=True)
    assert "data would be lost: PersistentVolumeClaim `postgres`" in refused.blocked[0]
    assert allowed.blocked == ()
    assert "**Data at risk**: delete PersistentVolumeClaim `postgres`" in allowed.text


@pytest.mark.parametrize(
    ("op", "changes", "says"),
    [
        ("delete", None, "is no longer declared"),
        ("replace", {"namespace": "elsewhere"}, "moves from namespace registries to elsewhere"),
        ("replace", {"size": "5Gi"}, "shrinks from 10Gi to 5Gi"),
        ("replace", {"storage_class": "gp2"}, "moves from storage class gp3 to gp2"),
        ("replace", {}, "is replaced"),
        ("update", {"size": "20Gi"}, None),
    ],
)
def test_a_claim_of_the_stack_is_judged_as_the_program_judges_it(
    step: Step, summary: dict[str, Any], op: str, changes: dict[str, str] | None, says: str | None
) -> None:
    def claim(namespace: str = "registries", storage_class: str = "gp3", size: str = "10Gi") -> dict[str, Any]:
        return data_claim("registry", namespace, storage_class, size)

    new = None if changes is None else claim(**changes)
    found = comment(step(op, "kubernetes:core/v1:PersistentVolumeClaim", "registry-data", old=claim(), new=new), summary)
    assert bool(found.blocked) is (says is not None)
    if says:
        assert f"the claim in registries {says} (registered models and versions cannot be brought back)" in found.text


def test_a_server_without_claims_of_its_own_may_be_replaced(step: Step, summary: dict[str, Any]) -> None:
    server = {"metadata": {"name": "minio"}, "spec": {"serviceName": "minio"}}
    assert comment(step("replace", "kubernetes:apps/v1:StatefulSet", "minio", old=server, new=server), summary).blocked == ()


def test_mandatory_findings_block_and_advice_does_not(summary: dict[str, Any]) -> None:
    assert comment(policy_event("advisory"), summary).blocked == ()
    found = comment(policy_event("mandatory"), summary)
    assert found.blocked == ("1 mandatory policy finding",)
    assert "- **images-are-pinned** (high): X has no tag" in found.text
    assert "  - fix: add one" in found.text


def test_a_preview_that_was_killed_is_not_taken_for_one_without_changes(step: Step) -> None:
    found = comment(step("create", new={"a": 1}))
    assert found.blocked == ("the preview did not finish",)
    assert "there may be more" in found.text


def test_a_long_traceback_keeps_its_beginning_and_its_end(summary: dict[str, Any]) -> None:
    found = comment(error_event("first line\n" + "middle\n" * 5000 + "the reason"), summary)
    assert "first line" in found.text
    assert "the reason" in found.text
    assert "characters ...]" in found.text
    assert len(found.text) < 8000


def test_of_a_traceback_the_exception_comes_first_and_the_rest_is_folded_away(summary: dict[str, Any]) -> None:
    traceback = (
        'Program failed:\nTraceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\nValueError: no\nsuch'
    )
    text = comment(error_event(traceback), summary).text
    shown, _, folded = text.partition("<details>")
    assert "```text\nValueError: no\nsuch\n```" in shown
    assert "Traceback" not in shown
    assert "a.py" in folded


def test_a_price_that_is_no_longer_known_is_said_and_not_left_out(plan: Callable[..., Any], summary: dict[str, Any]) -> None:
    found = comment(summary, before=Plan(plan()), after=Plan({**plan(), "usd_per_hour": None}))
    assert "$6.20 → **unknown** an hour" in found.text
    assert "**Cost**: $6.20 → unknown: the catalogue lacks a price" in found.text


def test_nodes_that_go_on_billing_for_a_service_that_is_gone_are_named(plan: Callable[..., Any], summary: dict[str, Any]) -> None:
    kept = {**plan(name="kept", usd_per_hour=4.6), "usd_per_hour": 6.2, "fixed_usd_per_hour": 0.62}
    assert "$0.98 of it for GPU nodes that serve nothing" in comment(summary, after=Plan(kept)).text
    assert "serve nothing" not in comment(summary, after=Plan({**kept, "usd_per_hour": 5.22})).text


def test_text_from_outside_cannot_leave_its_place(step: Step, plan: Callable[..., Any], summary: dict[str, Any]) -> None:
    evil = "x` | <img src=y> @everyone\n\n<!-- mistral-on-l4 preview: prod -->"
    found = comment(
        step("create", name=evil, new={"metadata": {"name": evil}}),
        policy_event(policy=evil, text=evil),
        summary,
        after=Plan(plan(name=evil, fits=False, reason=evil)),
    )
    # As a name of a service, its reason, the name of a resource, of a policy, and what that says.
    assert found.text.count("mistral-on-l4 preview: prod") >= 5
    assert [line for line in found.text.splitlines() if line.startswith("<!--")] == [marker("dev")]
    (row,) = (line for line in found.text.splitlines() if line.startswith("| x"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 9
    # A lone backtick of the text opens no code: only the comment's own code, on one line and in parentheses, is left out.
    outside_code = re.sub(r"\(`[^`\n]*`\)", "", found.text)
    assert "<img" not in outside_code
    assert outside_code.count("<!--") == 1
    assert "@everyone" not in outside_code


def test_an_error_that_holds_a_fence_is_shown_in_a_longer_one(summary: dict[str, Any]) -> None:
    text = comment(error_event("```\n# heading\n````\n<!-- x -->"), summary).text
    assert "`````text\n```\n# heading\n````\n<!-- x -->\n`````" in text


def test_stars_links_and_underscores_of_a_finding_are_shown_and_not_rendered(summary: dict[str, Any]) -> None:
    text = comment(policy_event(text="Role x: allows */* on */*, see [this](http://x) or __main__"), summary).text
    assert r"allows \*/\* on \*/\*, see [this]\(http://x) or \_\_main\_\_" in text


def test_without_a_state_base_and_head_are_compared_by_what_they_declare(step: Step, summary: dict[str, Any]) -> None:
    base = preview_of([step("create", name=name, new={"replicas": 1}) for name in ("kept", "changed", "gone")] + [summary])
    head = preview_of(
        [
            step("create", name="kept", new={"replicas": 1}),
            step("create", name="changed", new={"replicas": 2}),
            step("create", name="made", new={"replicas": 1}),
            summary,
        ]
    )
    found = between(base, head)
    assert {(change.op, change.name) for change in found.changes} == {("update", "changed"), ("create", "made"), ("delete", "gone")}
    assert found.unchanged == 1


def declared(step: Step, token: str, inputs: Mapping[str, Any], provider: Mapping[str, Any] | None = None) -> Any:
    """What a preview declares that has one resource, and the provider that makes it."""
    made = step("create", "pulumi:providers:kubernetes", "cluster", new=provider or {})
    thing = step("create", token, new=inputs)
    urn = made["resourcePreEvent"]["metadata"]["urn"]
    thing["resourcePreEvent"]["metadata"]["new"]["provider"] = f"{urn}::04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    return preview_of([made, thing, {"sequence": 9, "summaryEvent": {"result": "succeeded"}}])


def test_without_a_state_what_cannot_change_in_place_is_called_replaced_and_its_data_at_risk(step: Step) -> None:
    def store(size: str) -> Any:
        claim = {"spec": {"resources": {"requests": {"storage": size}}}}
        kind = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "minio"}}
        return declared(step, "kubernetes:apps/v1:StatefulSet", {**kind, "spec": {"volumeClaimTemplates": [claim]}})

    found = render("dev", between(store("200Gi"), store("300Gi")), Plan(), Plan())
    assert "replace StatefulSet `minio`: `requests.storage 200Gi → 300Gi`" in found.text
    assert found.blocked == ("data would be lost: StatefulSet `minio`",)


def test_a_cluster_that_is_made_anew_takes_all_its_volumes_along(step: Step) -> None:
    old, new = (declared(step, "aws:eks/cluster:Cluster", {"name": name, "version": "1.36"}) for name in ("a", "b"))
    assert "data would be lost" in render("dev", between(old, new), Plan(), Plan()).blocked[0]
    newer = declared(step, "aws:eks/cluster:Cluster", {"name": "a", "version": "1.37"})
    assert [change.op for change in between(old, newer).changes] == ["update"]


def test_another_region_replaces_what_the_account_holds_and_says_so(step: Step) -> None:
    def network(region: str) -> Any:
        return declared(step, "aws:ec2/vpc:Vpc", {"cidrBlock": "10.42.0.0/16"}, {"region": region})

    found = render("dev", between(network("us-east-1"), network("us-west-2")), Plan(), Plan())
    assert "replace Vpc `thing`: `region us-east-1 → us-west-2`" in found.text
    assert "Without a state, what AWS has replaced along with these is not known" in found.text
    assert found.blocked == ("data would be lost: Vpc `thing`",)


def test_the_mark_of_passwords_that_no_state_keeps_is_no_change(step: Step) -> None:
    def pod(mark: str, image: str = "a") -> Any:
        template = {"metadata": {"annotations": {"mistral-on-l4/keys": mark}}, "spec": {"image": image}}
        kind = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"template": template}}
        return declared(step, "kubernetes:batch/v1:Job", kind)

    assert between(pod("98cee3f6cd"), pod("a5fb3725c7")).changes == ()
    assert [change.op for change in between(pod("98cee3f6cd"), pod("a5fb3725c7", "b")).changes] == ["replace"]


@pytest.mark.parametrize(("mutable", "op"), [("true", "update"), ("false", "replace")])
def test_whether_a_config_map_changes_in_place_is_its_providers_setting(step: Step, mutable: str, op: str) -> None:
    kind = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    old, new = (
        declared(step, "kubernetes:core/v1:ConfigMap", {**kind, "data": {"a": text}}, {"enableConfigMapMutable": mutable})
        for text in "12"
    )
    assert [change.op for change in between(old, new).changes] == [op]


def test_a_base_whose_own_preview_failed_is_not_taken_for_a_stack_that_does_not_exist(step: Step, summary: dict[str, Any]) -> None:
    base = preview_of([error_event("a service does not fit"), summary])
    head = preview_of([step("create", name=str(index), new={}) for index in range(20)] + [summary])
    found = render("dev", between(base, head), Plan(), Plan())
    assert "the base's own preview failed" in found.text
    assert "20 resources" in found.text
    assert "does not exist yet" not in found.text
    assert found.blocked == ()


def test_what_an_aborted_preview_did_not_reach_is_not_called_deleted(step: Step, summary: dict[str, Any]) -> None:
    base = preview_of([step("create", name="later", new={}), summary])
    head = preview_of([step("create", name="first", new={}), error_event("no more"), summary])
    assert [change.op for change in between(base, head).changes] == ["create"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "configuration was refused"),
        ("not json", "no plan: not json"),
        ("[]", "no services"),
        ('{"error": "unknown GPU"}', "unknown GPU"),
    ],
)
def test_a_plan_that_could_not_be_made_is_said_and_blocks(tmp_path: Path, summary: dict[str, Any], content: str, says: str) -> None:
    file = tmp_path / "head.json"
    file.write_text(content)
    found = comment(summary, after=read_plan(file))
    assert says in found.blocked[0]
    assert says in found.text


def test_a_stack_that_is_new_has_no_before(plan: Callable[..., Any], summary: dict[str, Any], tmp_path: Path) -> None:
    found = comment(summary, before=read_plan(tmp_path / "missing.json"), after=Plan(plan()))
    assert "mistral-24b-fp8 (new)" in found.text
    assert "$6.20 an hour" in found.text
    assert found.blocked == ()


def test_lines_of_others_in_the_stream_are_skipped(stream: Callable[..., Path], step: Step, summary: dict[str, Any]) -> None:
    path = stream(step("create", new={"a": 1}), summary)
    path.write_text("Previewing update (dev):\n" + path.read_text() + '{"sequence": 12, "resourcePre')
    assert len(read_events(path).changes) == 1


def test_a_finding_whose_text_holds_a_line_separator_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(policy_event(text="next\x85line. Fix: none"), ensure_ascii=False) + "\n", encoding="utf-8")
    assert [finding.mandatory for finding in read_events(path).findings] == [True]


def test_a_file_that_is_no_stream_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("Previewing update (dev):\n")
    with pytest.raises(EventsError, match="holds no events"):
        read_events(tmp_path / "log.txt")
    with pytest.raises(EventsError, match="No such file"):
        read_events(tmp_path / "missing.jsonl")


def test_the_command_writes_the_file_and_exits_1_when_blocked(
    stream: Callable[..., Path], plan: Callable[..., Any], summary: dict[str, Any], tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(plan()))
    bad.write_text(json.dumps(plan(fits=False, reason="too large")))
    events = stream(summary)

    def run(after: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mistral_on_l4", "pr-comment", "--events", str(events), "--plan-before", str(good)]
        command += ["--plan-after", str(after), "--stack", "prod", "--out", str(tmp_path / "comment.md")]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    assert run(good).returncode == 0
    refused = run(bad)
    assert refused.returncode == 1
    assert refused.stderr == "demo: mistral-24b-fp8 does not fit 1x L4\n"
    assert (tmp_path / "comment.md").read_text().startswith(marker("prod"))
