"""A whole cluster in a temporary home, started once for all tests that only use it, beside whatever cluster the user runs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from embedded import cluster as embedded
from embedded import plugins, preflight
from embedded.home import ClusterInfo, LocalHome
from embedded.leftovers import leftovers
from embedded.progress import PlainReport, console_report
from embedded.toolchain import NAMES, ToolFailed, ensure_tools
from mistral_on_l4.cluster.client import KubeClient
from tests.support.project import Project


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds the tools before the first test: a quarter of an hour on a fresh machine, more than a test may take."""
    if session.config.option.collectonly or not any(item.get_closest_marker("embedded") for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), console_report(Console()) as report:
        try:
            ensure_tools(NAMES, report)
        except ToolFailed as error:
            pytest.exit(str(error), returncode=2)


@dataclass(frozen=True)
class RunningCluster:
    home: LocalHome
    info: ClusterInfo
    client: KubeClient


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """The control plane with KServe, the hub and the node agent. Tests make namespaces of their own in it and stop nothing of it."""
    if (why_not := preflight.refusal()) is not None:
        pytest.skip(why_not)
    home = LocalHome(tmp_path_factory.mktemp("cluster"))
    try:
        info = embedded.start(home, PlainReport())
        yield RunningCluster(home, info, KubeClient.from_kubeconfig(home.kubeconfig))
    finally:
        recorded = home.cluster() if home.cluster_file.exists() else None
        embedded.stop(home)
        left = [line for line in leftovers(home, recorded) if not line.startswith("folder ")]
        embedded.stop(home, purge=True)
    assert left == []


@pytest.fixture
def namespace(cluster: RunningCluster) -> Iterator[str]:
    """A new namespace, deleted afterwards (its removal is not waited for)."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.client.delete("v1", "Namespace", name)


@pytest.fixture
def project(cluster: RunningCluster, tmp_path: Path) -> Iterator[Project]:
    """An empty Pulumi project with a stack `local` in the cluster's home; destroyed and removed afterwards."""
    plugins.install(cluster.home, cluster.info.tools)
    made = Project(tmp_path / f"project-{uuid.uuid4().hex[:6]}", cluster)
    yield made
    made.pulumi("destroy", "--yes", "--skip-preview", "--remove")
