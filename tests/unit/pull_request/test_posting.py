"""The workflow that may comment, with a `gh` that only writes down what it is told: whatever the artifact says, it posts where it may."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mistral_on_l4.pull_request.comment import marker

CHECKOUT = Path(__file__).resolve().parents[3]
HEAD = "0123456789abcdef0123456789abcdef01234567"
GH = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$1 $2" in
  "run download") [ -d "$OFFERED" ] && cp -r "$OFFERED" artifacts ;;
  "api repos/owner/project/pulls/7") echo "$PULL_HEAD" ;;
  "api repos/owner/project/pulls/8") echo another ;;
  "api --paginate") printf '%s' "$POSTED" ;;
  "api --method") cp body.json "$CALLS.body" ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="the workflow's script needs jq")
Post = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def post(tmp_path: Path) -> Post:
    """post(number, text) -> exit code, calls of gh that write, the body written."""

    def run(
        number: str = "7\n", text: str = f"{marker('dev')}\nhello", posted: str = "", head: str = HEAD
    ) -> tuple[int, list[str], str]:
        (job,) = yaml.safe_load((CHECKOUT / ".github/workflows/comment.yml").read_text())["jobs"].values()
        offered, binary = tmp_path / "offered/preview-dev", tmp_path / "bin"
        offered.mkdir(parents=True)
        binary.mkdir()
        (binary / "gh").write_text(GH)
        (binary / "gh").chmod(0o755)
        (offered / "number").write_text(number)
        (offered / "comment.md").write_text(text)
        calls = tmp_path / "calls"
        environment = {
            "PATH": f"{binary}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "OFFERED": str(offered.parent),
            "PULL_HEAD": head,
            "POSTED": posted,
            "REPOSITORY": "owner/project",
            "RUN": "1",
            "RUN_URL": "https://github.com/owner/project/actions/runs/1",
            "HEAD_SHA": HEAD,
        }
        command = ["bash", "-c", job["steps"][0]["run"]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
        body = Path(f"{calls}.body")
        writes = [line for line in calls.read_text().splitlines() if line.startswith("api --method")]
        return done.returncode, writes, json.loads(body.read_text())["body"] if body.exists() else ""

    return run


def test_a_first_comment_is_posted_and_says_which_commit_it_is_about(post: Post) -> None:
    code, writes, body = post()
    assert code == 0
    assert [write.split()[2:4] for write in writes] == [["POST", "repos/owner/project/issues/7/comments"]]
    assert body.startswith(marker("dev"))
    assert "Commit 012345678, by [this run](https://github.com/owner/project/actions/runs/1)" in body


def test_a_later_one_edits_the_first(post: Post) -> None:
    _, writes, _ = post(posted="41\n42\n")
    assert [write.split()[2:4] for write in writes] == [["PATCH", "repos/owner/project/issues/comments/41"]]


@pytest.mark.parametrize("number", ["8\n", "7; gh api x\n", "../9\n", "", "7 8\n"])
def test_an_artifact_that_names_another_pull_request_or_none_writes_nothing(post: Post, number: str) -> None:
    _, writes, _ = post(number=number)
    assert writes == []


def test_a_pull_request_that_has_moved_on_keeps_its_comment(post: Post) -> None:
    code, writes, _ = post(head="newer")
    assert (code, writes) == (0, [])


@pytest.mark.parametrize("text", ["hello", "", '<!-- mistral-on-l4 preview: a") | halt --> \n', f" {marker('dev')}\n"])
def test_text_without_our_marker_writes_nothing(post: Post, text: str) -> None:
    code, writes, _ = post(text=text)
    assert code == 1
    assert writes == []


def test_a_text_longer_than_github_takes_is_cut(post: Post) -> None:
    code, _, body = post(text=f"{marker('dev')}\n" + "ü" * 70_000)
    assert code == 0
    assert len(body) < 65_536
    assert "Commit 012345678" in body
