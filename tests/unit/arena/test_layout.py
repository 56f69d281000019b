# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.arena import layout
from multiroot.arena.atomics import crc32c
from multiroot.arena.layout import Owner, Record, Superblock
from multiroot.errors import BadRequestError, ConflictError

BLOCK = Superblock(1 << 30, uuid.UUID(int=7))
NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"), min_size=1, max_size=64
)


def test_superblock_comes_back() -> None:
    assert layout.unpack_superblock(BLOCK.pack()) == BLOCK


@given(st.integers(0, layout.SUPERBLOCK_SIZE - 1), st.integers(1, 255))
def test_any_changed_byte_breaks_the_superblock(position: int, flip: int) -> None:
    data = bytearray(BLOCK.pack())
    data[position] ^= flip
    with pytest.raises(BadRequestError):
        layout.unpack_superblock(bytes(data))


@given(st.integers(0, layout.SUPERBLOCK_SIZE - 1))
def test_truncated_superblock(size: int) -> None:
    with pytest.raises(BadRequestError, match="no superblock"):
        layout.unpack_superblock(BLOCK.pack()[:size])


@given(
    NAMES, st.integers(1, 1 << 40), st.integers(1, 1 << 40), st.integers(0, 0xFFFFFFFF), st.integers(0, 1023)
)
def test_record_comes_back(name: str, offset: int, size: int, definition: int, index: int) -> None:
    record = Record(name, offset * layout.ALIGN, size * layout.ALIGN, definition)
    assert layout.unpack_record(record.pack(index), index) == record


@given(st.integers(0, layout.RECORD_SIZE - 1), st.integers(1, 255))
def test_any_changed_byte_breaks_a_record(position: int, flip: int) -> None:
    data = bytearray(Record("vm0", 2 << 20, 4 << 20, 99).pack(3))
    data[position] ^= flip
    with pytest.raises(ConflictError, match=r"entry 3 .* damaged"):
        layout.unpack_record(bytes(data), 3)


@pytest.mark.parametrize(
    ("name", "offset", "size"),
    [
        (b"\x80", 1, 1),
        (b"../../etc", 1, 1),
        (b"a\nb", 1, 1),
        (b"", 1, 1),
        (b"vm0", 0, 1),
        (b"vm0", 1, 0),
        (b"vm0", 1.5, 1),
        (b"vm0", 1, 0.5),
    ],
)
def test_a_record_with_a_good_checksum_that_says_what_cannot_be(
    name: bytes, offset: float, size: float
) -> None:
    numbers = int(offset * layout.ALIGN), int(size * layout.ALIGN)
    body = layout._RECORD.pack(3, name, *numbers, 99)
    with pytest.raises(ConflictError, match=r"entry 3 .* damaged"):
        layout.unpack_record(body + layout._CHECKSUM.pack(crc32c(body)), 3)


def test_misplaced_record_is_noticed() -> None:
    with pytest.raises(ConflictError, match="entry 4"):
        layout.unpack_record(Record("vm0", 2 << 20, 4 << 20, 99).pack(3), 4)


@given(st.integers(0, layout.MAX_ROOT), st.integers(0, layout.MAX_EPOCH))
def test_owner_comes_back(root: int, epoch: int) -> None:
    assert layout.unpack_owner(Owner(root, epoch).pack()) == Owner(root, epoch)


@pytest.mark.parametrize("owner", [Owner(-1, 0), Owner(0x10000, 0), Owner(1, 1 << 48), Owner(1, -1)])
def test_owner_out_of_range(owner: Owner) -> None:
    with pytest.raises(ConflictError, match="no owner word can hold"):
        owner.pack()


@pytest.mark.parametrize("name", ["", "x" * 65, "a\0b", "é" * 33])
def test_names_that_do_not_fit(name: str) -> None:
    with pytest.raises(BadRequestError):
        layout.encode_name(name)


def test_nothing_of_the_metadata_overlaps() -> None:
    lines = [layout.LOCK_OFFSET, layout.GENERATION_OFFSET, layout.WATERMARK_OFFSET, layout.EPOCH_OFFSET]
    assert all(offset % 64 == 0 for offset in lines)
    assert len(set(lines)) == len(lines)
    assert max(layout.SUPERBLOCK_OFFSETS) + layout.SUPERBLOCK_SIZE <= min(lines)
    assert max(lines) + 64 <= layout.TABLE_OFFSET
    assert layout.entry_offset(layout.ENTRY_COUNT) <= layout.METADATA_SIZE
    assert layout.RECORD_OFFSET + layout.RECORD_SIZE <= layout.ENTRY_SIZE
    assert {layout.OWNER_OFFSET // 64, layout.STATE_OFFSET // 64, layout.RECORD_OFFSET // 64} == {0, 1, 2}
