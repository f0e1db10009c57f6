"""What counts as a container's memory, and who is told when it is too much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from embedded.agent import memory
from embedded.agent.memory import Limited, MemoryWatch

MIB = 2**20
# A parent with 64 MiB of its own, and a child that shares them.
FAMILY = """
import os, sys
held = b"x" * (64 << 20)
child = os.fork()
if child == 0:
    sys.stdin.read(1)
    os._exit(0)
print(child, flush=True)
sys.stdin.read(1)
"""


@pytest.fixture
def family():
    """Pids of a parent and its child, which hold the same 64 MiB."""
    process = subprocess.Popen([sys.executable, "-I", "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield [process.pid, int(process.stdout.readline())]
    process.communicate("..")


def test_what_processes_share_is_charged_once(family):
    assert sum(map(memory.resident_bytes, family)) > 128 * MIB
    assert 64 * MIB < sum(map(memory.charged_bytes, family)) < 100 * MIB


def test_a_process_that_is_gone_uses_nothing():
    ended = subprocess.Popen([sys.executable, "-I", "-c", ""])
    ended.wait()
    assert memory.resident_bytes(ended.pid) == memory.charged_bytes(ended.pid) == 0


def test_whoever_is_above_its_limit_is_told_of_and_nobody_else(family):
    namespace = str(Path(f"/proc/{family[0]}/ns/mnt").readlink())
    told = []

    def look(limit_bytes):
        MemoryWatch(lambda: {namespace: Limited(limit_bytes, told.append), "mnt:[0]": Limited(0, told.append)}).look()

    assert set(family) <= set(memory.processes({namespace: None})[namespace])
    look(2**50)
    assert told == []
    look(MIB)
    assert len(told) == 1
    assert told[0] > 64 * MIB
