# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a lab machine's memory lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.arch.x86 import X86
from multiroot.coordinator.canary import RAM_BYTES as CANARY_RAM
from multiroot.errors import BadRequestError
from multiroot.lab.layout import SECTION, Layout, Range, arena_size, lay_out
from multiroot.units import GIB, MIB

IMAGE = 424 * MIB


def default(**changes: int | bool) -> Layout:
    wanted = {"old_memory": 2 * GIB, "arena": 384 * MIB, "carve": GIB, "carve_reserved": True, "image": IMAGE}
    return lay_out(**{**wanted, **changes})  # type: ignore[arg-type]


def test_the_usual_machine() -> None:
    layout = default()
    assert layout.arena == Range(0x1_0000_0000, 384 * MIB)
    assert layout.carve == Range(0x1_1800_0000, GIB)
    assert layout.ram == 3456 * MIB
    assert layout.image == Range(0x1_8000_0000, IMAGE)
    assert layout.cmdline() == ["memmap=0x18000000!0x100000000", "memmap=0x40000000$0x118000000"]


def test_without_a_reserved_carve_memory_is_movable_from_there_on() -> None:
    layout = default(carve_reserved=False)
    after = X86.lab.high_base + layout.ram - X86.lab.low_ram - layout.carve.end
    assert after >= 2 * SECTION, "early allocations take the end of memory"
    assert layout.cmdline()[1] == f"movablecore={(GIB + after + SECTION) // MIB}M"


def test_a_carve_too_small_is_refused() -> None:
    with pytest.raises(BadRequestError, match="64 MiB is too small"):
        default(carve=64 * MIB)


sizes = st.integers(1, 64 * GIB)


@given(
    old_memory=sizes,
    arena=sizes,
    carve=st.integers(256 * MIB, 64 * GIB),
    carve_reserved=st.booleans(),
    image=st.integers(1, 4 * GIB),
)
def test_ranges_are_aligned_apart_and_inside(
    old_memory: int, arena: int, carve: int, carve_reserved: bool, image: int
) -> None:
    layout = lay_out(
        old_memory=old_memory, arena=arena, carve=carve, carve_reserved=carve_reserved, image=image
    )
    high_end = X86.lab.high_base + layout.ram - X86.lab.low_ram
    assert layout.ram >= X86.lab.split_from, "else q35 would put more than 2 GiB below 4 GiB"
    assert layout.arena.size >= arena
    assert layout.carve.size >= carve
    for part in (layout.arena, layout.carve):
        assert part.start % SECTION == part.size % SECTION == 0
        assert X86.lab.high_base <= part.start < part.end <= high_end
    assert layout.arena.end <= layout.carve.start
    assert layout.ram - layout.arena.size - layout.carve.size * carve_reserved >= old_memory
    assert layout.image.start >= high_end
    assert layout.image.start % GIB == 0
    assert layout.max_memory - layout.ram >= image + GIB


@given(st.integers(1, 16), st.integers(1, 8 * GIB), st.integers(1, GIB))
def test_the_arena_holds_all_virtual_machines_and_a_canary(vms: int, memory: int, slack: int) -> None:
    size = arena_size(vms, memory, slack)
    assert size % SECTION == 0
    assert 0 <= size - vms * memory - slack - CANARY_RAM < SECTION
