# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether what is in a disk is what was said; pure. Looked at once, when its VM first starts: afterwards the
guest may write there what it likes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from multiroot import proc
from multiroot.errors import BadRequestError
from multiroot.units import format_size
from multiroot.vm import partition_table
from multiroot.vm.disk import QCOW2, Disk
from multiroot.vm.partition_table import SECTOR

HEAD = 4096  # bytes that are looked at
_QCOW2 = b"QFI\xfb"
# docs/interop/qcow2.rst of QEMU: magic, version, where the name of the backing file is; at 72, of version 3,
# features that a reader must know.
_QCOW2_START = struct.Struct(">4sIQIIQ")  # and bits of a cluster's size, bytes that the guest sees
_QCOW2_CLUSTERS = range(9, 22)
_QCOW2_FEATURES = struct.Struct(">Q")
_QCOW2_FEATURES_AT = 72
_DATA_ELSEWHERE = 1 << 2


@dataclass(frozen=True)
class Content:
    """A disk as it is now: its size in bytes, and its first HEAD bytes, or all if there are fewer."""

    size: int
    read_only: bool
    head: bytes


def check_content(disk: Disk, content: Content) -> None:
    """Raises BadRequestError if the disk holds something else than it was said to."""
    if content.read_only and not disk.read_only:
        raise BadRequestError(f"the disk {disk.source} can't be written to", "add ,ro to it, or ,bus=cd")
    if content.size < SECTOR:
        raise BadRequestError(f"the disk {disk.source} is too small: it has {content.size} bytes")
    is_qcow2 = content.head.startswith(_QCOW2)
    if disk.format == QCOW2:
        if not is_qcow2:
            raise BadRequestError(
                f"there is no qcow2 in the disk {disk.source}", "if it is raw, leave format=qcow2 away"
            )
        _check_qcow2(disk, content)
        return
    if is_qcow2:
        raise BadRequestError(
            f"the disk {disk.source} is said to be raw, and there is qcow2 in it", "add ,format=qcow2 to it"
        )
    _check_table(disk, content)


def _check_qcow2(disk: Disk, content: Content) -> None:
    """Of an image that is whole QEMU opens no other file, whatever a name in it says. In a disk it can't grow
    beyond that: a guest that fills it would get errors.
    """
    head = content.head
    try:
        _, version, backing, _, bits, size = _QCOW2_START.unpack_from(head)
        features = _QCOW2_FEATURES.unpack_from(head, _QCOW2_FEATURES_AT)[0] if version > 2 else 0
    except struct.error as error:
        raise BadRequestError(f"the qcow2 in the disk {disk.source} is cut off") from error
    if backing or features & _DATA_ELSEWHERE:
        raise BadRequestError(
            f"the qcow2 in the disk {disk.source} needs another file",
            "make it whole: " + proc.hinted("qemu-img convert -O qcow2 FILE whole.qcow2"),
        )
    if not disk.read_only and bits in _QCOW2_CLUSTERS and (room := _largest_qcow2(size, bits)) > content.size:
        raise BadRequestError(
            f"the disk {disk.source} is too small for the qcow2 in it: it has {content.size} bytes, and the "
            f"qcow2 grows to {room}",
            f"make what the disk is in larger: truncate --size={room} FILE",
        )


def _largest_qcow2(size: int, bits: int) -> int:
    """Bytes of an image without snapshots when all `size` bytes that the guest sees are in it: these, two
    levels of tables with 8 bytes for an entry, reference counts of 2 bytes with a table of their own, a head.
    """

    def clusters(count: int, each: int) -> int:
        return -(-count * each >> bits)

    data = clusters(size, 1)
    tables = clusters(data, 8)
    known = data + tables + clusters(tables, 8) + 1
    counts = clusters(known + clusters(known, 2) + 1, 2)
    return known + counts + clusters(counts, 8) << bits


def _check_table(disk: Disk, content: Content) -> None:
    """A partition table says how large the disk was that it was made for, or how large it has to be."""
    if (wanted := partition_table.disk_size(content.head)) > content.size:
        raise BadRequestError(
            f"the disk {disk.source} is too small for the image in it: it has {format_size(content.size)},"
            f" its partition table is made for {format_size(wanted)}",
            "was what is in it copied as a whole?",
        )
