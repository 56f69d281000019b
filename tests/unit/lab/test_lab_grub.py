# SPDX-License-Identifier: GPL-2.0-or-later
"""GRUB's sectors: what is filled in, and what stays the disk's."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.errors import MultirootError
from multiroot.lab.grub import SECTOR, SIGNATURE, boot_sector, placed_core

BOOT = bytes([0xEB, 0x63]) + b"b" * 508 + SIGNATURE
sectors = st.binary(min_size=SECTOR - 2, max_size=SECTOR - 2).map(lambda data: data + SIGNATURE)


def core(sectors: int, count: int) -> bytes:
    """A core image of so many sectors, whose first one says that it loads `count` more."""
    return b"c" * (SECTOR - 12) + struct.pack("<QHH", 2, count, 0x820) + b"k" * (sectors - 1) * SECTOR


@given(disk=sectors, core_sector=st.integers(1, (1 << 64) - 1))
def test_the_first_sector_is_grubs_and_the_disks(disk: bytes, core_sector: int) -> None:
    made = boot_sector(disk, BOOT, core_sector)
    assert len(made) == SECTOR
    assert made.endswith(SIGNATURE)
    assert made[:3] == BOOT[:3]
    assert made[0x03:0x5A] == disk[0x03:0x5A], "the parameters of a file system"
    assert made[0x1B8:0x1FE] == disk[0x1B8:0x1FE], "the disk's id and its table"
    assert struct.unpack_from("<QB", made, 0x5C) == (core_sector, 0xFF)
    assert made[0x66:0x68] == b"\x90\x90"
    assert made[0x68:0x1B8] == BOOT[0x68:0x1B8]


@pytest.mark.parametrize("wrong", [b"", BOOT[:-1], b"\0" * SECTOR])
def test_what_is_no_boot_sector_is_refused(wrong: bytes) -> None:
    with pytest.raises(MultirootError, match="the first sector is no boot sector"):
        boot_sector(wrong, BOOT, 1)
    with pytest.raises(MultirootError, match=r"boot\.img is no boot sector"):
        boot_sector(BOOT, wrong, 1)


def test_a_core_image_finds_the_rest_of_itself() -> None:
    made = placed_core(core(10, 9), 2048, 10 * SECTOR)
    assert struct.unpack_from("<QHH", made, SECTOR - 12) == (2049, 9, 0x820)
    assert made[SECTOR:] == core(10, 9)[SECTOR:]


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (core(1, 0), "nothing but its first sector"),
        (core(11, 10), "5632 bytes, there is room for 5120"),
        (core(10, 8), "loads 8 sectors of itself, it has more"),
    ],
)
def test_core_images_that_would_not_start(image: bytes, says: str) -> None:
    with pytest.raises(MultirootError, match=says):
        placed_core(image, 2048, 10 * SECTOR)
