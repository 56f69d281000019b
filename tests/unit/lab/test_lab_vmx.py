# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of an Intel machine, and what its first root is told of it."""

from __future__ import annotations

import pytest

from multiroot.arch.x86 import LEDGER
from multiroot.lab.layout import SECTION
from multiroot.lab.vmx import Layout, unsigned
from multiroot.units import GIB, MIB


@pytest.mark.parametrize("image", [1, 448 * MIB, 512 * MIB, 513 * MIB])
def test_the_parts_lie_in_the_ram_and_not_in_each_other(image: int) -> None:
    layout = Layout.of(image)
    assert LEDGER.end < layout.carve.start
    assert layout.carve.end <= layout.image.start
    assert layout.image.end < layout.ram
    assert layout.image.size >= image
    assert all(
        part % SECTION == 0 for each in (layout.carve, layout.image) for part in (each.start, each.size)
    )


def test_an_image_of_today_fits_the_memory_of_the_emulator() -> None:
    assert Layout.of(448 * MIB).ram <= 2 * GIB


def test_the_first_root_is_told() -> None:
    assert Layout.of(448 * MIB).cmdline() == [
        "memmap=0x30000$0x10000",
        "memmap=0x28000000$0x28000000",
        "memmap=0x20000000!0x50000000",
    ]


def test_a_whole_machine_has_an_arena_that_touches_no_other_persistent_memory() -> None:
    layout = Layout.of(300 * MIB, whole=True)
    assert layout.arena
    assert layout.image.end + SECTION == layout.arena.start
    assert layout.arena.end < layout.ram <= 3 * GIB
    assert layout.cmdline()[-1] == f"memmap={layout.arena.size:#x}!{layout.arena.start:#x}"


def test_a_signature_goes_and_the_module_stays() -> None:
    module, signature = bytes(range(256)) * 5, b"s" * 700
    described = bytes(8) + len(signature).to_bytes(4, "big")
    assert unsigned(module + signature + described + b"~Module signature appended~\n") == module
    assert unsigned(module) == module
