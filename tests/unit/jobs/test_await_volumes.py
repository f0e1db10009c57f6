"""What the pod before the storage driver waits for, and what it does not wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_on_l4.jobs.await_volumes import Refused, await_volumes, doomed

SPACES = ("minio", "registries")


def volume(name: str, namespace: str, policy: str = "Delete") -> dict[str, Any]:
    claim = {"namespace": namespace, "name": f"data-{name}"}
    return {"metadata": {"name": name}, "spec": {"persistentVolumeReclaimPolicy": policy, "claimRef": claim}}


class Cluster:
    """Answers as the API server: namespaces that exist (True: on their way), and volumes. Each volume list is answered once."""

    def __init__(self, namespaces: Mapping[str, bool], *volumes: list[dict[str, Any]]) -> None:
        self.namespaces, self.volumes = namespaces, list(volumes)
        self.slept = 0.0

    def __call__(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        assert (method, body) == ("GET", None)
        place, _, name = path.removeprefix("/api/v1/").partition("/")
        if place == "namespaces":
            if name not in self.namespaces:
                return 404, {"message": "not found"}
            return 200, {"metadata": {"name": name, **({"deletionTimestamp": "now"} if self.namespaces[name] else {})}}
        assert place == "persistentvolumes"
        return 200, {"items": self.volumes.pop(0) if len(self.volumes) > 1 else self.volumes[0]}

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def test_volumes_of_namespaces_that_are_gone_or_going_are_waited_for() -> None:
    cluster = Cluster({"registries": True}, [volume("a", "minio"), volume("b", "registries")])
    assert doomed(cluster, SPACES) == ["a (of minio/data-a)", "b (of registries/data-b)"]


def test_volumes_of_others_kept_ones_and_those_of_a_living_namespace_are_not() -> None:
    cluster = Cluster({"registries": False}, [volume("a", "registries"), volume("b", "other"), volume("c", "minio", "Retain")])
    assert doomed(cluster, SPACES) == []


def test_a_pod_that_is_ended_while_the_stack_lives_goes_at_once() -> None:
    cluster = Cluster(dict.fromkeys(SPACES, False), [volume("a", "minio")])
    assert await_volumes(cluster, SPACES, 600, lambda _: None, cluster.sleep)
    assert cluster.slept == 0


def test_the_wait_ends_with_the_last_volume_and_says_what_it_waits_for() -> None:
    cluster = Cluster({}, [volume("a", "minio"), volume("b", "minio")], [volume("b", "minio")], [])
    said: list[str] = []
    assert await_volumes(cluster, SPACES, 600, said.append, cluster.sleep)
    assert cluster.slept == 2
    assert "2 volume(s) to be deleted: a (of minio/data-a), b (of minio/data-b)" in said[0]
    assert "1 volume(s)" in said[1]


def test_after_the_deadline_it_gives_up_and_names_who_finds_the_volumes() -> None:
    cluster = Cluster({}, [volume("a", "minio")])
    said: list[str] = []
    assert not await_volumes(cluster, SPACES, 0, said.append, cluster.sleep)
    assert "`demo sweep`" in said[-1]


def test_an_api_server_that_is_away_for_a_moment_is_not_taken_for_the_end_of_the_volumes() -> None:
    cluster = Cluster({}, [])
    troubles: list[Any] = [requests.ConnectionError(), (503, {}), (429, {})]

    def call(method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        if troubles:
            trouble = troubles.pop(0)
            if isinstance(trouble, Exception):
                raise trouble
            return trouble  # type: ignore[no-any-return]
        return cluster(method, path, body)

    assert await_volumes(call, SPACES, 600, lambda _: None, cluster.sleep)
    assert cluster.slept == 3


def test_an_account_that_may_not_look_is_told_so() -> None:
    with pytest.raises(Refused, match="403 no"):
        doomed(lambda *_: (403, {"message": "no"}), SPACES)


# -- the process -----------------------------------------------------------------------------------------------------------


def test_outside_a_cluster_it_says_where_it_belongs() -> None:
    command = [sys.executable, "-m", "mistral_on_l4.jobs.await_volumes"]
    environment = {"PATH": os.environ["PATH"], "VOLUME_NAMESPACES": "minio", "VOLUME_SECONDS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "runs in a pod" in done.stderr


def test_a_signal_that_comes_while_it_still_starts_is_not_lost(tmp_path: Path) -> None:
    held = "print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    stub = f"import signal\n{held}\nclass RequestException(Exception): pass\nclass Session: pass\n"
    (tmp_path / "requests.py").write_text(stub)
    command = [sys.executable, "-m", "mistral_on_l4.jobs.await_volumes"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "VOLUME_NAMESPACES": "minio"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines()[0] == str(sorted([signal.SIGINT, signal.SIGTERM]))


def test_importing_it_holds_no_signal_back() -> None:
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
