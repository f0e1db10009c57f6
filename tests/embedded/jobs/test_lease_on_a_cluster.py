"""The Lease on a real API server, with the very rights that the seed Job's ServiceAccount has."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from mistral_on_l4.jobs.cluster_api import Call, in_cluster
from mistral_on_l4.jobs.weights_lease import DURATION_SECONDS, Lease
from mistral_on_l4.jobs.weights_limits import Failure, Stop

pytestmark = pytest.mark.embedded

ACCOUNT = "weights-seeder"
# As in components/weights.py.
RULES = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "delete"]}]


@pytest.fixture
def call(cluster: Any, namespace: str, tmp_path: Path) -> Call:
    """The API server as a pod of that account sees it."""
    rbac = "rbac.authorization.k8s.io/v1"
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT}
    for item in (
        {"apiVersion": "v1", "kind": "ServiceAccount"},
        {"apiVersion": rbac, "kind": "Role", "rules": RULES},
        {"apiVersion": rbac, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
    ):
        cluster.client.create({**item, "metadata": {"name": ACCOUNT, "namespace": namespace}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    answer = cluster.client.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token", body=request)
    (tmp_path / "token").write_text(answer["status"]["token"])
    kubeconfig = yaml.safe_load(cluster.home.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = kubeconfig.get("certificate-authority-data")
    (tmp_path / "ca.crt").write_bytes(
        base64.b64decode(authority) if authority else Path(kubeconfig["certificate-authority"]).read_bytes()
    )
    server = urlsplit(kubeconfig["server"])
    found = in_cluster(
        {"KUBERNETES_SERVICE_HOST": str(server.hostname), "KUBERNETES_SERVICE_PORT": str(server.port)}, folder=tmp_path
    )
    assert found is not None
    return found


def lease(call: Call, namespace: str, holder: str) -> Lease:
    return Lease(call, namespace, "weights-mistral-24b", holder, Stop(), pytest.fail)


def holder(cluster: Any, namespace: str) -> str | None:
    items = cluster.client.list("coordination.k8s.io/v1", "Lease", namespace)["items"]
    return items[0]["spec"]["holderIdentity"].rpartition("_")[0] if items else None


def test_a_second_job_waits_for_the_first_and_then_writes_alone(cluster: Any, namespace: str, call: Call) -> None:
    first, second = lease(call, namespace, "one"), lease(call, namespace, "two")
    assert first.acquire(5, print) is False
    waited: list[bool] = []
    thread = threading.Thread(target=lambda: waited.append(second.acquire(60, print)))
    thread.start()
    time.sleep(6)  # long enough for a renewal
    assert holder(cluster, namespace) == "one"
    first.release()
    thread.join(20)
    assert waited == [True]
    assert holder(cluster, namespace) == "two"
    second.release()
    assert holder(cluster, namespace) is None


def test_the_lease_of_a_killed_job_is_taken_over_when_it_has_run_out(cluster: Any, namespace: str, call: Call) -> None:
    dead = lease(call, namespace, "dead")
    dead.acquire(5, print)
    dead._done.set()  # it renews no more, and does not release
    following = lease(call, namespace, "next")
    began = time.monotonic()
    assert following.acquire(DURATION_SECONDS * 4, print) is True
    assert time.monotonic() - began > DURATION_SECONDS - 5
    assert holder(cluster, namespace) == "next"
    following.release()


def test_an_account_without_the_rights_is_told_so(cluster: Any, namespace: str, call: Call) -> None:
    cluster.client.delete("rbac.authorization.k8s.io/v1", "RoleBinding", ACCOUNT, namespace)
    end = time.monotonic() + 10
    while call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/x", None)[0] != 403:
        assert time.monotonic() < end
        time.sleep(0.1)
    with pytest.raises(Failure, match=r"cannot read Lease .*: 403 .*forbidden"):
        lease(call, namespace, "one").acquire(5, print)
