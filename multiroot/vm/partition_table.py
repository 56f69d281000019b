# SPDX-License-Identifier: GPL-2.0-or-later
"""How large a disk its partition table wants; pure. MBR and GPT, in sectors of 512 bytes.

The partitions behind the four of an MBR are all inside one of them, and the last sector that a GPT names is
behind all of its own, so the first sectors of a disk tell.
"""

from __future__ import annotations

import struct

SECTOR = 512
_SIGNATURE_AT, _SIGNATURE = 510, b"\x55\xaa"
# Linux: block/partitions/msdos.c, msdos_partition.h. Flag, type, first sector, number of sectors.
_ENTRIES_AT, _ENTRY, _ENTRIES = 446, struct.Struct("<B3xB3xII"), 4
_FLAGS = (0x00, 0x80)
_EMPTY, _GPT_INSIDE = 0x00, 0xEE
# UEFI specification 2.10, 5.3.2: the signature; at 32 the number of the sector with the second copy of the
# table, the disk's last.
_GPT = b"EFI PART"
_GPT_OTHER = struct.Struct("<Q")
_GPT_OTHER_AT = SECTOR + 32


def disk_size(head: bytes) -> int:
    """Bytes of the smallest disk that has room for all that the table in its first bytes names; 0 for a disk
    without a table.
    """
    return max(_gpt(head), _mbr(head))


def _gpt(head: bytes) -> int:
    if head[SECTOR : SECTOR + len(_GPT)] != _GPT or len(head) < _GPT_OTHER_AT + _GPT_OTHER.size:
        return 0
    (last,) = _GPT_OTHER.unpack_from(head, _GPT_OTHER_AT)
    return int(last + 1) * SECTOR


def _mbr(head: bytes) -> int:
    """A file system's boot sector ends like an MBR, too, and has code where that has entries. As to Linux, it
    is no table when a flag is no flag.
    """
    if head[_SIGNATURE_AT:SECTOR] != _SIGNATURE:
        return 0
    entries = [_ENTRY.unpack_from(head, _ENTRIES_AT + number * _ENTRY.size) for number in range(_ENTRIES)]
    if any(flag not in _FLAGS for flag, *_ in entries):
        return 0
    ends = [
        first + count
        for _, kind, first, count in entries
        # That one keeps others away from a GPT, and may be as large as it can.
        if count and kind not in (_EMPTY, _GPT_INSIDE)
    ]
    return max(ends, default=0) * SECTOR
