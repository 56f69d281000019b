# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/core/join.c, compiled for this program: one kernel has a root's place, no other after it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from kernel_code import compiled

EBUSY = -16
ABSENT, STARTED, ATTACHED, READY, PARKED = range(5)


@pytest.fixture
def root(tmp_path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(compiled(tmp_path, "core.h", "join_glue.c", "core/join.c")))


def number(root: ctypes.CDLL, name: str) -> int:
    return ctypes.c_int.in_dll(root, name).value


def test_the_kernel_that_was_started_takes_its_place(root: ctypes.CDLL) -> None:
    assert root.come_up(STARTED) == 0
    assert (root.state(), number(root, "entered"), number(root, "rung")) == (ATTACHED, 1, 1)


@pytest.mark.parametrize("state", [ABSENT, ATTACHED, READY, PARKED])
def test_a_kernel_that_comes_after_it_does_not(root: ctypes.CDLL, state: int) -> None:
    """It may have the first one's command line, by kexec or as its crash kernel."""
    assert root.come_up(state) == EBUSY
    assert root.state() == state
    assert [number(root, name) for name in ("mapped", "entered", "rung")] == [0, 0, 0]
