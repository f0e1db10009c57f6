"""The Job that waits until a service serves what the last change asked for: what it takes for done, and what for hopeless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_on_l4.jobs import check_service, last_words
from mistral_on_l4.jobs.check_service import Check, NotServing, pod_problem, rollout_problem, run

CHECK = Check("fp8", "private-ai", "new", "http://127.0.0.1:9", None, 0.3)


def deployment(revision: str = "new", **status: int) -> dict[str, Any]:
    whole = {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, **status}
    return {
        "metadata": {"generation": 2},
        "spec": {"replicas": 1, "template": {"metadata": {"annotations": {"mistral-on-l4/revision": revision}}}},
        "status": whole,
    }


def pod(created: str = "2026-01-01T00:00:00Z", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "fp8-predictor-0", "creationTimestamp": created}, "status": status}


UNPLACED = {
    "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}
    ]
}


def crashing(times: int) -> dict[str, Any]:
    return {
        "containerStatuses": [
            {
                "name": "kserve-container",
                "restartCount": times,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 2, "message": "usage: ...\nerror: unrecognized arguments: --nonsense"}},
            }
        ]
    }


class FakeCluster:
    """Answers of the API server, in turn; the last one stays."""

    def __init__(self, deployments: list[dict[str, Any] | None], pods: list[dict[str, Any]]) -> None:
        self._deployments, self._pods = deployments, pods

    def deployment(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self._deployments.pop(0) if len(self._deployments) > 1 else self._deployments[0]

    def pods(self, namespace: str, service: str) -> list[dict[str, Any]]:
        return self._pods


def test_what_the_api_server_does_not_have_is_none_and_what_it_refuses_is_said() -> None:
    answers = {"deployments/gone": (404, {}), "deployments/fp8": (200, deployment()), "pods": (403, {"message": "no right"})}

    def call(method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        assert (method, body) == ("GET", None)
        return next(answer for ending, answer in answers.items() if path.partition("?")[0].endswith(ending))

    cluster = check_service.Cluster(call)
    assert cluster.deployment("private-ai", "gone") is None
    assert cluster.deployment("private-ai", "fp8") == deployment()
    with pytest.raises(requests.HTTPError, match="answers 403: no right"):
        cluster.pods("private-ai", "fp8")
    with pytest.raises(NotServing, match="answers 403: no right"):
        run(CHECK, check_service.Cluster(lambda *_: (403, {"message": "no right"})), 0.01)


def test_outside_a_pod_it_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(last_words, "TERMINATION_LOG", tmp_path / "termination-log")
    monkeypatch.setattr(check_service.Check, "from_environment", lambda _: CHECK)
    assert check_service.main() == 1
    assert "runs in a pod" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, "does not exist yet"),
        (deployment("old"), "still asks for revision old, not new"),
        (deployment(observedGeneration=1), "has not seen the change"),
        (deployment(updatedReplicas=0), "0 of 1 pods are of the new revision"),
        (deployment(replicas=2), "a pod of the old revision is still going"),
        (deployment(availableReplicas=0), "0 of 1 pods are available"),
    ],
)
def test_a_rollout_is_done_only_when_every_pod_is_of_the_revision_and_available(found: Any, says: str) -> None:
    assert says in str(rollout_problem(found, "new"))
    assert rollout_problem(deployment(), "new") is None


def test_a_pod_that_cannot_be_placed_is_named_with_the_schedulers_words() -> None:
    problem = pod_problem([pod(**UNPLACED)])
    assert problem is not None
    assert problem.kind == "unplaced"
    assert "fp8-predictor-0 cannot be placed: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu" in problem.text


def test_a_container_counts_as_crashing_from_its_third_end_on_and_its_last_words_are_given() -> None:
    first, third = pod_problem([pod(**crashing(1))]), pod_problem([pod(**crashing(3))])
    assert first is not None
    assert first.kind == "other"
    assert third is not None
    assert third.kind == "crashing"
    assert third.text.endswith("last with exit code 2: error: unrecognized arguments: --nonsense")


def test_only_the_newest_pod_counts() -> None:
    assert pod_problem([pod("2026-01-02T00:00:00Z"), pod("2026-01-01T00:00:00Z", **UNPLACED)]) is None


def test_it_returns_once_the_service_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_service, "chat_problem", lambda check, seconds: None)
    cluster = FakeCluster([None, deployment("old"), deployment(availableReplicas=0), deployment()], [])
    run(CHECK, cluster, pause_seconds=0.001)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["<html>a proxy's page</html>", "[]", '{"choices": [{"message": null}]}', '{"choices": []}'])
def test_an_answer_that_is_no_chat_is_waited_for_and_shown(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    answer = requests.Response()
    answer.status_code, answer._content = 200, text.encode()
    monkeypatch.setattr(requests, "post", lambda *_, **__: answer)
    with pytest.raises(NotServing, match="answered 200 and no chat: ") as ended:
        run(CHECK, FakeCluster([deployment()], []), pause_seconds=0.01)  # type: ignore[arg-type]
    assert text in str(ended.value)


def test_no_question_outlasts_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def post(*_: Any, timeout: float, **__: Any) -> None:
        asked.append(timeout)
        raise requests.ReadTimeout

    monkeypatch.setattr(requests, "post", post)
    soon = Check("fp8", "private-ai", "new", "http://127.0.0.1:9", None, 1.2)
    with pytest.raises(NotServing, match="does not answer: ReadTimeout"):
        run(soon, FakeCluster([deployment()], []), pause_seconds=0.05)  # type: ignore[arg-type]
    assert max(asked) <= 1.2
    assert min(asked) >= 1.0


def test_a_bug_still_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(last_words, "TERMINATION_LOG", tmp_path / "none" / "termination-log")
    monkeypatch.setattr(check_service, "in_cluster", lambda _: lambda *_: (200, {}))
    for name in ("SERVICE_NAME", "SERVICE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    assert check_service.main() == 1
    assert capsys.readouterr().err == "the check failed: KeyError: 'SERVICE_NAME'\n"


def test_it_gives_up_at_once_on_a_container_that_keeps_crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster([deployment(availableReplicas=0)], [pod(**crashing(3))])
    patient = Check("fp8", "private-ai", "new", "http://127.0.0.1:9", None, 3600.0)
    with pytest.raises(NotServing, match="unrecognized arguments: --nonsense"):
        run(patient, cluster, pause_seconds=0.001)  # type: ignore[arg-type]


def test_at_the_deadline_it_says_what_it_waited_for() -> None:
    cluster = FakeCluster([deployment(availableReplicas=0)], [pod(**UNPLACED)])
    with pytest.raises(NotServing, match=r"Insufficient nvidia\.com/gpu"):
        run(CHECK, cluster, pause_seconds=0.01)  # type: ignore[arg-type]
