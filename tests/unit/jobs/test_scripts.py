from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mistral_on_l4 import jobs

# What the storage-initializer image carries and the jobs say they use.
CARRIED = {"boto3", "botocore", "huggingface_hub", "requests", "urllib3"}


@pytest.mark.parametrize("name", ["seed_weights", "register_model", "check_service"])
def test_a_job_brings_every_module_it_imports_and_the_image_has_the_rest(name: str) -> None:
    files = jobs.scripts(name)
    assert f"{name}.py" in files
    ours = {file.removesuffix(".py") for file in files}
    for text in files.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for imported in names:
                top = imported.partition(".")[0]
                assert top in sys.stdlib_module_names | CARRIED | ours, f"{imported} is not in the image"


def test_all_scripts_of_a_job_fit_into_one_config_map() -> None:
    for name in ("seed_weights", "register_model", "check_service"):
        assert sum(len(text.encode()) for text in jobs.scripts(name).values()) < 2**20 // 2


def test_scripts_start_from_an_empty_folder_without_this_package(tmp_path: Path) -> None:
    for name, text in jobs.scripts("seed_weights").items():
        (tmp_path / name).write_text(text)
    # -I would hide the script's own folder too; a folder elsewhere and no PYTHONPATH hide the package, which is found by path.
    run = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); import weights_files, weights_limits",
            str(tmp_path),
        ],
        env={"PATH": "/usr/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_a_job_that_is_none_is_refused() -> None:
    with pytest.raises(FileNotFoundError):
        jobs.scripts("no_such_job")
