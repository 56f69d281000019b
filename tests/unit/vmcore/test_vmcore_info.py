# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel is found in memory by what it tells debuggers, and anything else is not taken for one."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiroot.ranges import Range
from multiroot.units import PAGE
from multiroot.vmcore import kernel
from multiroot.vmcore.free_pages import FreePages
from multiroot.vmcore.info import FIRST_WORD, MOST, parse
from multiroot.vmcore.space import UnmappedError, text, word
from multiroot.vmcore.target import mark_word, tables
from vmcore.small_kernel import BASE, CODE, LINEAR, OFFSET, RELEASE, SIZE, SmallKernel


def test_all_kinds_of_lines() -> None:
    found = parse(SmallKernel().text + b"\0" * 100)
    assert found is not None
    assert found.release == RELEASE
    assert found.build_id == "00112233445566778899aabbccddeeff00112233"
    assert found.kernel_offset == OFFSET
    assert found.symbols["_stext"] == CODE
    assert found.numbers["PAGE_BUDDY_MAPCOUNT_VALUE"] == -129
    assert found.sizes["page"] == 64
    assert found.offsets["page.private"] == 40
    assert found.text == SmallKernel().text


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"OSRELEASE=",
        b"OSRELEASE=%s\n",
        b"OSRELEASE=6.1\x1b[2J\n",
        b"OSRELEASE=" + b"6" * 100,
        b"PAGESIZE=4096\n",
    ],
)
def test_what_is_none(raw: bytes) -> None:
    assert parse(raw) is None


def test_lines_that_make_no_sense_are_passed_over() -> None:
    found = parse(
        b"OSRELEASE=6.1\nSYMBOL(a)=xyz\nSYMBOL(b)=fffffffffffffffff\nSIZE(c)=1e3\nNUMBER(d)=-5\n\xff\xfe\n"
        b"SYMBOL(e)=10\nSYMBOL(e)=20\nBUILD-ID=nonsense\n"
    )
    assert found is not None
    assert (found.symbols, found.sizes, found.numbers) == ({"e": 0x10}, {}, {"d": -5})
    assert found.build_id == ""


@given(st.binary(max_size=2 * PAGE))
def test_any_bytes(raw: bytes) -> None:
    for start in (b"", b"OSRELEASE=6.1\n"):
        found = parse(start + raw)
        assert found is None or (found.release.isprintable() and len(found.text) <= MOST)


def test_the_kernel_is_found_and_those_before_it_are_not() -> None:
    memory = SmallKernel()
    # Left by one that lay elsewhere, and by a kernel that died before it had a name.
    stale = memory.text.replace(f"{CODE + 0x2000:x}".encode(), f"{CODE + 0x9000:x}".encode())
    memory.put_phys(BASE, stale)
    memory.put_phys(BASE + 0x200000, b"OSRELEASE=5.10\n")
    found = kernel.find(memory, memory.ranges)
    assert found is not None
    assert (found.address, found.info.release) == (BASE + 0x3000, RELEASE)


def test_without_one() -> None:
    memory = SmallKernel()
    memory.put_phys(memory.at, bytes(16))
    assert kernel.find(memory, memory.ranges) is None


def test_a_root_that_writes_the_word_everywhere_is_looked_at_for_so_long_only() -> None:
    memory = SmallKernel(memory=bytearray(struct.pack("<Q", FIRST_WORD) * (SIZE // 8)))
    assert kernel.find(memory, memory.ranges) is None
    marks = SmallKernel(memory=bytearray(struct.pack("<Q", mark_word()) * (SIZE // 8)))
    assert kernel.parked(marks, marks.ranges, 2) == {}


def test_page_tables() -> None:
    memory = SmallKernel()
    found = kernel.find(memory, memory.ranges)
    assert found
    space = tables(memory.read, found.info)
    assert space.linear == LINEAR
    assert space.physical(LINEAR + BASE + 0x123456) == BASE + 0x123456
    memory.put(CODE + 0x2FFC, b"abcdefgh")
    assert space.read(CODE + 0x2FFC, 8) == b"abcdefgh"  # over the end of a page
    assert text(space, CODE + 0x2FFC, 4) == "abcd"
    with pytest.raises(UnmappedError, match="nothing is mapped at 0x1000"):
        word(space, 0x1000)


@settings(max_examples=60)
@given(st.data())
def test_any_page_tables_end(data: st.DataObject) -> None:
    """Entries that lead anywhere, into a circle too."""
    memory = SmallKernel()
    found = kernel.find(memory, memory.ranges)
    assert found
    for _ in range(data.draw(st.integers(1, 6))):
        table = data.draw(
            st.sampled_from(
                [CODE + 0x1000 - CODE + BASE + 0x100000, *range(BASE + 0x10000, BASE + 0x22000, PAGE)]
            )
        )
        entry = data.draw(
            st.integers(0, (1 << 64) - 1) | st.sampled_from([(BASE + 0x10000) | 1, (BASE + 0x101000) | 1])
        )
        memory.put_phys(table + 8 * data.draw(st.integers(0, 511)), struct.pack("<Q", entry))
    space = tables(memory.read, found.info)
    for ask in (
        lambda: space.linear,
        lambda: len(space.read(CODE, 3 * PAGE)),
        lambda: space.physical(LINEAR + BASE),
    ):
        with suppress(UnmappedError):
            ask()


def test_free_pages_are_left_out() -> None:
    memory = SmallKernel()
    memory.set_free(512, 9)
    memory.set_free(3, 0)
    found = kernel.find(memory, memory.ranges)
    assert found
    pages = FreePages(tables(memory.read, found.info), found.info)
    used = list(pages.used(Range(BASE, SIZE)))
    assert used == [
        Range(BASE, 3 * PAGE),
        Range.between(BASE + 4 * PAGE, BASE + 512 * PAGE),
    ]
    # A block that reaches over the end.
    assert list(pages.used(Range(BASE + 511 * PAGE, 2 * PAGE))) == [Range(BASE + 511 * PAGE, PAGE)]


def test_a_kernel_that_does_not_tell_of_its_pages() -> None:
    memory = SmallKernel()
    found = kernel.find(memory, memory.ranges)
    assert found
    del found.info.sizes["page"]
    with pytest.raises(UnmappedError, match="does not say page"):
        FreePages(tables(memory.read, found.info), found.info)


@given(
    size=st.integers(),
    bits=st.integers(),
    section=st.integers(),
    mark=st.integers(),
    raw=st.binary(max_size=64),
)
def test_any_account_of_pages(size: int, bits: int, section: int, mark: int, raw: bytes) -> None:
    """Whatever a kernel says, the parts that are used are in order and inside."""
    memory = SmallKernel()
    memory.set_free(512, 9)
    memory.put(CODE + 0x5000, raw)
    found = kernel.find(memory, memory.ranges)
    assert found
    found.info.sizes.update({"page": size, "mem_section": section})
    found.info.numbers.update({"SECTION_SIZE_BITS": bits, "PAGE_BUDDY_MAPCOUNT_VALUE": mark})
    try:
        used = list(FreePages(tables(memory.read, found.info), found.info).used(Range(BASE, SIZE)))
    except UnmappedError:
        return
    at = BASE
    for each in used:
        assert each.base >= at
        at = each.end
    assert at <= BASE + SIZE


def test_marks_of_parked_cpus() -> None:
    memory = SmallKernel()
    mark = struct.Struct("<QQIIQ")
    stack = CODE + 0x100000
    memory.put(CODE + 0x8000, mark.pack(mark_word(), stack, 2, 1, 0))
    memory.put(CODE + 0x8020, mark.pack(mark_word(), stack + 64, 3, 0, 0))  # of a root before
    memory.put(CODE + 0x8040, mark.pack(mark_word(), 0x1000, 2, 0, 0))  # no stack of a kernel
    assert kernel.parked(memory, memory.ranges, 2) == {1: stack}
