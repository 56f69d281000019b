# SPDX-License-Identifier: GPL-2.0-or-later
"""What a root keeps of a VM outside of its agent."""

from __future__ import annotations

import os
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


def test_a_console_keeper_that_found_the_folder_before_makes_its_file_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = VmFolder(tmp_path, "vm0")
    folder.make()
    folder.console_log.touch()
    here = os.open(folder.path, os.O_RDONLY)
    rmdir: Callable[..., None] = os.rmdir
    late: list[str] = []

    def rmdir_late(path: str, **options: int) -> None:
        if not late:
            late.append("console.rec")
            os.close(os.open("console.rec", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", rmdir_late)
    folder.remove()
    os.close(here)
    assert late
    assert list(tmp_path.iterdir()) == []
