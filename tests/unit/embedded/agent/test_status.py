"""A pod's status and its containers' restarts."""

from __future__ import annotations

import pytest

from embedded.agent import status
from embedded.agent.containers import Container
from embedded.agent.probes import Outcome, Probe


def container(name="main", init=False, **spec):
    return Container({"name": name, "image": "img", **spec}, init, "ContainerCreating")


def ended(code):
    return {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}


def run(each, code=None, policy="Always", now=0.0, ran=1.0):
    each.begin(1000.0, now)
    if code is not None:
        return each.end(ended(code), ran, now, each.restarts_after(code, policy))
    return None


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Always", 0, "Running"),
        ("Always", 1, "Running"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
    ],
)
def test_the_phase_follows_the_exit_code_and_the_restart_policy(policy, code, phase):
    main = container()
    run(main, code, policy)
    assert status.phase([main], policy) == phase


def test_a_pod_is_pending_until_its_last_init_container_succeeded_and_every_container_began():
    first, main, other = container("first", init=True), container(), container("other")
    everything = [first, main, other]
    assert status.phase(everything, "Always") == "Pending"
    run(first, 0)
    run(main)
    assert status.phase(everything, "Always") == "Pending"
    run(other)
    assert status.phase(everything, "Always") == "Running"


def test_an_init_container_that_fails_ends_a_pod_that_never_restarts():
    first, main = container("first", init=True), container()
    run(first, 4, "Never")
    assert status.phase([first, main], "Never") == "Failed"


def test_a_sidecar_does_not_keep_a_finished_job_running():
    side, main = container("side", init=True, restartPolicy="Always"), container()
    run(side)
    run(main, 0, "Never")
    assert status.phase([side, main], "Never") == "Succeeded"


def test_the_first_restart_is_at_once_then_the_pauses_double_up_to_five_minutes():
    main = container()
    delays = [run(main, 1, now=float(turn)) for turn in range(8)]
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_container_that_ran_for_ten_minutes_starts_again_without_a_pause():
    main = container()
    for _ in range(4):
        run(main, 1)
    assert run(main, 1, ran=601.0) == 0


def test_conditions_name_what_is_not_ready_and_keep_the_time_of_their_last_change(pod):
    first, main = container("first", init=True), container(readinessProbe={"tcpSocket": {"port": 1}})
    known = {}
    before = status.build(pod, [first, main], "10.128.0.7", True, known, now=100.0)
    said = {each["type"]: each for each in before["conditions"]}
    assert said["Initialized"]["message"] == "containers with incomplete status: [first]"
    assert said["Ready"]["message"] == "containers with unready status: [main]"
    run(first, 0)
    run(main)
    after = {each["type"]: each for each in status.build(pod, [first, main], "10.128.0.7", True, known, now=200.0)["conditions"]}
    assert after["Initialized"]["lastTransitionTime"] == "1970-01-01T00:03:20Z"
    assert after["Ready"] == said["Ready"]
    main.ready = True
    later = {each["type"]: each for each in status.build(pod, [first, main], "10.128.0.7", True, known, now=300.0)["conditions"]}
    assert later["Ready"]["status"] == "True"


def test_conditions_of_others_are_kept_and_a_closed_readiness_gate_holds_the_pod_back(pod):
    pod["spec"]["readinessGates"] = [{"conditionType": "example.org/gate"}]
    pod["status"]["conditions"] = [{"type": "example.org/gate", "status": "False"}, {"type": "Ready", "status": "True"}]
    main = container()
    run(main)
    said = {each["type"]: each for each in status.build(pod, [main], "10.128.0.7", True, {}, now=0.0)["conditions"]}
    assert said["example.org/gate"] == {"type": "example.org/gate", "status": "False"}
    assert (said["ContainersReady"]["status"], said["Ready"]["status"]) == ("True", "False")


def test_a_finished_pod_is_not_ready_because_it_is_complete(pod):
    main = container()
    run(main, 0, "Never")
    pod["spec"]["restartPolicy"] = "Never"
    said = status.build(pod, [main], "10.128.0.7", False, {}, now=0.0)
    ready = next(each for each in said["conditions"] if each["type"] == "Ready")
    assert (said["phase"], ready["status"], ready["reason"]) == ("Succeeded", "False", "PodCompleted")


def test_a_probe_decides_only_when_its_threshold_is_reached():
    probe = Probe.of("liveness", {"failureThreshold": 2, "successThreshold": 1, "periodSeconds": 5, "initialDelaySeconds": 3}, 10.0)
    assert probe.due == 13.0
    assert probe.record(Outcome(False), 13.0) is None
    assert probe.due == 18.0
    assert probe.record(Outcome(True), 18.0) is True
    assert [probe.record(Outcome(False), 20.0) for _ in range(2)] == [None, False]


def test_before_its_first_period_is_over_a_startup_probe_is_tried_soon_and_its_failures_do_not_count():
    probe = Probe.of("startup", {"failureThreshold": 1, "periodSeconds": 5}, 10.0)
    assert probe.record(Outcome(False), 10.0) is None
    assert 10.0 < probe.due < 10.5
    assert probe.record(Outcome(False), 14.9) is None
    assert probe.due == 15.0
    assert probe.record(Outcome(False), 15.0) is False


def test_a_container_with_a_startup_probe_is_neither_started_nor_ready_when_it_begins():
    plain, probed = container(), container(startupProbe={"tcpSocket": {"port": 1}})
    run(plain)
    run(probed)
    assert (plain.started, plain.ready) == (True, True)
    assert (probed.started, probed.ready) == (False, False)
