# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/pci, compiled for this program: the segment of a function that a root is handed."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from kernel_code import compiled, loaded

EBUSY, ENODEV, ENOENT, ENOMEM = -16, -19, -2, -12
SEGMENT, CAPABILITIES, COMMAND = 0x8001, 0x34, 4
FREE = 0
MASTER = 4  # of the command register
SOURCES = ("pci/rule.c", "pci/bus.c", "pci/hold.c")


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("pci"), "pci.h", "pci_glue.c", *SOURCES)


@pytest.fixture
def root(module: Path, tmp_path: Path) -> ctypes.CDLL:
    library = loaded(module, tmp_path)
    library.look.restype = ctypes.c_void_p
    library.has_rid.restype = library.multiroot_pci_has_rid.restype = ctypes.c_bool
    return library


def there(root: ctypes.CDLL) -> list[int]:
    """Mappings, host bridges and addresses that are in use."""
    return [ctypes.c_int.in_dll(root, name).value for name in ("mapped", "bridges", "taken")]


def wild(root: ctypes.CDLL) -> int:
    return ctypes.c_int.in_dll(root, "wild").value


def config(root: ctypes.CDLL) -> ctypes.Array[ctypes.c_ubyte]:
    return (ctypes.c_ubyte * 4096).in_dll(root, "config")


def test_a_function_that_somebody_has_in_hand_stays_when_its_segment_is_taken_away(
    root: ctypes.CDLL,
) -> None:
    """multiroot_iommu goes through all functions and stops those of ended roots, under no lock of ours."""
    assert root.add(SEGMENT) == 0
    pdev = ctypes.c_void_p(root.look())
    assert root.mr_pci_remove(SEGMENT) == 0
    assert there(root) == [1, 1, 0], "its addresses can be had again"
    assert root.multiroot_pci_has_rid(pdev)
    assert root.multiroot_pci_hold(pdev, FREE) == 0
    root.command(pdev, MASTER)
    assert config(root)[COMMAND] == MASTER
    assert wild(root) == 0
    root.pci_dev_put(pdev)
    assert there(root) == [0, 0, 0]


def test_a_segment_comes_and_goes_and_leaves_nothing(root: ctypes.CDLL) -> None:
    for _ in range(2):
        assert root.add(SEGMENT) == 0
        assert there(root) == [1, 1, 1]
        assert root.mr_pci_remove(SEGMENT) == 0
        assert there(root) == [0, 0, 0]
    assert root.mr_pci_remove(SEGMENT) == ENOENT


@pytest.mark.parametrize(("failing", "error"), [("fail_scan", ENOMEM), ("fail_reserve", ENOMEM)])
def test_a_segment_that_does_not_come_leaves_nothing(root: ctypes.CDLL, failing: str, error: int) -> None:
    ctypes.c_bool.in_dll(root, failing).value = True
    assert root.add(SEGMENT) == error
    assert there(root) == [0, 0, 0]
    ctypes.c_bool.in_dll(root, failing).value = False
    assert root.add(SEGMENT) == 0


def test_nothing_is_left_where_nothing_answers_or_an_address_is_taken(root: ctypes.CDLL) -> None:
    config(root)[CAPABILITIES] = 0xFF
    assert root.add(SEGMENT) == ENODEV
    assert there(root) == [0, 0, 0]
    config(root)[CAPABILITIES] = 0
    assert root.add(SEGMENT) == 0
    assert root.add(SEGMENT + 1) == EBUSY
    assert there(root) == [1, 1, 1]


def test_roots_know_a_function_by_its_numbers_in_segment_0_and_in_one_of_its_own(root: ctypes.CDLL) -> None:
    """Segments of the machine or of a driver (VMD) have numbers of their own."""
    assert [root.has_rid(segment) for segment in (0, 1, SEGMENT, 0x10000)] == [True, False, False, False]
    assert root.add(SEGMENT) == 0
    assert root.multiroot_pci_has_rid(ctypes.c_void_p(root.look()))
