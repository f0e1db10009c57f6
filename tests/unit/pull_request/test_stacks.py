"""Which stacks a pull request concerns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mistral_on_l4.pull_request.stacks import by_preview, concerned

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("paths", "stacks"),
    [
        (["Pulumi.dev.yaml"], ["dev"]),
        (["Pulumi.dev.yaml", "docs/planner.md"], ["dev"]),
        (["components/weights.py"], ["dev", "local"]),
        (["policies/aws.py"], ["dev", "local"]),
        (["embedded/plugins/aws/server.py"], ["dev", "local"]),
        (["embedded/README.md"], []),
        (["mistral_on_l4/planner/catalogue/data/instances.yaml"], ["dev", "local"]),
        (["mistral_on_l4/pull_request/comment.py", "tests/unit/a.py", "README.md", "docs/aws.md"], []),
        (["mistral_on_l4/planner/NOTES.md"], []),
        (["Pulumi.gone.yaml"], []),
        ([], []),
    ],
)
def test_a_stack_is_previewed_when_something_that_it_is_made_of_changes(paths: list[str], stacks: list[str]) -> None:
    assert concerned(paths, ["local", "dev"]) == stacks


@pytest.mark.parametrize(("credentials", "real"), [(True, ["dev"]), (False, [])])
def test_credentials_preview_an_account_and_never_the_stack_of_somebodys_machine(credentials: bool, real: list[str]) -> None:
    how = by_preview(["dev", "local"], CHECKOUT, credentials)
    assert how["real"] == real
    assert sorted([*how["real"], *how["simulated"]]) == ["dev", "local"]


def test_a_file_that_names_no_platform_is_not_taken_for_a_machines_own(tmp_path: Path) -> None:
    lines = {"mine": "mistral-on-l4:platform: 'local'", "bare": "'platform': local"}
    for stack, line in (*lines.items(), ("typo", "mistral-on-l4:platform: locale"), ("none", "a: b")):
        (tmp_path / f"Pulumi.{stack}.yaml").write_text(f"config:\n  {line}\n")
    how = by_preview(["mine", "bare", "typo", "none"], tmp_path, True)
    assert how == {"simulated": ["mine", "bare"], "real": ["typo", "none"]}


def test_ci_asks_before_anything_is_installed() -> None:
    """Standard library only: -S leaves out what is installed."""
    command = [sys.executable, "-S", "-c", "import mistral_on_l4.pull_request.stacks"]
    subprocess.run(command, cwd=CHECKOUT, env={"PYTHONPATH": str(CHECKOUT)}, check=True)


def test_what_is_moved_away_or_has_a_foreign_name_concerns_stacks_as_well(tmp_path: Path) -> None:
    """The workflow's own command, on a repository in which git would see a rename and quote a name."""

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def asked() -> str:
        (step,) = (line.strip() for line in workflow.splitlines() if "mistral_on_l4.pull_request.stacks" in line)
        command = step.replace("python3", sys.executable).partition(" >> ")[0].replace("${CREDENTIALS:+--credentials}", "")
        environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True, text=True, env=environment).stdout

    workflow = (CHECKOUT / ".github/workflows/preview.yml").read_text()
    for folder in ("components", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n  mistral-on-l4:platform: eks\n")
    (tmp_path / "components/moved.py").write_text("a = 1\n" * 50)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "base")
    git("mv", "components/moved.py", "docs/moved.py")
    git("commit", "-qm", "moved")
    assert asked() == 'simulated=["dev"]\nreal=[]\n'
    (tmp_path / "components/dé.py").write_text("")
    git("add", ".")
    git("commit", "-qm", "foreign")
    assert asked() == 'simulated=["dev"]\nreal=[]\n'
    (tmp_path / "docs/note.md").write_text("")
    git("add", ".")
    git("commit", "-qm", "prose")
    assert asked() == "simulated=[]\nreal=[]\n"
