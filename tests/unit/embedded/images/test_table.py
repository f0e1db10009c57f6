"""Which program stands for which image."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.home import CHECKOUT, ClusterInfo
from embedded.images import table
from embedded.images.table import NoProgram, Reference, engine_repositories, program_for
from mistral_on_l4.config import images, local_engine
from mistral_on_l4.config.settings import ImagesSettings
from mistral_on_l4.planner.catalogue.loading import load_catalogue


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterInfo:
    tools = {name: str(tmp_path / name) for name in ("versitygw", "llm-d-inference-sim")}
    for path in tools.values():
        Path(path).touch()
    tools["storage-initializer-python"] = sys.executable
    return ClusterInfo(
        "127.64.0.0/16", "https://127.0.0.1:1", 1, "http://127.0.0.1:2", "127.0.0.1:2", "local-path", False, 8000, tools
    )


@pytest.mark.parametrize(
    ("role", "name"), [("minio", "minio"), ("mc", "mc"), ("jobs", "storage-initializer"), ("registry", "model-registry")]
)
@pytest.mark.parametrize("mirror", [None, "registry.example.org:5000/proxy"])
def test_every_image_of_the_stack_has_a_program_behind_a_mirror_too(
    cluster: ClusterInfo, role: str, name: str, mirror: str | None
) -> None:
    settings = ImagesSettings(mirror=mirror) if mirror else ImagesSettings()
    assert program_for(images.image(role, settings), cluster).name == name


def test_the_engine_that_the_catalogue_pins_for_the_local_platform_has_a_program(cluster: ClusterInfo) -> None:
    catalogue = load_catalogue()
    engine = catalogue.engines[catalogue.default_engine]
    program = program_for(engine.images["local"].reference, cluster)
    assert (program.name, program.env["MISTRAL_ON_L4_ENGINE"]) == ("vllm", engine.version)


def test_a_red_hat_engine_image_is_the_vllm_that_the_catalogue_says(cluster: ClusterInfo) -> None:
    pinned = load_catalogue().engines["vllm-0.11"].images["openshift"].reference
    for image in (pinned, pinned.partition("@")[0], pinned.replace(":3.2.3@", "@")):
        assert program_for(image, cluster).env["MISTRAL_ON_L4_ENGINE"] == "0.11.0"
    with pytest.raises(NoProgram, match="which vLLM is in it is not known"):
        program_for(pinned.partition("@")[0].replace("3.2.3", "3.9.9"), cluster)


def test_every_engine_image_of_the_catalogue_has_a_program(cluster: ClusterInfo) -> None:
    for engine in load_catalogue().engines.values():
        for image in engine.images.values():
            assert program_for(image.reference, cluster).env["MISTRAL_ON_L4_ENGINE"] == engine.version


def test_an_engine_version_whose_flags_are_not_known_has_no_program(cluster: ClusterInfo) -> None:
    assert program_for("vllm/vllm-openai:v0.11.2", cluster).env["MISTRAL_ON_L4_ENGINE"] == "0.11.2"
    with pytest.raises(NoProgram, match=r"no table of vLLM 0\.20\.1's flags"):
        program_for("docker.io/vllm/vllm-openai:v0.20.1", cluster)
    with pytest.raises(NoProgram, match="not known"):
        program_for("docker.io/vllm/vllm-openai:latest", cluster)


@pytest.mark.parametrize(
    "image",
    [
        "docker.io/library/nginx:1",
        "quay.io/minio/minio-operator:1",
        "quay.io/other/minio:1",
        "docker.io/minio/minio:1",
        "example.org/xminio/minio:1",
        "minio",
        "kserve/storage-initializer-extra:1",
        "",
        "Not An Image",
    ],
)
def test_an_image_that_only_looks_like_a_known_one_has_no_program(cluster: ClusterInfo, image: str) -> None:
    with pytest.raises(NoProgram):
        program_for(image, cluster)


def test_who_asks_for_an_unknown_image_is_told_the_known_ones(cluster: ClusterInfo) -> None:
    with pytest.raises(
        NoProgram, match=r"no local program stands for image docker.io/library/nginx:1; known are quay.io/minio/minio, "
    ):
        program_for("docker.io/library/nginx:1", cluster)


def test_postgresql_is_the_one_installed_here_or_none_and_says_what_to_install(
    cluster: ClusterInfo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("postgres", "initdb", "pg_isready"):
        (tmp_path / name).touch()
    monkeypatch.setattr(table, "_postgres_homes", lambda: [tmp_path])
    program = program_for("docker.io/library/postgres:16-alpine", cluster)
    assert str(tmp_path) in program.env["PATH"].split(":")
    (tmp_path / "initdb").unlink()
    with pytest.raises(NoProgram, match="apt-get install postgresql"):
        program_for("postgres:16", cluster)


def test_references_are_read_as_registries_read_them() -> None:
    assert Reference.read("localhost:5000/a/b@sha256:0") == Reference("localhost:5000", "a/b", "", "sha256:0")
    assert Reference.read("a/b:1") == Reference("", "a/b", "1", "")
    assert Reference.read("postgres:16-alpine").is_of("docker.io/library/postgres")


def test_a_tool_that_was_never_built_is_named(cluster: ClusterInfo) -> None:
    without = dataclasses.replace(cluster, tools={})
    with pytest.raises(NoProgram, match="versitygw"):
        program_for("quay.io/minio/minio:x", without)


def test_everything_laid_over_exists_and_no_path_of_the_host_is_hidden(cluster: ClusterInfo) -> None:
    every = [images.image(role, ImagesSettings()) for role in ("minio", "mc", "jobs", "registry")] + ["vllm/vllm-openai:v0.11.0"]
    for image in every:
        program = program_for(image, cluster)
        for target, source in program.overlay.items():
            assert target.startswith("/")
            assert source.exists(), target
            # What lies below /usr on the host may be the very interpreter that is to run.
            assert not target.startswith("/usr") or Path(target) == source


def test_entry_programs_are_found_and_executable(cluster: ClusterInfo) -> None:
    for image in ("quay.io/minio/minio:x", "quay.io/minio/mc:x", "kserve/storage-initializer:x", "vllm/vllm-openai:v0.11.0"):
        program = program_for(image, cluster)
        first = program.entrypoint[0]
        file = program.overlay[first] if first.startswith("/") else program.overlay["/opt/mistral-on-l4/bin"] / first
        assert os.access(file, os.X_OK), file


def test_a_container_holds_every_package_that_its_program_imports(cluster: ClusterInfo) -> None:
    for image in ("quay.io/minio/minio:x", "quay.io/minio/mc:x", "kserve/storage-initializer:x", "vllm/vllm-openai:v0.11.0"):
        overlay = program_for(image, cluster).overlay
        for package in ("embedded", "mistral_on_l4"):
            assert (overlay[f"/opt/mistral-on-l4/lib/{package}"] / "__init__.py").is_file(), image


def test_engine_repositories_come_from_the_catalogue() -> None:
    assert "docker.io/vllm/vllm-openai" in engine_repositories()


@pytest.mark.parametrize(
    "program", ["minio/bin/minio", "mc/bin/mc", "engine/bin/python3", "engine/bin/vllm", "model_registry/bin/model-registry"]
)
def test_starters_run_without_site_packages(program: str, tmp_path: Path) -> None:
    """They are started for every container: an import from the environment would cost time, and fail in a container."""
    starter = CHECKOUT / "embedded" / "images" / program
    environment = {"PATH": "/usr/bin:/bin", "MISTRAL_ON_L4_PYTHON": sys.executable, "MISTRAL_ON_L4_PACKAGES": str(CHECKOUT)}
    done = subprocess.run(
        [starter, "no-such-command"], env=environment, capture_output=True, text=True, timeout=30, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert "stand-in" in done.stderr or "simulation" in done.stderr
    assert "Traceback" not in done.stderr


def test_vllm_itself_runs_for_upstreams_cpu_image_once_it_is_installed(
    cluster: ClusterInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "found_tool", lambda name: None)
    with pytest.raises(NoProgram, match="`make up ENGINE=vllm` installs it"):
        program_for(local_engine.IMAGE, cluster)
    monkeypatch.setattr(table, "found_tool", lambda name: tmp_path / name)
    program = program_for(f"mirror.example.org/{local_engine.IMAGE.partition('/')[2]}", cluster)
    assert program.env["MISTRAL_ON_L4_VLLM_PYTHON"] == str(tmp_path / "vllm-cpu")
    assert "tensor parallel size above 1 runs as 1" in program.note
