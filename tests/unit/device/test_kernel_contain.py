# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/core/contain.c: the end of one of several roots does not end the machine."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from kernel_code import compiled, loaded

ENOMEM = -12


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("contain"), "veto.h", "contain_glue.c", "core/contain.c")


@pytest.fixture
def root(module: Path, tmp_path: Path) -> ctypes.CDLL:
    return loaded(module, tmp_path)


def ended(root: ctypes.CDLL, how: str, *arguments: bool, others: bool) -> list[str]:
    """What was done to the machine, in its order."""
    ctypes.c_bool.in_dll(root, "others_live").value = others
    assert root.mr_contain_init() == 0
    getattr(root, how)(*arguments)
    return (ctypes.c_char * 64).in_dll(root, "done").value.decode().split()


@pytest.mark.parametrize("how", ["power_off", "restart"])
def test_firmware_does_not_get_ready_for_an_end_that_does_not_come(root: ctypes.CDLL, how: str) -> None:
    assert ended(root, how, False, others=True) == ["told", "parked"]


def test_one_that_is_the_last_after_all_needs_no_firmware_that_is_ready(root: ctypes.CDLL) -> None:
    """The other root has ended after this one kept firmware from getting ready."""
    assert ended(root, "power_off", True, others=True)[0] == "by-port"


@pytest.mark.parametrize(("how", "end"), [("power_off", "off"), ("restart", "reset")])
def test_the_last_root_ends_the_machine_as_ever(root: ctypes.CDLL, how: str, end: str) -> None:
    assert ended(root, how, False, others=False) == ["prepared", end]


def test_all_hooks_are_taken_back(root: ctypes.CDLL) -> None:
    assert root.mr_contain_init() == 0
    assert root.hooks() == 7
    root.mr_contain_exit()
    assert root.hooks() == 0


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_kernel_that_can_not_be_hooked_is_left_as_it_was(root: ctypes.CDLL, which: int) -> None:
    ctypes.c_int.in_dll(root, "fails_at").value = which
    assert root.mr_contain_init() == ENOMEM
    assert root.hooks() == 0
