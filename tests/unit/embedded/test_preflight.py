"""A machine on which pods could not run is refused before anything is started, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embedded import preflight

Program = Callable[[str, str], Path]


def test_another_system_is_refused_by_name() -> None:
    assert preflight.refusal(system="Darwin") == (
        "the local stack runs on Linux (or WSL2), not on Darwin: use a Linux machine, a virtual machine or WSL2"
    )


def test_a_missing_unshare_names_its_package(program: Program) -> None:
    assert "install util-linux" in (preflight.refusal() or "")


def test_a_machine_that_allows_namespaces_is_accepted(program: Program) -> None:
    program("unshare", "#!/bin/sh\nexit 0\n")
    assert preflight.refusal() is None


def test_a_machine_that_does_not_get_to_it_is_told_so(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("unshare", "#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(preflight, "PROBE_SECONDS", 0.2)
    assert "did not end within 0 s: is this machine out of memory" in (preflight.refusal() or "")


@pytest.mark.parametrize(
    ("file", "value", "command"),
    [
        ("sys/user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
        ("sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ("sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
    ],
)
def test_the_switch_that_forbids_namespaces_is_named_with_its_remedy(
    program: Program, tmp_path: Path, file: str, value: str, command: str
) -> None:
    program("unshare", "#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(f"{value}\n")
    said = preflight.refusal(proc=tmp_path) or ""
    assert said.endswith(f"`{command}`")
    assert "\n" not in said


def test_an_unknown_reason_is_passed_on_in_one_line(program: Program, tmp_path: Path) -> None:
    program("unshare", "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    said = preflight.refusal(proc=tmp_path) or ""
    assert "unshare failed: Operation not permitted; in a container, start it with" in said
    assert "\n" not in said


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., str | None]:
    """machine(flags, available_gib, ...) -> why vLLM itself cannot run on it."""

    def refusal(flags: str = "fpu avx avx2", available_gib: float = 16, **changes: object) -> str | None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {int(available_gib * 2**20)} kB\n")
        known = {"machine": "x86_64", "version": (3, 12), "proc": tmp_path, **changes}
        return preflight.vllm_refusal(**known)  # type: ignore[arg-type]

    return refusal


def test_a_machine_that_can_run_vllm_itself_is_accepted(machine: Callable[..., str | None]) -> None:
    assert machine() is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"machine": "aarch64"}, "for x86-64, not for aarch64"),
        ({"version": (3, 15)}, "for Python 3.11 to 3.14, not for 3.15"),
        ({"flags": "fpu avx"}, "AVX2"),
        ({"available_gib": 5.5}, "need 12 GiB of memory, and 5.5 GiB are available"),
    ],
)
def test_a_machine_that_cannot_run_vllm_itself_is_told_why_and_that_the_simulator_works(
    machine: Callable[..., str | None], changes: dict[str, object], says: str
) -> None:
    said = machine(**changes) or ""
    assert says in said
    assert said.endswith("the simulator works: `make up`")
    assert "\n" not in said
