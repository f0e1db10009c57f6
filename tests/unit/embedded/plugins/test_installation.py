from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from embedded import plugins
from embedded.home import ClusterInfo, LocalHome
from embedded.processes import start_time
from mistral_on_l4.config.names import KUBERNETES_PROVIDER_VARIABLE

SDKS = "resource-kubernetes-v4.34.2/pulumi-resource-kubernetes"
BUILT = "resource-kubernetes-v4.25.0/pulumi-resource-kubernetes"
AWS = "resource-aws-v7.51.1/pulumi-resource-aws"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHome:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    made = LocalHome(tmp_path / "home")
    made.make()
    return made


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tools").mkdir()
    made = {name: tmp_path / "tools" / name for name in ("pulumi", plugins.PROVIDER)}
    for file in made.values():
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    return {**{name: str(file) for name, file in made.items()}, "kubectl": "/somewhere/kubectl"}


@pytest.fixture
def official(home: LocalHome, tmp_path: Path) -> Path:
    file = tmp_path / "user" / ".pulumi" / "plugins" / SDKS
    file.parent.mkdir(parents=True)
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def begin(home: LocalHome, **inputs: Any) -> None:
    provider = {"type": "pulumi:providers:kubernetes", "inputs": inputs}
    file = home.backend / ".pulumi" / "stacks" / "p" / "local.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"checkpoint": {"latest": {"resources": [provider]}}}))


def cluster_info(tools: dict[str, str]) -> ClusterInfo:
    return ClusterInfo(
        "127.64.0.0/16", "https://127.0.0.1:1", 1, "http://127.64.0.2:1", "127.64.0.2:1", "local-path", True, 0, tools
    )


def test_the_plugins_lie_where_only_this_homes_commands_look(home: LocalHome, tools: dict[str, str]) -> None:
    plugins.install(home, tools)
    for name in ("language-python-v3.259.0/pulumi-language-python", BUILT, AWS):
        assert os.access(home.pulumi_home / "plugins" / name, os.X_OK)
    path = plugins.pulumi_environment(home, cluster_info(tools))["PATH"]
    assert str(home.pulumi_home) not in path


def test_a_plugin_starts_from_its_launcher_and_says_its_port(home: LocalHome, tools: dict[str, str]) -> None:
    plugins.install(home, tools)
    process = subprocess.Popen([home.pulumi_home / "plugins" / AWS, "127.0.0.1:1"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.send_signal(2)
        assert process.wait(60) == 0
    finally:
        process.kill()


@pytest.mark.parametrize("launcher", [AWS, "language-python-v3.259.0/pulumi-language-python"])
def test_a_plugin_ends_when_the_pulumi_that_started_it_is_killed(home: LocalHome, tools: dict[str, str], launcher: str) -> None:
    plugins.install(home, tools)
    # As pulumi does: starts the plugin, reads its port, and is killed before it interrupts anybody.
    starter = (
        "import subprocess, sys, time; plugin = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE); "
        "plugin.stdout.readline(); print(plugin.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", starter, str(home.pulumi_home / "plugins" / launcher), "127.0.0.1:1"]
    pulumi = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert pulumi.stdout is not None
        pid = int(pulumi.stdout.readline())
        assert start_time(pid) is not None
    finally:
        pulumi.kill()
        pulumi.wait()
    deadline = time.monotonic() + 30
    while start_time(pid) is not None:
        assert time.monotonic() < deadline, f"plugin {pid} goes on without pulumi"
        time.sleep(0.05)


def test_installing_again_changes_nothing(home: LocalHome, tools: dict[str, str]) -> None:
    plugins.install(home, tools)
    before = [(home.pulumi_home / "plugins" / name).lstat().st_mtime_ns for name in (BUILT, AWS)]
    plugins.install(home, tools)
    assert [(home.pulumi_home / "plugins" / name).lstat().st_mtime_ns for name in (BUILT, AWS)] == before


def test_the_provider_is_the_built_one_and_the_program_is_told_its_version(home: LocalHome, tools: dict[str, str]) -> None:
    assert plugins.provider_tools(home) == (plugins.PROVIDER,)
    assert plugins.install(home, tools)["kubernetes"] == "built"
    assert (home.pulumi_home / "plugins" / BUILT).resolve() == Path(tools[plugins.PROVIDER])
    assert plugins.pulumi_environment(home, cluster_info(tools))[KUBERNETES_PROVIDER_VARIABLE] == "4.25.0"


def test_the_users_own_provider_of_the_sdks_version_is_used_and_none_is_built(
    home: LocalHome, tools: dict[str, str], official: Path
) -> None:
    assert plugins.provider_tools(home) == ()
    del tools[plugins.PROVIDER]
    assert plugins.install(home, tools)["kubernetes"] == "official"
    assert (home.pulumi_home / "plugins" / SDKS).resolve() == official
    # Set and empty: a version that the shell still has from before must not be asked for.
    assert plugins.pulumi_environment(home, cluster_info(tools))[KUBERNETES_PROVIDER_VARIABLE] == ""


def test_a_provider_that_is_only_half_downloaded_is_not_used(home: LocalHome, tools: dict[str, str], official: Path) -> None:
    official.parent.with_name(f"{official.parent.name}.partial").write_text("")
    assert plugins.install(home, tools)["kubernetes"] == "built"


def test_only_one_provider_lies_in_a_home(home: LocalHome, tools: dict[str, str], official: Path) -> None:
    plugins.install(home, tools)
    official.unlink()
    plugins.install(home, tools)
    assert sorted(file.name for file in home.pulumi_home.glob("plugins/resource-kubernetes-*")) == [
        "resource-kubernetes-v4.25.0",
        "resource-kubernetes-v4.25.0.lock",
    ]


def test_a_stack_goes_on_with_the_built_provider_that_began_it(home: LocalHome, tools: dict[str, str], official: Path) -> None:
    begin(home, version="4.25.0", kubeconfig="x")
    assert plugins.install(home, tools)["kubernetes"] == "built"


def test_a_stack_of_the_users_own_provider_does_not_go_on_without_it(home: LocalHome, tools: dict[str, str]) -> None:
    begin(home, kubeconfig="x")
    with pytest.raises(plugins.PluginError, match=r"brought up with the plugin resource-kubernetes-v4\.34\.2, which is no longer"):
        plugins.install(home, tools)


def test_a_stack_of_the_former_stand_in_is_refused_with_the_way_out(home: LocalHome, tools: dict[str, str]) -> None:
    begin(home, __standIn="mistral-on-l4")
    with pytest.raises(plugins.PluginError, match=r"older version of this project.*demo down --purge"):
        plugins.install(home, tools)


def test_the_official_language_host_beside_the_cli_is_left_alone(home: LocalHome, tools: dict[str, str]) -> None:
    host = Path(tools["pulumi"]).with_name("pulumi-language-python")
    host.write_text("")
    host.chmod(0o755)
    assert plugins.install(home, tools)["python"] == "official"
    assert not list(home.pulumi_home.glob("plugins/language-*"))


def test_the_passphrase_is_random_private_and_made_once(home: LocalHome, tools: dict[str, str], tmp_path: Path) -> None:
    file = Path(plugins.pulumi_environment(home, cluster_info(tools))["PULUMI_CONFIG_PASSPHRASE_FILE"])
    text = file.read_text()
    assert len(text.strip()) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    plugins.pulumi_environment(home, cluster_info(tools))
    assert file.read_text() == text
    other = plugins.pulumi_environment(LocalHome(tmp_path / "other"), cluster_info(tools))
    assert Path(other["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text() != text


def test_no_secret_is_in_the_environment(home: LocalHome, tools: dict[str, str]) -> None:
    environment = plugins.pulumi_environment(home, cluster_info(tools))
    secret = Path(environment["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text().strip()
    assert not any(secret in value for value in environment.values())


@pytest.mark.parametrize("module", ["language_python.host"])
def test_a_plugin_starts_without_what_takes_longest_to_import(module: str) -> None:
    heavy = ("pydantic", "urllib3", "yaml", "boto3", "pulumi.resource", "mistral_on_l4.config.settings")
    program = f"import sys, embedded.plugins.{module}\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
