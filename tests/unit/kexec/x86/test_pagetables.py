# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import BadRequestError
from multiroot.kexec.x86.pagetables import identity_map, reach
from multiroot.ranges import Range
from multiroot.units import GIB, MIB, PAGE

from .walker import Memory, translate

PML4 = 0x21000
AREA = Range(0x1_4010_0000, MIB)
LOW = Range(0, 4 * GIB)

# Anywhere below 128 TiB, often around the 512 GiB that one PML4 entry maps.
bases = st.integers(1, 1 << 15).map(lambda n: n * 64 * MIB) | st.integers(500, 530).map(lambda n: n * GIB)
carves = st.builds(Range, bases, st.integers(1, 20 * GIB))


def memory(ranges: list[Range]) -> Memory:
    tables = identity_map(ranges, AREA)
    assert tables.tables_base == AREA.base
    assert len(tables.pml4) == PAGE
    assert len(tables.tables) <= AREA.size
    return Memory({PML4: tables.pml4, AREA.base: tables.tables})


@given(carves, st.data())
def test_every_address_maps_to_itself(carve: Range, data: st.DataObject) -> None:
    walk = memory([LOW, carve])
    for inside in (LOW, carve):
        offset = data.draw(st.integers(0, inside.size - 1))
        for address in (inside.base, inside.base + offset, inside.end - 1):
            assert translate(walk, PML4, address) == address


@given(carves)
def test_nothing_else_is_mapped(carve: Range) -> None:
    walk = memory([LOW, carve])
    first, last = carve.base // GIB * GIB, (carve.end + GIB - 1) // GIB * GIB
    for address in (max(first - 1, 0), last, last + 512 * GIB):
        assert (translate(walk, PML4, address) is None) == (address >= 4 * GIB)


AREA_SIZES = st.sampled_from([64 * 1024, MIB, 4 * MIB])


@given(bases, AREA_SIZES)
def test_what_is_within_reach_fits(base: int, size: int) -> None:
    area = Range(AREA.base, size)
    identity_map([LOW, Range(base, reach(area))], area)


@given(AREA_SIZES)
def test_reach_is_hardly_less_than_what_fits(size: int) -> None:
    """2 GiB more do not fit where the most tables are needed: across 512 GiB, both ends within a GiB."""
    area = Range(AREA.base, size)
    with pytest.raises(BadRequestError, match="do not fit"):
        identity_map([LOW, Range(1024 * GIB - 64 * MIB, reach(area) + 2 * GIB)], area)


def test_too_much_to_map() -> None:
    with pytest.raises(BadRequestError, match="do not fit"):
        identity_map([LOW, Range(512 * GIB, 300 * GIB)], AREA)
    with pytest.raises(BadRequestError, match="128 TiB"):
        identity_map([Range((1 << 47) - GIB, 2 * GIB)], AREA)
