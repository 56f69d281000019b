# SPDX-License-Identifier: GPL-2.0-or-later
"""How large a disk a partition table wants."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from multiroot.vm.partition_table import SECTOR, disk_size

SECTORS = st.integers(0, 2**32 - 1)
KINDS = st.integers(0, 255)
ENTRIES = st.lists(st.tuples(st.sampled_from((0, 0x80)), KINDS, SECTORS, SECTORS), max_size=4)


def mbr(entries: list[tuple[int, int, int, int]]) -> bytes:
    packed = b"".join(struct.pack("<B3xB3xII", *entry) for entry in entries)
    return bytes(446) + packed.ljust(64, b"\0") + b"\x55\xaa"


def gpt(last: int) -> bytes:
    return b"EFI PART".ljust(32, b"\0") + struct.pack("<Q", last)


@given(ENTRIES)
def test_every_partition_of_an_mbr_has_room(entries: list[tuple[int, int, int, int]]) -> None:
    wanted = disk_size(mbr(entries))
    there = [(first + count) * SECTOR for _, kind, first, count in entries if count and kind not in (0, 0xEE)]
    assert wanted == max(there, default=0)


@given(ENTRIES, st.integers(1, 2**64 - 1))
def test_the_table_of_a_gpt_counts_beside_that_of_an_mbr(
    entries: list[tuple[int, int, int, int]], last: int
) -> None:
    head = mbr(entries)
    assert disk_size(head + gpt(last)) == max(disk_size(head), (last + 1) * SECTOR)


@given(ENTRIES.filter(bool), st.integers(0, 255).filter(lambda flag: flag not in (0, 0x80)))
def test_code_is_no_table(entries: list[tuple[int, int, int, int]], flag: int) -> None:
    assert disk_size(mbr([(flag, *entries[0][1:]), *entries[1:]])) == 0


@given(st.binary(max_size=1200), st.booleans())
def test_nothing_else_is_a_bug(head: bytes, signed: bool) -> None:
    if signed:
        head = head[:510].ljust(510, b"\0") + b"\x55\xaa" + head[512:]
    size = disk_size(head)
    assert size >= 0
    assert size % SECTOR == 0
    if head[510:512] != b"\x55\xaa" and head[512:520] != b"EFI PART":
        assert size == 0
