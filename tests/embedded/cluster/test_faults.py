"""Whatever happens to the cluster's processes, the next start brings it back with its objects, and a stop leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from embedded import cluster as embedded
from embedded import processes
from embedded.home import LocalHome
from embedded.leftovers import leftovers
from mistral_on_l4.cluster.client import KubeClient

pytestmark = pytest.mark.embedded

PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kserve-manager", "hub")


def pids(home: LocalHome) -> dict[str, int]:
    return {name: running.pid for name in processes.names(home) if (running := processes.find(home, name)) is not None}


def client(home: LocalHome) -> KubeClient:
    return KubeClient.from_kubeconfig(home.kubeconfig)


@pytest.fixture
def up(mortal: LocalHome) -> LocalHome:
    """The mortal cluster, healthy, with one object that must survive."""
    embedded.start(mortal)
    kept = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "namespace": "default"}, "data": {"a": "b"}}
    client(mortal).apply(kept, "test", force=True)
    return mortal


def assert_whole(home: LocalHome) -> None:
    assert embedded.health(home) == []
    assert client(home).get("v1", "ConfigMap", "kept", "default")["data"] == {"a": "b"}


def stop_hard(home: LocalHome, name: str, number: signal.Signals = signal.SIGKILL) -> None:
    running = processes.find(home, name)
    assert running is not None
    os.kill(running.pid, number)
    # Its threads end one by one; until then it counts as running, since its sockets are still there.
    while number == signal.SIGKILL and processes.find(home, name) is not None:
        time.sleep(0.01)


def test_a_second_start_leaves_a_healthy_cluster_as_it_is(up: LocalHome) -> None:
    before, recorded = pids(up), up.cluster()
    embedded.start(up)
    assert pids(up) == before
    assert up.cluster() == recorded


@pytest.mark.parametrize("name", PARTS)
def test_a_killed_part_is_named_and_comes_back_alone(up: LocalHome, name: str) -> None:
    before = pids(up)
    stop_hard(up, name)
    assert any(line.startswith(f"{name} is not running (log: ") for line in embedded.health(up))
    embedded.start(up)
    assert_whole(up)
    after = pids(up)
    assert after[name] != before[name]
    others = set(before) - {name}
    # Controllers may end by themselves when the API server goes; nothing else may be disturbed.
    undisturbed = others if name not in ("etcd", "kube-apiserver") else {"hub", "etcd", "kube-apiserver"} - {name}
    assert {other: after[other] for other in undisturbed} == {other: before[other] for other in undisturbed}


def test_after_a_reboot_everything_comes_back_at_the_same_addresses(up: LocalHome) -> None:
    recorded, kubeconfig = up.cluster(), up.kubeconfig.read_text()
    for name, pid in pids(up).items():
        assert processes.find(up, name) is not None
        os.kill(pid, signal.SIGKILL)
    embedded.start(up)
    assert_whole(up)
    assert up.cluster() == recorded
    assert up.kubeconfig.read_text() == kubeconfig


def test_a_hung_process_is_replaced(up: LocalHome) -> None:
    before = pids(up)
    stop_hard(up, "kube-scheduler", signal.SIGSTOP)
    embedded.start(up)
    assert_whole(up)
    assert pids(up)["kube-scheduler"] != before["kube-scheduler"]
    assert processes.start_time(before["kube-scheduler"]) is None


def test_a_port_that_was_taken_meanwhile_is_given_up_and_the_objects_stay(up: LocalHome) -> None:
    embedded.stop(up)
    port = up.cluster().api_server_port
    with socket.create_server(("127.0.0.1", port)):
        embedded.start(up)
        assert up.cluster().api_server_port != port
        assert_whole(up)


def test_a_lost_certificate_is_made_anew_and_every_process_uses_it(up: LocalHome) -> None:
    before = pids(up)
    (up.pki / "apiserver.crt").unlink()
    embedded.start(up)
    assert_whole(up)
    assert pids(up)["kube-apiserver"] != before["kube-apiserver"]


def test_of_two_starts_at_once_one_waits_and_says_so(up: LocalHome) -> None:
    embedded.stop(up)
    code = (
        "import sys; from pathlib import Path; from embedded import cluster; "
        "from embedded.home import LocalHome; from embedded.progress import PlainReport; "
        "cluster.start(LocalHome(Path(sys.argv[1])), PlainReport(sys.stdout))"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(up.root)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
        )
        for _ in range(2)
    ]
    try:
        said = [start.communicate(timeout=2 * embedded.LOCK_SECONDS)[0] for start in starts]
    finally:
        for start in starts:
            start.kill()
    assert [start.returncode for start in starts] == [0, 0]
    assert sum("is starting or stopping the cluster" in text for text in said) == 1
    assert_whole(up)


def test_a_stop_leaves_no_process_port_or_socket_and_can_be_repeated(up: LocalHome) -> None:
    recorded, before = up.cluster(), pids(up)
    embedded.stop(up)
    # Not by the absence of /proc/PID: where the first process of a container reaps nobody, the remains of the ended stay.
    assert [name for name, pid in before.items() if processes.start_time(pid) is not None] == []
    assert [line for line in leftovers(up, recorded) if not line.startswith("folder ")] == []
    assert list(up.run.iterdir()) == []
    embedded.stop(up)
    embedded.start(up)
    assert_whole(up)


def test_a_stop_asks_nobody_twice_who_would_wait_for_an_etcd_that_went_first(
    up: LocalHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_hard(up, "etcd")
    graces: dict[str, float] = {}
    stop = processes.stop

    def noted(home: LocalHome, name: str, grace: float) -> bool:
        graces[name] = grace
        return stop(home, name, grace)

    monkeypatch.setattr(processes, "stop", noted)
    embedded.stop(up)
    waiting = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kserve-manager")
    assert {name: graces[name] for name in waiting} == dict.fromkeys(waiting, embedded.NO_GRACE)
    assert processes.names(up) == []


def test_a_stop_after_a_reboot_forgets_what_no_longer_runs(up: LocalHome) -> None:
    for pid in pids(up).values():
        os.kill(pid, signal.SIGKILL)
    embedded.stop(up)
    assert processes.names(up) == []


def test_a_stop_of_a_home_that_never_was_does_nothing(tmp_path: Path) -> None:
    embedded.stop(LocalHome(tmp_path / "none"), purge=True)
    assert not (tmp_path / "none").exists()


def test_a_purge_refuses_a_folder_that_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(embedded.ClusterError, match="does not look like a local stack's home"):
        embedded.stop(LocalHome(tmp_path), purge=True)
    assert (tmp_path / "thesis.txt").exists()


def test_a_part_that_cannot_start_is_named_with_its_last_words_and_its_log(up: LocalHome) -> None:
    embedded.stop(up)
    snapshot = up.etcd / "member" / "snap" / "db"
    good = snapshot.read_bytes()
    snapshot.write_bytes(b"not a database" * 1000)
    try:
        with pytest.raises(embedded.ClusterError, match=r"^etcd .*\(log: .*/logs/etcd\.log\)$") as failed:
            embedded.start(up)
        assert "\n" not in str(failed.value)
    finally:
        embedded.stop(up)
        snapshot.write_bytes(good)
    embedded.start(up)
    assert_whole(up)


def test_a_second_cluster_runs_beside_the_first_in_a_range_of_its_own(cluster: Any, up: LocalHome) -> None:
    other = up.cluster()
    assert other.service_cidr != cluster.info.service_cidr
    assert not set(other.ports.values()) & set(cluster.info.ports.values())
    host, _, port = other.hub_address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5):
        pass
