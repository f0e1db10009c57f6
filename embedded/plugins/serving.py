"""How a plugin's process serves: a port on loopback, printed for the engine, until the engine interrupts."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# As the engine's own limit: a deployment with big scripts in ConfigMaps exceeds gRPC's 4 MiB.
_MESSAGE_BYTES = 400 << 20
# How often a plugin looks whether the CLI that started it is still there.
_PARENT_SECONDS = 1.0
OPTIONS = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]


def engine_address(arguments: list[str]) -> str:
    """The engine's address: the CLI gives it last, after flags."""
    plain = [argument for argument in arguments if not argument.startswith("-")]
    return plain[-1] if plain else ""


def serve(register: Callable[[Any], None], end: Callable[[], None], threads: int) -> None:
    """Serves what `register` adds to a gRPC server; calls `end` when interrupted or left alone, and ends the process.

    threads: calls answered at once. A wait for an object occupies one, and threads are only made when needed.
    """
    import grpc

    parent = os.getppid()
    make: Any = grpc.server
    server: Any = make(ThreadPoolExecutor(max_workers=threads), options=OPTIONS)
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    print(port, flush=True)
    # A killed CLI interrupts nobody. The kernel's own signal for that (PR_SET_PDEATHSIG) goes by the thread that forked, and those
    # of a Go program come and go.
    while not done.wait(_PARENT_SECONDS) and os.getppid() == parent:
        continue
    end()
    sys.stdout.flush()
    # Joining gRPC's threads takes longer than the operation has left to live, and nothing is left to save.
    os._exit(0)
