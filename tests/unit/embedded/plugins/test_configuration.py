from __future__ import annotations

from pathlib import Path

import pytest

from embedded.plugins.kubernetes.configuration import BadConfiguration, client_for, read, refuse_elsewhere, server_of
from embedded.plugins.kubernetes.objects import Unsupported
from embedded.plugins.values import UNKNOWN

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "SERVER"}}, {name: d, cluster: {server: "https://127.9.9.9:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: one, context: {cluster: c, user: u}}, {name: two, context: {cluster: d, user: u}}]
current-context: one
"""


@pytest.mark.parametrize("server", ["https://127.0.0.1:6443", "https://127.64.3.4"])
def test_loopback_is_accepted(server: str) -> None:
    refuse_elsewhere(server)


@pytest.mark.parametrize(
    "server",
    ["https://10.0.0.1", "https://example.org", "https://127.0.0.1.example.org", "https://[::1]:6443", "https://128.0.0.1", "x"],
)
def test_every_other_server_is_refused(server: str) -> None:
    with pytest.raises(BadConfiguration, match=r"127\.0\.0\.0/8 only"):
        refuse_elsewhere(server)


def test_a_kubeconfig_is_a_path_or_its_contents(tmp_path: Path) -> None:
    text = KUBECONFIG.replace("SERVER", "https://127.0.0.1:7")
    (tmp_path / "config").write_text(text)
    assert client_for(read({"kubeconfig": text})).server == "https://127.0.0.1:7"
    assert client_for(read({"kubeconfig": str(tmp_path / "config")})).server == "https://127.0.0.1:7"
    assert client_for(read({"kubeconfig": text, "context": "two"})).server == "https://127.9.9.9:1"
    assert server_of({"kubeconfig": text, "context": "two"}) == "https://127.9.9.9:1"


def test_without_one_it_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(KUBECONFIG.replace("SERVER", "https://127.0.0.1:7"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert client_for(read({})).server == "https://127.0.0.1:7"


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="nowhere"):
        client_for(read({"kubeconfig": str(tmp_path / "nowhere")}))


def test_an_unknown_one_leaves_the_provider_without_a_cluster() -> None:
    assert not read({"kubeconfig": UNKNOWN}).known


def test_flags_come_as_text() -> None:
    found = read({"enableConfigMapMutable": "true", "enableSecretMutable": False}).mutability
    assert (found.config_maps, found.secrets) == (True, False)


@pytest.mark.parametrize(
    "values", [{"enableServerSideApply": "false"}, {"renderYamlToDirectory": "out"}, {"deleteUnreachable": "true"}]
)
def test_what_only_the_official_plugin_does_is_said(values: dict[str, str]) -> None:
    if "renderYamlToDirectory" in values:
        values = {"renderYamlToDirectory": "true"}
    with pytest.raises(Unsupported, match="not supported by the stand-in"):
        read(values)
