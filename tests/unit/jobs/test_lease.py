"""The Lease against an API server that keeps resource versions as the real one does."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import requests

from mistral_on_l4.jobs import weights_lease
from mistral_on_l4.jobs.cluster_api import in_cluster
from mistral_on_l4.jobs.weights_lease import Lease, lease_name
from mistral_on_l4.jobs.weights_limits import Failure, Interrupted, Stop

Json = dict[str, Any]


class ApiServer:
    """Leases by path, with optimistic concurrency. down: every call fails as a broken connection does."""

    def __init__(self) -> None:
        self.leases: dict[str, Json] = {}
        self.version = 0
        self.down = False
        self.refuse: int | None = None
        self._lock = threading.Lock()

    def call(self, method: str, path: str, body: Json | None) -> tuple[int, Json]:
        if self.down:
            raise requests.ConnectionError("refused")
        if self.refuse:
            return self.refuse, {"message": "leases is forbidden"}
        with self._lock:
            if method == "POST":
                assert body
                path = f"{path}/{body['metadata']['name']}"
                return (409, {}) if path in self.leases else (201, self._store(path, body))
            if path not in self.leases:
                return 404, {}
            held = self.leases[path]["metadata"]
            if method == "GET":
                return 200, self.leases[path]
            assert body
            if method == "PUT":
                if body["metadata"]["resourceVersion"] != held["resourceVersion"]:
                    return 409, {}
                return 200, self._store(path, body)
            if any(held[name] != value for name, value in body["preconditions"].items()):
                return 409, {}
            del self.leases[path]
            return 200, {}

    def _store(self, path: str, body: Json) -> Json:
        self.version += 1
        stored = {**body, "metadata": {**body["metadata"], "uid": path, "resourceVersion": str(self.version)}}
        self.leases[path] = stored
        return stored

    @property
    def holders(self) -> list[str]:
        return [lease["spec"]["holderIdentity"].rpartition("_")[0] for lease in self.leases.values()]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    monkeypatch.setattr(weights_lease, "DURATION_SECONDS", 0.5)
    monkeypatch.setattr(weights_lease, "_RENEW_SECONDS", 0.05)
    monkeypatch.setattr(weights_lease, "_POLL_SECONDS", 0.02)
    return ApiServer()


def lease(api: ApiServer, holder: str, lost: list[Failure] | None = None) -> Lease:
    return Lease(api.call, "minio-storage", "weights-x", holder, Stop(), (lost if lost is not None else []).append)


def test_two_writers_of_one_prefix_take_turns(api: ApiServer) -> None:
    first, second = lease(api, "one"), lease(api, "two")
    said: list[str] = []
    assert first.acquire(1, said.append) is False
    waited: list[bool] = []
    thread = threading.Thread(target=lambda: waited.append(second.acquire(5, said.append)))
    thread.start()
    time.sleep(1.0)  # twice the duration: a holder that renews is not taken over
    assert api.holders == ["one"]
    first.release()
    thread.join(5)
    assert waited == [True]
    assert api.holders == ["two"]
    assert said == ["waiting: one writes this checkpoint (Lease minio-storage/weights-x)"]
    second.release()
    assert api.leases == {}


def test_of_many_that_start_at_once_one_at_a_time_holds_it(api: ApiServer) -> None:
    inside, most = [0], [0]
    lock = threading.Lock()

    def work(number: int) -> None:
        mine = lease(api, f"pod-{number}")
        mine.acquire(20, lambda _: None)
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        with lock:
            inside[0] -= 1
        mine.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [1]
    assert api.leases == {}


def test_the_lease_of_a_killed_pod_runs_out_whatever_its_clock_said(api: ApiServer) -> None:
    api.call(
        "POST",
        "/apis/coordination.k8s.io/v1/namespaces/minio-storage/leases",
        {
            "metadata": {"name": "weights-x"},
            "spec": {"holderIdentity": "dead_1", "renewTime": "2099-01-01T00:00:00.000000Z", "leaseDurationSeconds": 0.3},
        },
    )
    next_one = lease(api, "next")
    began = time.monotonic()
    assert next_one.acquire(5, lambda _: None) is True
    assert 0.3 <= time.monotonic() - began < 3
    assert api.holders == ["next"]
    next_one.release()


def test_a_lease_that_is_taken_away_stops_the_writer(api: ApiServer) -> None:
    lost: list[Failure] = []
    mine = lease(api, "one", lost)
    mine.acquire(1, lambda _: None)
    path = next(iter(api.leases))
    del api.leases[path]
    end = time.monotonic() + 5
    while not lost and time.monotonic() < end:
        time.sleep(0.01)
    assert "was taken away" in str(lost[0])
    mine.release()


def test_an_api_server_that_is_gone_for_longer_than_the_lease_stops_the_writer(api: ApiServer) -> None:
    lost: list[Failure] = []
    mine = lease(api, "one", lost)
    mine.acquire(1, lambda _: None)
    api.down = True
    end = time.monotonic() + 5
    while not lost and time.monotonic() < end:
        time.sleep(0.01)
    assert "could not be renewed" in str(lost[0])
    mine.release()


def test_a_renewal_that_gets_no_answer_stops_the_writer_before_anybody_else_may_begin(api: ApiServer) -> None:
    lost: list[Failure] = []
    answered = threading.Event()

    def call(method: str, path: str, body: Json | None) -> tuple[int, Json]:
        if method == "PUT":
            answered.wait(30)
        return api.call(method, path, body)

    mine = Lease(call, "minio-storage", "weights-x", "one", Stop(), lost.append)
    mine.acquire(1, lambda _: None)
    end = time.monotonic() + 10
    while not lost and time.monotonic() < end:
        time.sleep(0.01)
    answered.set()
    assert [str(failure) for failure in lost] == [
        "Lease minio-storage/weights-x could not be renewed for 0 s: the Kubernetes API does not answer; "
        "a new run goes on where this one was"
    ]
    # Another pod may go on: its Job does not fail for good.
    assert isinstance(lost[0], Interrupted)


def test_a_released_lease_is_gone_at_once(api: ApiServer) -> None:
    for _ in range(50):
        mine = lease(api, "one")
        mine.acquire(1, lambda _: None)
        mine.release()
        assert api.leases == {}


def test_release_leaves_alone_what_somebody_else_holds_by_now(api: ApiServer) -> None:
    mine = lease(api, "one")
    mine.acquire(1, lambda _: None)
    mine._done.set()
    for thread in mine._threads:
        thread.join(2)
    path = next(iter(api.leases))
    api.call("PUT", path, {**api.leases[path], "spec": {"holderIdentity": "two_2"}})
    mine.release()
    assert api.holders == ["two"]


def test_missing_rights_are_named_instead_of_waited_for(api: ApiServer) -> None:
    api.refuse = 403
    with pytest.raises(Failure, match="cannot read Lease minio-storage/weights-x: 403 leases is forbidden"):
        lease(api, "one").acquire(5, lambda _: None)


def test_the_wait_for_another_writer_has_an_end(api: ApiServer) -> None:
    first = lease(api, "one")
    first.acquire(1, lambda _: None)
    with pytest.raises(Failure, match="was not free within 0 s"):
        lease(api, "two").acquire(0.3, lambda _: None)
    first.release()


def test_prefixes_and_buckets_never_share_a_lease() -> None:
    pairs = [("b", "mistral-24b/"), ("b", "mistral-24b-fp8/"), ("c", "mistral-24b/"), ("b", "Mistral-24b/"), ("b", "x" * 300 + "/")]
    names = {lease_name(*pair) for pair in pairs}
    assert len(names) == len(pairs)
    assert all(len(name) <= 63 and name == name.lower() for name in names)


def test_outside_a_cluster_there_is_no_lease() -> None:
    assert in_cluster({}) is None
