from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from embedded.plugins.stack_files import forget_salts

SALT = "v1:abc=:v1:def:ghi=="
ORIGINAL = "# mine\nconfig:\n    p:a:   1   # odd\n"
WRITTEN = "# mine\nconfig:\n  p:a: 1 # odd\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: p\nruntime: python\n")
    return folder


def keep_salt(project: Path, stack: str, salt: str) -> str:
    file = project.parent / "state" / ".pulumi" / "stacks" / "p" / f"{stack}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"checkpoint": {"latest": {"secrets_providers": {"type": "passphrase", "state": {"salt": salt}}}}}))
    return (project.parent / "state").as_uri()


def test_a_salt_that_the_state_holds_is_taken_out_of_the_file(project: Path) -> None:
    (project / "Pulumi.local.yaml").write_text(f"{WRITTEN}encryptionsalt: {SALT}\n")
    assert forget_salts(project, keep_salt(project, "local", SALT)) == [project / "Pulumi.local.yaml"]
    assert (project / "Pulumi.local.yaml").read_text() == WRITTEN


def test_the_layout_comes_back_as_git_knows_it(project: Path) -> None:
    (project / "Pulumi.local.yaml").write_text(ORIGINAL)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run(["git", "add", "-A"], cwd=project, check=True)
    (project / "Pulumi.local.yaml").write_text(f"{WRITTEN}encryptionsalt: {SALT}\n")
    forget_salts(project, keep_salt(project, "local", SALT))
    assert (project / "Pulumi.local.yaml").read_text() == ORIGINAL


def test_a_change_of_ones_own_is_not_undone(project: Path) -> None:
    (project / "Pulumi.local.yaml").write_text(ORIGINAL)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run(["git", "add", "-A"], cwd=project, check=True)
    changed = WRITTEN.replace("1 # odd", "2 # odd")
    (project / "Pulumi.local.yaml").write_text(f"{changed}encryptionsalt: {SALT}\n")
    forget_salts(project, keep_salt(project, "local", SALT))
    assert (project / "Pulumi.local.yaml").read_text() == changed


@pytest.mark.parametrize(
    ("stack", "salt", "text"),
    [
        ("dev", SALT, WRITTEN),
        ("local", "v1:another", WRITTEN),
        ("local", SALT, "config:\n  p:token:\n    secure: v1:xyz\n"),
    ],
    ids=["of a stack in another backend", "other than the state's", "that secret values of the file need"],
)
def test_a_salt_stays(project: Path, stack: str, salt: str, text: str) -> None:
    written = f"{text}encryptionsalt: {SALT}\n"
    (project / "Pulumi.local.yaml").write_text(written)
    assert forget_salts(project, keep_salt(project, stack, salt)) == []
    assert (project / "Pulumi.local.yaml").read_text() == written
