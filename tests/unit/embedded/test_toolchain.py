"""Tools are built once, from pinned modules, and every way in which that can fail ends in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from embedded import crds
from embedded.progress import PlainReport, Quiet
from embedded.toolchain import NAMES, ToolFailed, ensure_tools, pins
from embedded.toolchain.locks import held

Program = Callable[[str, str], Path]
Calls = Callable[[], list[str]]


class Heard(Quiet):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def builds(calls: Calls) -> list[str]:
    return [call for call in calls() if call.startswith("build")]


def test_the_tools_of_one_module_are_compiled_by_one_command(cache: Path, go_calls: Calls) -> None:
    tools = ensure_tools(["kube-apiserver", "etcd", "kubectl"], Quiet())
    assert len(builds(go_calls)) == 1
    said = {name: subprocess.run([path], capture_output=True, text=True, check=True).stdout.strip() for name, path in tools.items()}
    assert said == {
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "etcd": "go.etcd.io/etcd/server/v3",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    }
    assert all(path.name == name for name, path in tools.items())


def test_a_built_tool_is_not_built_again(cache: Path, go_calls: Calls) -> None:
    first = ensure_tools(["versitygw"], Quiet())
    before = go_calls()
    assert ensure_tools(["versitygw"], Quiet()) == first
    assert go_calls() == before


def test_files_that_lie_in_another_module_are_laid_over_the_names_that_our_program_embeds(
    cache: Path, go_calls: Calls, tmp_path: Path
) -> None:
    ensure_tools(["pulumi-resource-kubernetes"], Quiet())
    overlay = builds(go_calls)[0].split("-overlay ")[1].split()[0]
    assert f"list -overlay {overlay} -deps" in " ".join(go_calls())
    module = pins.GO_TOOLS["pulumi-resource-kubernetes"][1]
    upstream = tmp_path / "go-cache" / "module" / "cmd" / "pulumi-resource-kubernetes"
    laid = {str(module.path / name): str(upstream / name) for name in ("schema.json", "terraform-mapping.json")}
    assert json.loads(Path(overlay).read_text()) == {"Replace": laid}


def test_only_what_is_missing_of_a_module_is_built(cache: Path, go_calls: Calls) -> None:
    ensure_tools(["kubectl"], Quiet())
    ensure_tools(["kubectl", "etcd"], Quiet())
    assert "kubectl" not in builds(go_calls)[1]
    assert builds(go_calls)[1].endswith("go.etcd.io/etcd/server/v3")


def test_a_changed_module_file_means_another_build(
    cache: Path, go_calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pins.GO_TOOLS["versitygw"][1]
    before = module.digest("package")
    shutil.copytree(pins.HERE / "versitygw", tmp_path / "versitygw")
    monkeypatch.setattr(pins, "HERE", tmp_path)
    assert module.digest("package") == before
    with (tmp_path / "versitygw" / "go.sum").open("a") as out:
        out.write("example.org/one v1.0.0 h1:AAAA=\n")
    assert module.digest("package") != before


def test_the_pinned_modules_hold_every_tool_and_name_its_package() -> None:
    for name, (tool, module) in pins.GO_TOOLS.items():
        text = (module.path / "go.mod").read_text()
        ours = f"module {tool.package}\n" in text and any(module.path.glob("*.go"))
        assert ours or f"\t{tool.package}\n" in text or f"tool {tool.package}\n" in text, (
            f"{module.folder}/go.mod has no tool line for {name}"
        )
        assert (module.path / "go.sum").stat().st_size > 0


@pytest.mark.parametrize(
    ("output", "used"),
    [
        ("Client Version: v1.36.0", True),
        ("Client Version: v1.35.9-dispatcher", True),
        ("Client Version: v1.32.4-dispatcher", False),
        ("Client Version: v1.40.0", False),
        ("something else", False),
    ],
)
def test_kubectl_on_path_is_used_within_one_minor_version(
    cache: Path, go_calls: Calls, program: Program, output: str, used: bool
) -> None:
    path = program("kubectl", f"#!/bin/sh\necho '{output}'\n")
    found = ensure_tools(["kubectl"], Quiet())["kubectl"]
    assert (found == path) is used
    assert bool(builds(go_calls)) is not used


@pytest.mark.parametrize(("output", "used"), [("v3.259.0", True), ("v3.300.1", True), ("v3.258.9", False), ("v4.0.0", False)])
def test_pulumi_on_path_is_used_from_the_pinned_version_on(
    cache: Path, go_calls: Calls, program: Program, output: str, used: bool
) -> None:
    path = program("pulumi", f"#!/bin/sh\necho '{output}'\n")
    assert (ensure_tools(["pulumi"], Quiet())["pulumi"] == path) is used


def test_an_api_server_of_another_minor_version_is_left_alone(cache: Path, go_calls: Calls, program: Program) -> None:
    path = program("kube-apiserver", "#!/bin/sh\necho 'Kubernetes v1.35.2'\n")
    assert ensure_tools(["kube-apiserver"], Quiet())["kube-apiserver"] != path


def test_a_program_on_path_that_fails_is_left_alone(cache: Path, go_calls: Calls, program: Program) -> None:
    path = program("etcd", "#!/bin/sh\necho 'etcd Version: 3.7.1'\nexit 3\n")
    assert ensure_tools(["etcd"], Quiet())["etcd"] != path


def test_without_go_one_line_says_what_to_install(cache: Path, program: Program) -> None:
    with pytest.raises(ToolFailed, match=r"no `go` on PATH: install Go 1\.26 or newer") as refused:
        ensure_tools(["etcd"], Quiet())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("version", ["go1.25.9", "go1.9", "devel"])
def test_an_old_go_is_named_with_its_version(cache: Path, go_calls: Calls, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("FAKE_GO_VERSION", version)
    with pytest.raises(ToolFailed, match=rf"is {version}, which is too old: install Go 1\.26"):
        ensure_tools(["etcd"], Quiet())
    assert not builds(go_calls)


def test_too_little_disk_is_said_before_anything_is_built(cache: Path, go_calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 3 * 2**30))
    with pytest.raises(ToolFailed, match=r"takes up to \d+\.\d GiB and \S+ has 3\.0 GiB free: make room there, or set GO\w*CACHE"):
        ensure_tools(["kubectl"], Quiet())
    assert not builds(go_calls)


def test_a_failed_build_names_its_reason_and_its_log_and_leaves_nothing(
    cache: Path, go_calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GO_FAILS", "undefined: everything")
    with pytest.raises(ToolFailed) as failed:
        ensure_tools(["versitygw"], Quiet())
    log = cache / "logs" / "versitygw.log"
    assert str(failed.value).endswith(f"main.go:7:2: undefined: everything (log: {log})")
    assert "undefined: everything" in log.read_text()
    assert not [path for path in cache.iterdir() if path.name.startswith((".", "versitygw-"))]


def test_a_second_build_waits_for_the_first_and_says_so(cache: Path, go_calls: Calls) -> None:
    cache.mkdir(parents=True)
    heard = Heard()
    made: list[Path] = []
    holding, release = threading.Event(), threading.Event()

    def first() -> None:
        with held(cache / "versitygw.lock", lambda _: None, 60):
            holding.set()
            release.wait(60)

    other = threading.Thread(target=first)
    other.start()
    holding.wait(60)
    second = threading.Thread(target=lambda: made.extend(ensure_tools(["versitygw"], heard).values()))
    second.start()
    deadline = time.monotonic() + 60
    while not heard.notes and time.monotonic() < deadline:
        time.sleep(0.01)
    assert heard.notes == [f"S3 server: process {os.getpid()} is building it already; waiting for it"]
    assert not made
    release.set()
    other.join()
    second.join(60)
    assert len(made) == 1


def test_an_interrupted_build_leaves_no_process_and_no_file(cache: Path, go_calls: Calls, tmp_path: Path) -> None:
    code = "from embedded.toolchain import ensure_tools; from embedded.progress import Quiet; ensure_tools(['versitygw'], Quiet())"
    compiler = tmp_path / "go-cache" / "compiler.pid"
    building = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "FAKE_GO_SLEEPS": "60"}, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (compiler.exists() and compiler.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.02)
        pid = int(compiler.read_text())
        building.send_signal(signal.SIGINT)
        # It asks each of its processes to end, and gives it five seconds before it kills it.
        assert building.wait(60) != 0
    finally:
        building.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    assert not [path for path in cache.iterdir() if path.name.startswith((".", "versitygw-"))]
    assert ensure_tools(["versitygw"], Quiet())["versitygw"].exists()


def test_what_a_killed_generation_left_goes_with_the_next_and_not_with_a_build(
    cache: Path, go_calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = cache / f"{crds._scratch(crds.KSERVE)}left"
    left.mkdir(parents=True)
    generator = ensure_tools(["controller-gen"], Quiet())
    assert left.exists()
    monkeypatch.setattr(crds, "_generate", lambda *arguments: arguments[4].mkdir())
    assert crds.ensure_crds(crds.KSERVE, Quiet()).is_dir()
    assert generator["controller-gen"].exists()
    assert not left.exists()


def test_an_unknown_tool_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ToolFailed, match=r"no tool is called 'docker'; known are .*kube-apiserver, "):
        ensure_tools(["docker"], Quiet())
    assert "storage-initializer-python" in NAMES


def test_progress_in_a_log_is_lines_with_counts_and_an_end(cache: Path, go_calls: Calls, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as out:
        ensure_tools(["versitygw"], PlainReport(out, seconds=0.0))
    lines = log.read_text().splitlines()
    assert lines[0] == "S3 server"
    assert any(line.startswith("S3 server: 1/3 compiling example.org/one") for line in lines)
    assert lines[-1].startswith("S3 server: built versitygw (")
