"""kubectl exec, attach, run and port-forward, by the official kubectl through the real API server."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import socket
import struct
import subprocess
import termios
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.embedded

Kubectl = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def command(cluster: Any, lab: Any) -> list[str]:
    """kubectl in the lab's namespace."""
    return [cluster.info.tools["kubectl"], "--kubeconfig", str(cluster.home.kubeconfig), "--namespace", lab.namespace]


@pytest.fixture
def kubectl(command: list[str]) -> Kubectl:
    def run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*command, *arguments], input=given, capture_output=True, timeout=60, check=False)

    return run


@pytest.fixture
def sleeper(lab: Any) -> str:
    lab.pod("sleeper", "echo begun; exec sleep 3600", container={"workingDir": "/srv"}, terminationGracePeriodSeconds=0)
    lab.phase("sleeper", "Running")
    return "sleeper"


def test_a_command_has_its_streams_its_folder_and_its_exit_code(kubectl: Kubectl, sleeper: str) -> None:
    script = "pwd; tr a-z A-Z; echo $HOSTNAME >&2; exit 3"
    done = kubectl("exec", "-i", sleeper, "--", "sh", "-c", script, given=b"words")
    assert (done.stdout, done.returncode) == (b"/srv\nWORDS", 3)
    assert done.stderr.splitlines()[0] == b"sleeper"
    assert b"exit code 3" in done.stderr


def test_what_is_large_passes_whole_in_both_directions(kubectl: Kubectl, sleeper: str) -> None:
    content = os.urandom(8 * 2**20)
    assert kubectl("exec", "-i", sleeper, "--", "cat", given=content).stdout == content


def test_a_program_that_is_not_there_is_named(kubectl: Kubectl, sleeper: str) -> None:
    done = kubectl("exec", sleeper, "--", "no-such-program")
    assert done.returncode != 0
    assert b"no-such-program" in done.stderr


def test_a_command_ends_with_its_client(command: list[str], kubectl: Kubectl, sleeper: str, lab: Any) -> None:
    client = subprocess.Popen([*command, "exec", sleeper, "--", "sleep", "4321"])
    lab.eventually(lambda: b"4321" in kubectl("exec", sleeper, "--", "sh", "-c", "cat /proc/[0-9]*/cmdline").stdout)
    client.kill()
    client.wait()
    lab.eventually(lambda: b"4321" not in kubectl("exec", sleeper, "--", "sh", "-c", "cat /proc/[0-9]*/cmdline").stdout)


def test_a_terminal_is_one_with_the_size_of_the_clients(command: list[str], sleeper: str) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    client = subprocess.Popen([*command, "exec", "-it", sleeper, "--", "sh"], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, b"until stty size | grep -q '33 99'; do sleep 0.1; done; tty; echo $TERM; exit 5\n")
    said, end = b"", time.monotonic() + 60
    while client.poll() is None and time.monotonic() < end:
        if select.select([master], [], [], 0.2)[0]:
            try:
                said += os.read(master, 65536)
            except OSError:
                break
    assert client.wait(30) == 5, said
    assert re.search(rb"/dev/pts/\d+\r\nxterm", said), said
    os.close(master)


def test_a_port_of_a_pod_is_reached_from_here_and_a_closed_one_is_named(command: list[str], kubectl: Kubectl, lab: Any) -> None:
    lab.pod(
        "web", "mkdir /tmp/w && cd /tmp/w && echo hello > file && exec python -m http.server 8123", terminationGracePeriodSeconds=0
    )
    lab.phase("web", "Running")
    # kubectl gives the forward up at the first connection that is refused.
    listens = ["exec", "web", "--", "python", "-c", "import socket; socket.create_connection(('127.0.0.1', 8123))"]
    lab.eventually(lambda: kubectl(*listens).returncode == 0)
    client = subprocess.Popen(
        [*command, "port-forward", "pod/web", ":8123", ":8124"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert client.stdout is not None
    try:
        ports = {}
        while len(ports) < 2:
            line = client.stdout.readline()
            assert line, "kubectl port-forward ended"
            if found := re.search(r"127\.0\.0\.1:(\d+) -> (\d+)", line):
                ports[found[2]] = found[1]

        def asked() -> bytes:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports['8123']}/file", timeout=20) as answer:
                return bytes(answer.read())

        # Several connections share one session.
        assert [asked() for _ in range(3)] == [b"hello\n"] * 3
        with socket.create_connection(("127.0.0.1", int(ports["8124"])), timeout=5) as connection:
            assert connection.recv(1) == b""
    finally:
        client.terminate()
        rest = client.communicate(timeout=20)[0]
    assert "nothing listens on port 8124" in rest


def test_an_attached_client_sees_what_is_written_and_its_words_reach_the_process(command: list[str], lab: Any) -> None:
    lab.pod("reader", "read line; echo got $line; read more || echo over", container={"stdin": True, "stdinOnce": True})
    lab.phase("reader", "Running")
    done = subprocess.run([*command, "attach", "-i", "reader"], input=b"a word\n", capture_output=True, timeout=60, check=False)
    assert b"got a word" in done.stdout
    lab.phase("reader", "Succeeded")
    assert lab.log("reader") == "got a word\nover\n"


def test_the_documents_curl_pod_asks_a_service_and_is_gone_afterwards(kubectl: Kubectl, lab: Any) -> None:
    lab.pod(
        "web",
        "mkdir /tmp/w && cd /tmp/w && echo mistral > file && exec python -m http.server 8123",
        metadata={"labels": {"app": "web"}},
    )
    lab.create("v1", "Service", "web", spec={"selector": {"app": "web"}, "ports": [{"port": 8123}]})
    lab.phase("web", "Running")
    curl = ["curl", "-sf", "--retry", "20", "--retry-all-errors", "--retry-delay", "1", "http://web:8123/file"]
    done = kubectl("run", "test-api", "--rm", "-i", "--restart=Never", "--image=curlimages/curl", "--", *curl)
    assert b"mistral" in done.stdout, done.stderr
    assert not lab.exists("Pod", "test-api")
