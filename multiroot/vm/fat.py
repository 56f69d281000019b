# SPDX-License-Identifier: GPL-2.0-or-later
"""A small FAT12 file system with a few files in its root folder, made in memory; pure.

The same files give the same bytes, in whatever root. Layout: Microsoft's "FAT32 File System Specification",
which describes FAT12 too. Names are kept as long ones, for they may be in lower case.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from multiroot.errors import BadRequestError
from multiroot.units import format_size

SECTOR = 512  # bytes, and one cluster
SECTORS = 512
SIZE = SECTORS * SECTOR
_FAT_SECTORS = 2
_FATS = 2
_ROOT_ENTRIES = 64
_ROOT_SECTORS = _ROOT_ENTRIES * 32 // SECTOR
_DATA = 1 + _FATS * _FAT_SECTORS + _ROOT_SECTORS  # its first sector; it is cluster 2
_CLUSTERS = SECTORS - _DATA
_LAST = 0xFFF  # of a file's clusters
_MEDIA = 0xF8  # a fixed disk
_LABEL, _LONG, _FILE = 0x08, 0x0F, 0x20  # attributes of an entry
_LONG_CHARACTERS = 13  # in one entry
_BOOT = struct.Struct("<3s8sHBHBHHBHHHII BBBI 11s8s")
_ENTRY = struct.Struct("<11sB10xHHHI")


def image(label: str, files: Mapping[str, bytes]) -> bytes:
    """The whole disk, of SIZE bytes; names have up to 13 characters of ASCII.

    Raises BadRequestError if the files do not fit.
    """
    table = [0xF00 | _MEDIA, _LAST]
    root = _ENTRY.pack(label.encode().ljust(11), _LABEL, 0, 0, 0, 0)
    data = b""
    for number, (name, content) in enumerate(files.items(), 1):
        clusters = -(-len(content) // SECTOR)
        first = len(table) if clusters else 0
        if clusters:
            table += [*range(first + 1, first + clusters), _LAST]
        root += _named(name, number, first, len(content))
        data += content.ljust(clusters * SECTOR, b"\0")
    if len(table) - 2 > _CLUSTERS:
        room = format_size(_CLUSTERS * SECTOR)
        raise BadRequestError(f"the files do not fit into a disk that has {room} for them")
    fat = _packed(table).ljust(_FAT_SECTORS * SECTOR, b"\0")
    return (_boot_sector(label) + fat * _FATS + root.ljust(_ROOT_SECTORS * SECTOR, b"\0") + data).ljust(
        SIZE, b"\0"
    )


def _boot_sector(label: str) -> bytes:
    fields = _BOOT.pack(
        b"\xeb\x3c\x90", b"MULTIROO", SECTOR, 1, 1, _FATS, _ROOT_ENTRIES, SECTORS, _MEDIA, _FAT_SECTORS,
        32, 64, 0, 0, 0x80, 0, 0x29, 0x4D52, label.encode().ljust(11), b"FAT12   ",
    )  # fmt: skip
    return fields.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _packed(table: list[int]) -> bytes:
    """Entries of 12 bits, two in three bytes."""
    pairs = zip(table[::2], [*table[1::2], 0], strict=False)
    return b"".join((low | high << 12).to_bytes(3, "little") for low, high in pairs)


def _named(name: str, number: int, cluster: int, size: int) -> bytes:
    """The two entries of a file: its name, and all else under a short name that nobody sees."""
    assert len(name) <= _LONG_CHARACTERS
    assert name.isascii()
    short = f"FILE~{number}".encode().ljust(11)
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7) + (checksum >> 1) + byte & 0xFF
    text = name.encode("utf-16-le") + b"\0\0" * (len(name) < _LONG_CHARACTERS)
    text = text.ljust(2 * _LONG_CHARACTERS, b"\xff")
    # 0x40: the last, and here only, part of the name.
    long = struct.pack("<B10sBBB12sH4s", 0x41, text[:10], _LONG, 0, checksum, text[10:22], 0, text[22:])
    return long + _ENTRY.pack(short, _FILE, 0, 0, cluster, size)
