# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run's header says of its source, wherever that is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from multiroot.bench.results import provenance
from multiroot.lab import paths


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "source_dir", lambda: tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def _git(folder: Path, *words: str) -> str:
    told = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", *told, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def test_a_clone_names_its_commit_and_whether_it_was_changed_since(source: Path) -> None:
    (source / "file").write_text("one")
    _git(source, "init", "-q")
    _git(source, "add", "file")
    _git(source, "commit", "-q", "-m", "first")
    commit = _git(source, "rev-parse", "--short=12", "HEAD").strip()
    assert provenance.revision() == commit
    (source / "file").write_text("two")
    assert provenance.revision() == f"{commit}+"


def test_a_folder_that_is_no_clone_has_no_revision(source: Path) -> None:
    assert provenance.revision() == "unknown"


def test_a_machine_without_git_has_no_revision(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(source))
    assert provenance.revision() == "unknown"
