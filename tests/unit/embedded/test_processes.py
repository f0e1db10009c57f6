"""Processes that a killed command had not written down yet, those of a neighbour, and what is left after a stop."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from embedded import cluster, processes
from embedded.agent import sandbox
from embedded.control_plane import Component
from embedded.home import ClusterInfo, LocalHome
from embedded.leftovers import leftovers
from embedded.progress import Quiet

Run = Callable[..., int]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts `python -c CODE ARGUMENTS` in a session of its own; its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *arguments: str, output: Path | None = None, code: str = "import time; time.sleep(600)", env: dict[str, str] | None = None
    ) -> int:
        with (output or Path(os.devnull)).open("ab") as out:
            command = [sys.executable, "-c", code, *arguments]
            started.append(subprocess.Popen(command, stdout=out, start_new_session=True, env={**os.environ, **(env or {})}))
        pid = started[-1].pid
        # Popen returns a moment before the kernel has laid out what /proc shows of the new program.
        while not (Path(f"/proc/{pid}/cmdline").read_bytes() and Path(f"/proc/{pid}/environ").read_bytes()):
            assert started[-1].poll() is None
        return pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_process_that_was_started_and_never_written_down_ends_with_the_cluster(home: LocalHome, run: Run) -> None:
    stray = run(output=home.logs / "etcd.log")
    assert processes.names(home) == []
    cluster.stop(home)
    assert processes.start_time(stray) is None


def test_a_start_ends_such_a_process_and_leaves_those_that_are_written_down(home: LocalHome, run: Run) -> None:
    kept = processes.start(home, "hub", [sys.executable, "-c", "import time; time.sleep(600)"])
    strays = [run(output=home.logs / "etcd.log"), run(output=home.logs / "service-proxy.log")]
    elsewhere = run(output=home.root / "mine.log")
    try:
        assert processes.end_strays(home) == 2
        assert kept.alive
        assert processes.start_time(elsewhere) is not None
        assert [processes.start_time(pid) for pid in strays] == [None, None]
    finally:
        processes.stop(home, "hub")


def test_a_pods_first_process_that_was_never_written_down_ends(home: LocalHome, run: Run) -> None:
    for name in ("known", "unknown"):
        (home.pods / name).mkdir()
    known, unknown = (run(output=home.pods / name / "init.log") for name in ("known", "unknown"))
    (home.pods / "known" / "sandbox.json").write_text(f'{{"pid": {known}, "started": {processes.start_time(known)}}}')
    assert sandbox.end_unrecorded(home.pods) == 1
    assert processes.start_time(known) is not None
    assert processes.start_time(unknown) is None
    cluster.stop(home)
    assert processes.start_time(known) is None


def test_the_processes_of_a_neighbour_with_a_longer_name_are_not_ours(tmp_path: Path, run: Run) -> None:
    home, neighbour = LocalHome(tmp_path / "home"), LocalHome(tmp_path / "home-2")
    pid = run("embedded.pretended", f"--home={neighbour.root}")
    assert leftovers(home, None) == []
    assert [line.partition(":")[0] for line in leftovers(neighbour, None)] == [f"process {pid}"]


def test_a_plugin_that_its_pulumi_left_behind_is_named(home: LocalHome, run: Run) -> None:
    code = "import time; time.sleep(600)\nfrom embedded.plugins.aws.server import main"
    pid = run(code=code, env={"PULUMI_HOME": str(home.pulumi_home)})
    assert [line.partition(":")[0] for line in leftovers(home, None)] == [f"process {pid}"]


def test_what_another_user_listens_on_in_the_same_range_is_not_ours(home: LocalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    info = ClusterInfo("127.95.0.0/16", "", 1, "", "", "local-path", True, 0, {})
    with socket.create_server(("127.95.3.4", 0)) as server:
        assert leftovers(home, info) == [f"port 127.95.3.4:{server.getsockname()[1]} is listened on"]
        user = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: user)
        assert ipaddress.ip_address("127.95.3.4") in ipaddress.ip_network(info.service_cidr)
        assert leftovers(home, info) == []


@pytest.mark.timeout(60)
def test_ctrl_c_ends_the_wait_for_a_part_that_does_not_answer(home: LocalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def never() -> bool:
        asked.set()
        return False

    names = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kserve-manager", "hub", "agent")
    silent = [Component(name, ("/bin/sleep", "600"), never, 3600.0) for name in names]
    monkeypatch.setattr(cluster, "_components", lambda *_: silent)
    info = ClusterInfo("127.95.0.0/16", "", 1, "", "", "local-path", True, 0, {})
    home.kubeconfig.write_text("")
    main = threading.get_ident()
    interrupt = threading.Thread(target=lambda: asked.wait() and signal.pthread_kill(main, signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            cluster._start_all(home, info, home.root, Quiet())
    finally:
        interrupt.join()
        cluster.stop(home)
    assert processes.names(home) == []


def test_a_folder_goes_whatever_modes_its_own_folders_have() -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        child = os.fork()
        if child == 0:
            code = 2
            with suppress(BaseException):
                # Root is let in anywhere, so it becomes somebody else.
                if os.geteuid() == 0:
                    os.setuid(65534)
                pod = folder / "pod"
                deep = pod / "closed" / "deep"
                deep.mkdir(parents=True)
                (deep / "file").touch()
                for path, mode in ((deep, 0o000), (deep.parent, 0o555), (pod, 0o000)):
                    path.chmod(mode)
                sandbox.remove(pod)
                code = int(pod.exists())
            os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        shutil.rmtree(folder)
