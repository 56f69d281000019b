# SPDX-License-Identifier: GPL-2.0-or-later
"""The command of a trial: what is refused before anything takes time, and how it ends on the workstation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from multiroot.errors import BadRequestError
from multiroot.workbench import carry


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "test.sh"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_what_can_be_carried(script: Path) -> None:
    carry.check([str(script), "-v"], [script])
    carry.check(["true"], [])
    carry.check([], [])


def test_what_cannot(script: Path, tmp_path: Path) -> None:
    script.chmod(0o644)
    for command, carried, says in (
        ([str(script)], [], r"test\.sh is not executable \(`chmod \+x"),
        (["./none"], [], "there is no file none"),
        ([str(tmp_path)], [], "is a folder"),
        (["true"], [tmp_path / "none"], "there is no file"),
    ):
        with pytest.raises(BadRequestError, match=says):
            carry.check(command, carried)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", 128 + 9),
        ("import os, sys; sys.exit(os.environ['MULTIROOT_WHERE'] != 'workstation')", 0),
    ],
)
def test_a_command_here_ends_as_it_does(program: str, code: int) -> None:
    assert carry.run_here([sys.executable, "-c", program], {"MULTIROOT_WHERE": "workstation"}) == code


def test_a_command_that_is_not_here(tmp_path: Path) -> None:
    assert carry.run_here(["no-such-program-anywhere"], {}) == 127
    assert carry.run_here([str(tmp_path)], {}) == 126
