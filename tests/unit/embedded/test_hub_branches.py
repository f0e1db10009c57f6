"""A repository of the local hub with a second commit, whose files lie elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.hub.repository import Repository, add, with_branch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def repository(root: Path, tmp_path: Path) -> Repository:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    return add(root, "owner/name", source)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "config.json").write_text('{"real": true}')
    return folder


def test_a_branch_is_another_commit_with_its_own_files(root: Path, repository: Repository, folder: Path) -> None:
    both = with_branch(root, repository, "small", folder)
    main, small = both.at("main"), both.at("small")
    assert main is both
    assert small is not None
    assert (small.folder, both.at(small.commit)) == (folder, small)
    assert small.entries["config.json"].sha256 != both.entries["config.json"].sha256
    assert small.commit != both.commit
    assert both.at("no-such") is None


def test_digests_of_a_branch_are_kept_until_its_files_change(
    root: Path, repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = with_branch(root, repository, "small", folder).at("small")
    (folder / "config.json").write_text('{"real": "longer"}')
    second = with_branch(root, repository, "small", folder).at("small")
    assert first
    assert second
    assert first.commit != second.commit
    monkeypatch.setattr("embedded.hub.repository._index", lambda *_: pytest.fail("hashed again"))
    assert with_branch(root, repository, "small", folder).at("small") == second
