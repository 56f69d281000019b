# SPDX-License-Identifier: GPL-2.0-or-later
"""What is taken over is whole blocks of RAM that this root has no name for, and all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiroot.plan.estate import heritage
from multiroot.ranges import Range, intersect, merge, subtract
from multiroot.units import MIB

BLOCK, UNIT = 128 * MIB, 512 * MIB
ranges = st.lists(st.builds(Range, st.integers(0, 1 << 33), st.integers(1, 1 << 32)), max_size=6)


def test_a_machine_with_a_carve_in_its_middle() -> None:
    ram = [Range(0, 0x9FC00), Range(MIB, 2048 * MIB - MIB), Range(4096 * MIB, 1408 * MIB)]
    used = [Range(4096 * MIB, 384 * MIB), Range(4480 * MIB, 1024 * MIB)]
    found = heritage(ram, used, BLOCK, UNIT)
    assert found == (
        Range(128 * MIB, 384 * MIB),
        Range(512 * MIB, 512 * MIB),
        Range(1024 * MIB, 512 * MIB),
        Range(1536 * MIB, 512 * MIB),
    )


@given(ranges, ranges)
def test_pieces_are_whole_blocks_and_all_there_are(ram: list[Range], used: list[Range]) -> None:
    pieces = heritage(ram, used, BLOCK, UNIT)
    free = subtract(merge(ram), [Range(0, MIB), *used])
    for piece in pieces:
        assert (piece.base % BLOCK, piece.size % BLOCK) == (0, 0)
        assert piece.base // UNIT == (piece.end - 1) // UNIT
        assert intersect(free, [piece]) == (piece,)
    for left in subtract(free, pieces):
        first = -(-left.base // BLOCK) * BLOCK
        assert first + BLOCK > left.end
