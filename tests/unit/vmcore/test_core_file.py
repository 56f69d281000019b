# SPDX-License-Identifier: GPL-2.0-or-later
"""The core file is one that others can read, and each byte of memory has its place in it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.ranges import Range
from multiroot.units import MIB, PAGE
from multiroot.vmcore.core_file import NO_ADDRESS, CoreFile, Note, notes_in, vmcoreinfo_in, vmcoreinfo_note

TEXT = b"OSRELEASE=6.12\nSYMBOL(_stext)=ffffffff81000000\n"


def test_headers() -> None:
    core = CoreFile(
        62, (Range(0x10000, PAGE), Range(4 * MIB, MIB)), (vmcoreinfo_note(TEXT),), 0xFFFF888000000000
    )
    head = core.header()
    kind, machine = struct.unpack_from("<HH", head, 16)
    assert (head[:6], kind, machine) == (b"\x7fELF\x02\x01", 4, 62)
    programs = [struct.unpack_from("<IIQQQQQQ", head, 64 + 56 * number) for number in range(3)]
    assert [each[0] for each in programs] == [4, 1, 1]
    first, second = programs[1:]
    assert first[3:7] == (0xFFFF888000010000, 0x10000, PAGE, PAGE)
    assert second[3:7] == (0xFFFF888000400000, 4 * MIB, MIB, MIB)
    assert first[2] % PAGE == second[2] % PAGE == 0
    assert core.offset_of(4 * MIB + 5, 10) == second[2] + 5
    assert core.size == second[2] + MIB
    assert vmcoreinfo_in(head).release == "6.12"  # type: ignore[union-attr]


def test_memory_that_is_mapped_nowhere() -> None:
    head = CoreFile(62, (Range(0, PAGE),)).header()
    assert struct.unpack_from("<Q", head, 64 + 56 + 16)[0] == NO_ADDRESS
    assert vmcoreinfo_in(head) is None


def test_no_place() -> None:
    core = CoreFile(62, (Range(0, PAGE), Range(PAGE, PAGE)))
    with pytest.raises(ValueError, match="has no place"):
        core.offset_of(PAGE - 1, 2)  # in neither of them alone


ranges = st.lists(st.tuples(st.integers(0, 64), st.integers(1, 64)), max_size=6).map(
    lambda steps: tuple(
        Range(sum(a + b for a, b in steps[:number]) * PAGE + steps[number][0] * PAGE, steps[number][1] * PAGE)
        for number in range(len(steps))
    )
)
notes = st.lists(
    st.builds(Note, st.binary(min_size=1, max_size=12), st.integers(0, 2**32 - 1), st.binary(max_size=64)),
    max_size=4,
).map(tuple)


@given(ranges, notes)
def test_any_memory_and_notes(memory: tuple[Range, ...], some: tuple[Note, ...]) -> None:
    core = CoreFile(62, memory, some)
    head = core.header()
    at, size = struct.unpack_from("<Q", head, 64 + 8)[0], struct.unpack_from("<Q", head, 64 + 32)[0]
    assert tuple(notes_in(head[at : at + size])) == some
    places = [core.offset_of(each.base, each.size) for each in memory]
    ends = [place + each.size for place, each in zip(places, memory, strict=True)]
    assert places == sorted(places)
    assert all(place >= end for place, end in zip(places, [len(head), *ends], strict=False))
    assert core.size == (ends[-1] if ends else len(head))


@given(st.binary(max_size=512))
def test_any_file(data: bytes) -> None:
    head = CoreFile(62, (Range(0, PAGE),), (vmcoreinfo_note(TEXT),)).header()
    for raw in (data, head[:20] + data, head[: len(data)], head[:64] + data, head[:176] + data):
        found = vmcoreinfo_in(raw)
        assert found is None or found.release
    assert list(notes_in(data)) is not None
