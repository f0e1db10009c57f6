"""A connection to the local cluster, or to another through the person's own kubectl."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded import processes
from embedded.home import LocalHome
from mistral_on_l4.cluster import connection
from mistral_on_l4.cluster.connection import NoConnection, connect
from mistral_on_l4.cluster.local import local_stack
from mistral_on_l4.config.settings import settings_from
from tests.support.cluster import pretend_started

LOCAL = settings_from({"platform": "local"}, "local")


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "kubectl"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program.touch(mode=0o755)
    return program


def test_a_kubectl_that_complains_a_lot_goes_on_working(kubectl: Path, tmp_path: Path) -> None:
    # More than a pipe holds: port-forward tells every connection that breaks.
    kubectl.write_text(
        "#!/bin/sh\necho 'Forwarding from 127.0.0.1:4242'\n"
        "head -c 200000 /dev/zero | tr '\\0' 'e' >&2\n"
        f"touch {tmp_path}/alive\nexec sleep 60\n"
    )
    with connection._running_kubectl(["port-forward"], r"Forwarding from 127\.0\.0\.1:(\d+)") as port:
        assert port == 4242
        for _ in range(500):
            if (tmp_path / "alive").exists():
                return
            connection.threading.Event().wait(0.02)
        raise AssertionError("kubectl waits for somebody to read its errors")


def test_a_kubectl_that_cannot_log_in_is_given_its_last_word(kubectl: Path) -> None:
    kubectl.write_text("#!/bin/sh\necho 'error: You must be logged in to the server' >&2\nexit 1\n")
    with (
        pytest.raises(NoConnection, match="kubectl proxy failed: error: You must be logged in"),
        connection._running_kubectl(["proxy"], "x(.)"),
    ):
        raise AssertionError("it must not come so far")


def test_a_local_cluster_that_was_never_started_is_named_with_the_command_that_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISTRAL_ON_L4_HOME", str(tmp_path / "home"))
    with (
        pytest.raises(NoConnection, match=r"^no local cluster has been started in .*/home: start it with `make up`$"),
        connect(LOCAL),
    ):
        raise AssertionError("it must not come so far")


def test_kubectl_is_pointed_at_the_local_cluster_and_elsewhere_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISTRAL_ON_L4_HOME", str(tmp_path / "home"))
    pretend_started(LocalHome.default(), "https://127.0.0.1:6443")
    with connect(LOCAL) as local:
        assert local.kubectl(["logs", "a"]) == (["kubectl", "logs", "a"], {"KUBECONFIG": str(tmp_path / "home" / "kubeconfig")})
        elsewhere = connection.Connection(local.client, local.settings, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoConnection, match="kubectl is not on PATH: install it, and log in"):
        elsewhere.kubectl(["logs", "a"])


@pytest.mark.parametrize(
    ("running", "outage"),
    [
        ((), "the local cluster is stopped: `make up` starts it again"),
        (("agent", "kube-apiserver"), "etcd of the local cluster does not run: `make up` starts it again"),
        (("etcd", "kube-apiserver"), None),
    ],
)
def test_what_of_the_local_cluster_does_not_run_is_known_without_asking_it(
    tmp_path: Path, running: tuple[str, ...], outage: str | None
) -> None:
    home = LocalHome(tmp_path / "home")
    pretend_started(home, "https://127.0.0.1:6443")
    try:
        for name in running:
            processes.start(home, name, ["sleep", "600"])
        stack = local_stack(home.root)
        assert stack.outage == outage
        assert set(stack.down) == set(processes.PARTS) - set(running)
    finally:
        for name in running:
            processes.stop(home, name)
