"""By its exit code the Job knows whether another pod may do better: 1 ends it, any other does not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mistral_on_l4.jobs import last_words, seed_weights
from mistral_on_l4.jobs.weights_limits import Failure, Interrupted, Stop, Stopped
from mistral_on_l4.manifests.jobs import Program, PythonJob, python_job
from mistral_on_l4.manifests.scripts import sources

ENVIRONMENT = {
    "WEIGHTS_REPOSITORY": "o/r",
    "WEIGHTS_REVISION": "main",
    "WEIGHTS_BUCKET": "bucket",
    "WEIGHTS_PREFIX": "m/",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
}


@pytest.fixture(autouse=True)
def _unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(last_words, "TERMINATION_LOG", tmp_path / "termination-log")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("reason", "raised", "code", "says"),
    [
        (None, Failure("the hub answers 404"), 1, "the hub answers 404"),
        (None, RuntimeError("a mistake of ours"), 1, "RuntimeError: a mistake of ours"),
        (Interrupted("told to stop"), Interrupted("told to stop"), 143, "told to stop"),
        (Interrupted("told to stop"), Stopped(), 143, "told to stop"),
        # A pod that is being stopped may fail at anything on its way out.
        (Interrupted("the lease was lost"), Failure("the store does not answer"), 143, "the lease was lost"),
        (Failure("the file is damaged"), Stopped(), 1, "the file is damaged"),
    ],
)
def test_only_a_failure_of_its_own_ends_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, reason: Failure | None, raised: Exception, code: int, says: str
) -> None:
    def seed(_order: Any, _store: Any, _limits: Any, _environment: Any, stop: Stop) -> None:
        if reason:
            stop.because(reason)
        raise raised

    monkeypatch.setattr(seed_weights, "seed", seed)
    assert seed_weights.main(ENVIRONMENT) == code
    assert capsys.readouterr().err == f"seeding failed: {says}\n"


def test_the_job_fails_for_good_by_that_code_alone() -> None:
    program = Program(sources("seed_weights"), "scripts", "ns", "image", "account")
    rules = python_job(PythonJob("n", "seed-weights", program, [], 60))["spec"]["podFailurePolicy"]["rules"]
    # A check's Job has no tries to lose to a drained node; the first rule that matches counts.
    assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert [rule["onExitCodes"] for rule in rules if rule["action"] == "FailJob"] == [
        {"containerName": "seed-weights", "operator": "In", "values": [1]}
    ]
