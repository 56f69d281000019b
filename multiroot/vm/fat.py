# SPDX-License-Identifier: GPL-2.0-or-later
"""A small FAT12 file system with a few files in its root folder, made in memory; pure.

The same files give the same bytes, in whatever root. Layout: Microsoft's "FAT32 File System Specification",
which describes FAT12 too. Names are kept as long ones, for they may be in lower case.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from multiroot.errors import BadRequestError
from multiroot.units import format_size

SECTOR = 512  # bytes
SIZE = 512 * SECTOR
MOST = 32 << 20  # a disk has less: its sectors are counted in 16 bits
_FATS = 2
_ROOT_ENTRIES = 64
_ROOT_SECTORS = _ROOT_ENTRIES * 32 // SECTOR
_MOST_CLUSTERS = 4084  # with more, a reader takes it for FAT16
_LAST = 0xFFF  # of a file's clusters
_MEDIA = 0xF8  # a fixed disk
_LABEL, _LONG, _FILE = 0x08, 0x0F, 0x20  # attributes of an entry
_LONG_CHARACTERS = 13  # in one entry
_BOOT = struct.Struct("<3s8sHBHBHHBHHHII BBBI 11s8s")
_ENTRY = struct.Struct("<11sB10xHHHI")
_LONG_ENTRY = struct.Struct("<B10sBBB12sH4s")


@dataclass(frozen=True)
class Layout:
    """Where things are in a disk: sectors of all of it, of a cluster, of one table; the number of clusters,
    the first of which, behind all that, has the number 2.
    """

    sectors: int
    cluster: int
    fat: int
    clusters: int

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return self.cluster * SECTOR


def lay_out(size: int) -> Layout:
    """Of a disk of `size` bytes, with the smallest clusters that do."""
    assert 0 < size < MOST
    assert not size % SECTOR
    sectors, cluster = size // SECTOR, 1
    while True:
        # As if nothing were before the clusters: at most a sector too many.
        fat = -(-(sectors // cluster + 2) * 3 // 2 // SECTOR)
        clusters = (sectors - 1 - _FATS * fat - _ROOT_SECTORS) // cluster
        if clusters <= _MOST_CLUSTERS:
            return Layout(sectors, cluster, fat, clusters)
        cluster *= 2


def image(label: str, files: Mapping[str, bytes], size: int = SIZE) -> bytes:
    """The whole disk, of `size` bytes; names are of ASCII.

    Raises BadRequestError if the files do not fit.
    """
    layout = lay_out(size)
    table = [0xF00 | _MEDIA, _LAST]
    root = _ENTRY.pack(label.encode().ljust(11), _LABEL, 0, 0, 0, 0)
    data = b""
    for number, (name, content) in enumerate(files.items(), 1):
        clusters = -(-len(content) // layout.cluster_size)
        first = len(table) if clusters else 0
        if clusters:
            table += [*range(first + 1, first + clusters), _LAST]
        root += _named(name, number, first, len(content))
        data += content.ljust(clusters * layout.cluster_size, b"\0")
    if len(table) - 2 > layout.clusters:
        room = format_size(layout.clusters * layout.cluster_size)
        raise BadRequestError(f"the files do not fit into a disk that has {room} for them")
    fat = _packed(table).ljust(layout.fat * SECTOR, b"\0")
    root = root.ljust(_ROOT_SECTORS * SECTOR, b"\0")
    return (_boot_sector(label, layout) + fat * _FATS + root + data).ljust(size, b"\0")


def _boot_sector(label: str, layout: Layout) -> bytes:
    fields = _BOOT.pack(
        b"\xeb\x3c\x90", b"MULTIROO", SECTOR, layout.cluster, 1, _FATS, _ROOT_ENTRIES, layout.sectors,
        _MEDIA, layout.fat,
        32, 64, 0, 0, 0x80, 0, 0x29, 0x4D52, label.encode().ljust(11), b"FAT12   ",
    )  # fmt: skip
    return fields.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _packed(table: list[int]) -> bytes:
    """Entries of 12 bits, two in three bytes."""
    pairs = zip(table[::2], [*table[1::2], 0], strict=False)
    return b"".join((low | high << 12).to_bytes(3, "little") for low, high in pairs)


def _named(name: str, number: int, cluster: int, size: int) -> bytes:
    """The entries of a file: its name, and all else under a short name that nobody sees."""
    assert name.isascii()
    short = f"FILE~{number}".encode().ljust(11)
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7) + (checksum >> 1) + byte & 0xFF
    count = -(-len(name) // _LONG_CHARACTERS)
    whole = len(name) == count * _LONG_CHARACTERS
    text = (name.encode("utf-16-le") + (b"" if whole else b"\0\0")).ljust(
        2 * count * _LONG_CHARACTERS, b"\xff"
    )
    long = b""
    # From the last part of the name to the first; 0x40 says that it is the last.
    for part in range(count, 0, -1):
        piece = text[2 * (part - 1) * _LONG_CHARACTERS :]
        order = part | (0x40 if part == count else 0)
        long += _LONG_ENTRY.pack(order, piece[:10], _LONG, 0, checksum, piece[10:22], 0, piece[22:26])
    return long + _ENTRY.pack(short, _FILE, 0, 0, cluster, size)
