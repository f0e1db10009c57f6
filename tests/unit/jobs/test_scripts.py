"""The jobs' files as a pod has them: the package, nothing else of the checkout, and what the image carries."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from mistral_on_l4.manifests import scripts
from mistral_on_l4.manifests.jobs import Program, PythonJob, python_job
from mistral_on_l4.manifests.scripts import sources

JOBS = ("seed_weights", "register_model", "check_service", "await_volumes")
# What the storage-initializer image carries and the jobs say they use.
CARRIED = {"boto3", "botocore", "huggingface_hub", "requests", "urllib3"}


def pod_of(job: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The pod's spec and the data of the ConfigMap that it mounts."""
    program = Program(sources(job), "scripts", "default", "image", "account")
    spec: dict[str, Any] = python_job(PythonJob("name", job, program, [], 60))["spec"]["template"]["spec"]
    return spec, program.sources.data


def mounted(job: str, folder: Path) -> Path:
    """A folder as the kubelet fills it from the pod's volume and the ConfigMap."""
    spec, data = pod_of(job)
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "scripts"]
    for item in volume["configMap"]["items"]:
        (folder / item["path"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / item["path"]).write_text(data[item["key"]])
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python without this checkout: it has the standard library, the mounted folder and the installed packages.

    Without -S it would read the .pth file among the packages that leads back to the checkout.
    """
    environment = {"PATH": "/usr/bin", "PYTHONPATH": f"{folder}:{sysconfig.get_path('purelib')}"}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_brings_every_module_it_imports_and_the_image_has_the_rest(name: str) -> None:
    files = sources(name).files
    assert f"mistral_on_l4/jobs/{name}.py" in files
    for path, text in files.items():
        for node in ast.walk(ast.parse(text)):
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in imported:
                ours = f"{module.replace('.', '/')}.py" in files
                assert ours or module.partition(".")[0] in sys.stdlib_module_names | CARRIED, (
                    f"{path}: {module} is not in the image"
                )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("seed_weights", "seeding failed: "),
        ("register_model", "registration failed: REGISTRY_URL is not set"),
        ("check_service", "there is no API server here"),
        ("await_volumes", "KeyError: 'VOLUME_NAMESPACES'"),
    ],
)
def test_the_containers_own_command_starts_the_job_from_what_is_mounted_alone(name: str, says: str, tmp_path: Path) -> None:
    folder = mounted(name, tmp_path)
    container = pod_of(name)[0]["containers"][0]
    assert {"name": "PYTHONPATH", "value": container["volumeMounts"][0]["mountPath"]} in container["env"]
    python, *arguments = container["command"]
    ended = run(folder, *arguments)
    # Without an environment each of them ends at once and says why, which it can when all its imports were there.
    assert (python, ended.returncode, says in ended.stderr) == ("python", 1, True), ended.stderr


@pytest.mark.parametrize("name", JOBS)
def test_every_mounted_module_is_imported_from_what_is_mounted(name: str, tmp_path: Path) -> None:
    folder = mounted(name, tmp_path)
    paths = {path.relative_to(folder).with_suffix(""): str(path) for path in folder.rglob("*.py")}
    modules = {".".join(path.parts).removesuffix(".__init__"): file for path, file in paths.items()}
    ended = run(folder, "-c", f"import json, {', '.join(modules)}; print(json.dumps([{'.__file__, '.join(modules)}.__file__]))")
    assert (ended.returncode, json.loads(ended.stdout or "null")) == (0, list(modules.values())), ended.stderr


def test_only_what_a_job_needs_is_mounted() -> None:
    assert set(sources("check_service").files) == {
        "mistral_on_l4/__init__.py",
        "mistral_on_l4/jobs/__init__.py",
        "mistral_on_l4/jobs/check_service.py",
        "mistral_on_l4/jobs/cluster_api.py",
        "mistral_on_l4/jobs/last_words.py",
    }


@pytest.mark.parametrize("name", JOBS)
def test_a_config_map_can_hold_the_files_under_keys_that_kubernetes_takes(name: str) -> None:
    data = sources(name).data
    assert len(data) == len(sources(name).files)
    assert [key for key in data if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key)] == []
    assert sum(len(text.encode()) for text in data.values()) < 2**20 // 2


def test_files_that_no_config_map_can_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "MOST_BYTES", 1000)
    with pytest.raises(
        ValueError, match=r"the files of mistral_on_l4\.jobs\.check_service have \d+ bytes, and a ConfigMap takes 1000"
    ):
        sources("check_service")


def test_a_job_that_is_none_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match=r"mistral_on_l4\.jobs\.no_such_job is no module"):
        sources("no_such_job")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Another checkout, with files of a test's choice: package({"jobs/a.py": "import x"})."""

    def made(files: dict[str, str]) -> None:
        for path, text in {"__init__.py": "", "jobs/__init__.py": "", **files}.items():
            (tmp_path / "mistral_on_l4" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "mistral_on_l4" / path).write_text(text)
        monkeypatch.setattr(scripts, "_CHECKOUT", tmp_path)

    return made


def test_imports_are_found_however_they_are_written_and_wherever_they_stand(package: Any) -> None:
    package(
        {
            "jobs/job.py": "import os, mistral_on_l4.jobs.whole as w\nfrom mistral_on_l4.jobs import module\n"
            "def late():\n    from .near import name\n    from ..other.deep import far\n'import mistral_on_l4.jobs.in_text'\n",
            "jobs/whole.py": "from mistral_on_l4.jobs.\\\n  second import (\n  x,\n)",
            "jobs/module.py": "import mistral_on_l4.jobs.job",
            "jobs/near.py": "",
            "jobs/second.py": "",
            "jobs/in_text.py": "",
            "other/__init__.py": "from mistral_on_l4.other.sibling import x",
            "other/deep.py": "",
            "other/sibling.py": "",
        }
    )
    names = {path.removeprefix("mistral_on_l4/") for path in sources("job").files}
    jobs = {f"jobs/{name}.py" for name in ("__init__", "job", "whole", "module", "near", "second")}
    assert names == {"__init__.py", *jobs, "other/__init__.py", "other/deep.py", "other/sibling.py"}
