"""A pod's namespaces by themselves, without a cluster; for root and for an ordinary user alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from embedded import preflight
from embedded.home import CHECKOUT

pytestmark = pytest.mark.embedded

# Root becomes another user; what that user could not reach (an interpreter below /root) is bound to its own place again.
BECOME_NOBODY = """
import os, sys
from pathlib import Path
from embedded.agent import syscalls
folder, *needed = sys.argv[1:]
if os.getuid() == 0:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    closed = {}
    for number, path in enumerate(needed):
        outer = [each for each in reversed(Path(path).parents) if not each.stat().st_mode & 0o001]
        if outer:
            stage = Path(folder, f"stage-{number}")
            stage.mkdir()
            syscalls.bind(path, str(stage))
            closed.setdefault(str(outer[0]), []).append((path, stage))
    for top, inner in closed.items():
        syscalls.mount("tmpfs", top, "tmpfs", 0, "mode=755")
        for path, stage in inner:
            Path(path).mkdir(parents=True, exist_ok=True)
            syscalls.bind(str(stage), path)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.execv(sys.executable, [sys.executable, "-c", os.environ["BODY"], folder])
"""

BODY = """
import os, socket, sys, threading, time
from pathlib import Path
from embedded.agent.sandbox import Sandbox, SandboxFailed, alive
folder = Path(sys.argv[1])
for name in ("root", "data", "models"):
    (folder / name).mkdir()
(folder / "models" / "weights").write_text("24B")
ended = threading.Event()
box = Sandbox(folder, lambda state: ended.set())
box.start("pod-0", "10.128.0.9", [{"path": str(folder / "data"), "bytes": 2**20}])
_, fds = box._call({"op": "listen", "address": "127.64.0.5", "port": 80})
service = socket.socket(fileno=fds[0])
script = '''
id -u; hostname; cat /mnt/models/weights; echo
echo x > /data/file && echo data is writable
echo x > /mnt/models/new || echo models are not
echo x > /usr/new || echo the machine is not
dd if=/dev/zero of=/data/big bs=1M count=4 2>/dev/null || echo memory is limited
python3 -c 'import socket; s = socket.create_server(("", 80)); socket.create_connection(("127.64.0.5", 80), 5); print("service reached")'
'''
bind = lambda name, target, only: {"source": str(folder / name), "target": target, "readOnly": only}
spec = {"op": "start", "name": "main", "attempt": 0, "argv": ["sh", "-c", script + "exit 7"], "env": {"PATH": "/usr/bin:/bin"},
        "cwd": "/work/of/this/container", "root": str(folder / "root"), "uid": 2000, "gid": 0, "hide": [], "keep": [],
        "readOnlyRoot": False, "stdin": False, "terminal": False, "log": str(folder / "logs" / "main" / "0.log"),
        "mounts": [bind("data", "/data", False), bind("models", "/mnt/models", True)]}
box.call(spec)
assert ended.wait(20)
print(os.getuid())
print((folder / "logs" / "main" / "0.log").read_text())
box.kill()
assert not alive(folder)
"""


@pytest.fixture
def folder():
    if (why_not := preflight.refusal()) is not None:
        pytest.skip(why_not)
    path = Path(tempfile.mkdtemp(prefix="sandbox-"))
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)
    yield path
    shutil.rmtree(path)


def test_a_pod_needs_no_rights_of_its_user(folder):
    mounted = Path("/proc/self/mountinfo").read_text()
    needed = [sys.base_prefix, str(CHECKOUT)]
    done = subprocess.run(
        [sys.executable, "-c", BECOME_NOBODY, str(folder), *needed],
        env={"BODY": BODY, "PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    first, *log = done.stdout.splitlines()
    assert first != "0"
    assert [line.split(" ", 3)[3] for line in log if " stdout F " in line] == [
        "2000",
        "pod-0",
        "24B",
        "data is writable",
        "models are not",
        "the machine is not",
        "memory is limited",
        "service reached",
    ]
    assert Path("/proc/self/mountinfo").read_text() == mounted
