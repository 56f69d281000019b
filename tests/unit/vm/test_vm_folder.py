# SPDX-License-Identifier: GPL-2.0-or-later
"""What a root keeps of a VM outside of its agent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from multiroot.vm.folder import VmFolder, folders


def test_a_folder_goes_while_a_console_keeper_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = VmFolder(tmp_path, "vm0")
    folder.make()
    folder.console_log.touch()
    remove: Callable[..., None] = shutil.rmtree
    late: list[type[Exception]] = []

    def remove_late(path: Path, **options: bool) -> None:
        # What was there has been listed, and now the keeper opens its file.
        try:
            folder.console_record.touch()
        except FileNotFoundError:
            late.append(FileNotFoundError)
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", remove_late)
    folder.remove()
    assert late, "the keeper finds no folder of that name any more"
    assert list(tmp_path.iterdir()) == []
    folder.remove()


def test_what_an_agent_left_half_deleted_is_in_nobodys_way(tmp_path: Path) -> None:
    folder = VmFolder(tmp_path, "vm0")
    folder.make()
    (tmp_path / ".vm0").mkdir()
    (tmp_path / ".vm0/console.rec").touch()
    folder.remove()
    assert folders(tmp_path) == []
