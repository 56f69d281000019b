# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/core/bridge.c, compiled for this program: host bridges in a root that came up without PCI."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from kernel_code import compiled, loaded

ENODEV = -19
ALL = 0x10000


@pytest.fixture
def root(tmp_path: Path) -> ctypes.CDLL:
    """A root that is alone, on a machine with two host bridges."""
    (tmp_path / "compiled").mkdir()
    library = compiled(tmp_path / "compiled", "bridge.h", "bridge_glue.c", "core/bridge.c")
    root = loaded(library, tmp_path)
    root.bridge(0, 0x3F)
    root.bridge(0x40, 0x7F)
    return root


def there(root: ctypes.CDLL) -> list[int]:
    """Buses, windows, and windows that were put to the kernel's resources while they were there."""
    return [root.buses_made(), *(ctypes.c_int.in_dll(root, name).value for name in ("linked", "twice"))]


@pytest.mark.parametrize("bus", [0, 0x40])
def test_bridges_that_could_not_all_be_made_are_made_the_next_time(root: ctypes.CDLL, bus: int) -> None:
    ctypes.c_int.in_dll(root, "fail_at").value = bus
    assert root.mr_bridge_let_in(0, ALL) == ENODEV
    assert there(root) == [0, 0, 0]
    ctypes.c_int.in_dll(root, "fail_at").value = -1
    assert root.mr_bridge_let_in(0, ALL) == 0
    assert there(root) == [2, 2, 0]
    assert root.mr_bridge_let_in(0, ALL) == 0, "once more, as for each function"
    assert there(root) == [2, 2, 0]
    root.mr_bridge_exit()
    assert there(root) == [0, 0, 0]
