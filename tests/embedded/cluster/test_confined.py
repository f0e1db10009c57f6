"""A program in a network of its own: reachable where it should be and nowhere else, and gone with the process that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.embedded

# Listens on every address, answers each connection with what it got from the address in its argument, or with why it got nothing.
SERVER = """
import socket, sys
host, port, upstream = "0.0.0.0", int(sys.argv[1]), sys.argv[2].rpartition(":")
server = socket.create_server((host, port))
while True:
    client, _ = server.accept()
    try:
        with socket.create_connection((upstream[0], int(upstream[2])), timeout=5) as back:
            client.sendall(back.recv(100))
    except OSError as error:
        client.sendall(type(error).__name__.encode())
    client.close()
"""


# No outgoing connection gets a port of this address between its choice and its use.
HERE = "127.0.0.46"


def free_port() -> int:
    with socket.create_server((HERE, 0)) as server:
        return int(server.getsockname()[1])


def answer(address: tuple[str, int], seconds: float = 60.0) -> bytes:
    """What a connection says; tried again while it is refused or says nothing."""
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(address, timeout=10.0) as connection:
                if data := connection.recv(100):
                    return data
        except OSError:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "nothing was said"
        time.sleep(0.05)


@contextmanager
def confined(listen: int, reach: int, port: int, upstream: int) -> Iterator[subprocess.Popen[bytes]]:
    program = [sys.executable, "-c", SERVER, str(port), f"127.0.0.1:{upstream}"]
    command = [
        sys.executable,
        "-m",
        "embedded.confined",
        f"--listen={HERE}:{listen}",
        f"--reach=127.0.0.1:{reach}",
    ]
    process = subprocess.Popen([*command, "--", *program])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def greeter() -> Iterator[int]:
    """A server of the host that greets; its port."""
    import threading

    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            client.sendall(b"hello from the host")
            client.close()

    threading.Thread(target=serve, daemon=True).start()
    yield int(server.getsockname()[1])
    server.close()


def test_connections_come_in_by_the_listened_port_and_go_out_by_the_reached_one(greeter: int) -> None:
    port = free_port()
    with confined(port, greeter, port, greeter):
        assert answer((HERE, port)) == b"hello from the host"


def test_what_is_not_named_is_not_reached(greeter: int) -> None:
    port = free_port()
    with confined(port, free_port(), port, greeter):
        assert answer((HERE, port)) == b"ConnectionRefusedError"


def test_a_server_on_every_address_inside_listens_on_one_loopback_address_outside(greeter: int) -> None:
    port = free_port()
    with confined(port, greeter, port, greeter):
        answer((HERE, port))
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), timeout=2.0):
            pass


def test_the_program_gets_the_signal_and_its_exit_code_comes_back() -> None:
    port = free_port()
    with confined(port, free_port(), port, 9) as process:
        answer((HERE, port))
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM


def test_the_program_ends_when_its_keeper_is_killed() -> None:
    port = free_port()
    with confined(port, free_port(), port, 9) as process:
        answer((HERE, port))
        children = _descendants(process.pid)
        assert len(children) == 2
        process.kill()
        process.wait()
        end = time.monotonic() + 60
        while any(_alive(pid) for pid in children) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(_alive(pid) for pid in children)


def _descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [found for child in children for found in (child, *_descendants(child))]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_address_that_is_not_loopback_is_refused() -> None:
    command = [sys.executable, "-m", "embedded.confined", "--listen=0.0.0.0:1", "--", "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 2
    assert "not a loopback address" in done.stderr
