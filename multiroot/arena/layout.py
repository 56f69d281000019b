# SPDX-License-Identifier: GPL-2.0-or-later
"""The layout of the arena's first 2 MiB; docs/arena-layout.md describes it in words.

Pure: bytes in, dataclasses out. Numbers are little-endian, offsets and sizes bytes from the arena's start.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from multiroot.arena.atomics import crc32c
from multiroot.errors import BadRequestError, ConflictError
from multiroot.units import HUGE_PAGE, format_size

MAGIC = b"MRARENA\0"
VERSION = 1

METADATA_SIZE = HUGE_PAGE
ALIGN = HUGE_PAGE  # devdax maps in units of its alignment, and huge pages keep nested page tables small

SUPERBLOCK_OFFSETS = (0x0000, 0x1000)
SUPERBLOCK_SIZE = 0x1000
LOCK_OFFSET = 0x2000  # lock word
GENERATION_OFFSET = 0x2040  # counts changes of the table
WATERMARK_OFFSET = 0x2080  # end of what was ever handed out; behind it the memory is still zero
EPOCH_OFFSET = 0x20C0  # highest epoch of any extent that was freed
TABLE_OFFSET = 0x10000

ENTRY_SIZE = 512
ENTRY_COUNT = 1024
OWNER_OFFSET = 0  # in an entry: each of these three has cache lines of its own
STATE_OFFSET = 64
RECORD_OFFSET = 128

FREE, USED = 0, 1

NAME_SIZE = 64
RESERVED = "."  # begins the names of extents that hold something else than a VM's RAM
VM = "vm"
CANARY = "multiroot-canary"  # the VM that an update tries first; no user's VM is called so
_SUPERBLOCK = struct.Struct("<8sII16sQQQQII")
_RECORD = struct.Struct(f"<I4x{NAME_SIZE}sQQI")
_CHECKSUM = struct.Struct("<I")

_START_OVER = (
    "nothing may be allocated or run from it; `multiroot arena format --help` tells how to start over"
)

_EPOCH_BITS = 48
MAX_EPOCH = (1 << _EPOCH_BITS) - 1
MAX_ROOT = 0xFFFF


@dataclass(frozen=True)
class Superblock:
    """Identity and geometry of the arena. `size` is that of the whole device, metadata included."""

    size: int
    uuid: uuid.UUID
    metadata_size: int = METADATA_SIZE
    align: int = ALIGN
    table_offset: int = TABLE_OFFSET
    entry_size: int = ENTRY_SIZE
    entry_count: int = ENTRY_COUNT

    def pack(self) -> bytes:
        """One copy, SUPERBLOCK_SIZE bytes, its checksum last."""
        body = _SUPERBLOCK.pack(
            MAGIC, VERSION, SUPERBLOCK_SIZE, self.uuid.bytes, self.size, self.metadata_size,
            self.align, self.table_offset, self.entry_size, self.entry_count,
        )  # fmt: skip
        body = body.ljust(SUPERBLOCK_SIZE - _CHECKSUM.size, b"\0")
        return body + _CHECKSUM.pack(crc32c(body))


def unpack_superblock(data: bytes) -> Superblock:
    """Read one copy; raises BadRequestError that says what is wrong with it."""
    if len(data) != SUPERBLOCK_SIZE or data[: len(MAGIC)] != MAGIC:
        raise BadRequestError("no superblock")
    if crc32c(data[: -_CHECKSUM.size]) != _CHECKSUM.unpack(data[-_CHECKSUM.size :])[0]:
        raise BadRequestError("superblock checksum is wrong")
    _, version, _, ident, size, metadata, align, table, entry_size, entries = _SUPERBLOCK.unpack_from(data)
    if version != VERSION:
        raise BadRequestError(f"superblock version is {version}, this multiroot knows {VERSION}")
    block = Superblock(size, uuid.UUID(bytes=ident), metadata, align, table, entry_size, entries)
    if (metadata, align, table, entry_size, entries) != (
        METADATA_SIZE, ALIGN, TABLE_OFFSET, ENTRY_SIZE, ENTRY_COUNT,
    ):  # fmt: skip
        raise BadRequestError("superblock describes a layout that its version does not have")
    return block


@dataclass(frozen=True)
class Owner:
    """Who may run the VM in an extent: a root's number (0: nobody) and the epoch of that ownership."""

    root: int
    epoch: int

    def pack(self) -> int:
        """The 64-bit word: root in the upper 16 bits, epoch in the lower 48.

        Raises ConflictError for what does not fit, such as the epoch behind the last one.
        """
        if not 0 <= self.root <= MAX_ROOT or not 0 <= self.epoch <= MAX_EPOCH:
            raise ConflictError(f"no owner word can hold {self}", _START_OVER)
        return self.root << _EPOCH_BITS | self.epoch


def unpack_owner(word: int) -> Owner:
    """The inverse of `Owner.pack`."""
    return Owner(word >> _EPOCH_BITS, word & MAX_EPOCH)


@dataclass(frozen=True)
class Record:
    """The part of a table entry that never changes while the extent is in use.

    `definition` is the CRC-32C of the VM's definition: a root with another definition must not run it.
    """

    name: str
    offset: int
    size: int
    definition: int

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def kind(self) -> str:
        """What the extent holds: "vm" for a VM's RAM, else what its reserved name says."""
        return self.name.removeprefix(RESERVED) if self.name.startswith(RESERVED) else VM

    def pack(self, index: int) -> bytes:
        """With its checksum; `index` is the entry's place, so that a misplaced record is noticed."""
        body = _RECORD.pack(index, encode_name(self.name), self.offset, self.size, self.definition)
        return body + _CHECKSUM.pack(crc32c(body))


RECORD_SIZE = _RECORD.size + _CHECKSUM.size


def unpack_record(data: bytes, index: int) -> Record:
    """Read entry `index`'s record; raises ConflictError if it is damaged."""
    body, (checksum,) = data[: _RECORD.size], _CHECKSUM.unpack_from(data, _RECORD.size)
    stored, name, offset, size, definition = _RECORD.unpack(body)
    try:
        record = Record(name.rstrip(b"\0").decode(), offset, size, definition)
    except UnicodeDecodeError as error:
        raise damaged(index) from error
    if crc32c(body) != checksum or stored != index or not _is_sound(record):
        raise damaged(index)
    return record


def damaged(index: int) -> ConflictError:
    """The error that says so of entry `index`."""
    return ConflictError(f"entry {index} of the arena's extent table is damaged", _START_OVER)


def _is_sound(record: Record) -> bool:
    """Whether we could have written it. Another root can write anything, with the right checksum."""
    named = bool(record.name) and record.name.isprintable() and "/" not in record.name
    placed = record.offset >= METADATA_SIZE and record.size > 0
    return named and placed and record.offset % ALIGN == record.size % ALIGN == 0


def encode_name(name: str) -> bytes:
    """A VM's name as stored; raises BadRequestError if it is empty or does not fit."""
    data = name.encode()
    if not data or len(data) > NAME_SIZE or b"\0" in data:
        raise BadRequestError(f"not a name for an extent: {name!r}", f"1 to {NAME_SIZE} bytes, no NUL")
    return data


def check_size(size: int) -> None:
    """Raises BadRequestError unless `size` is a positive multiple of the arena's unit."""
    if size > 0 and size % ALIGN == 0:
        return
    nearest = max(ALIGN, (size + ALIGN // 2) // ALIGN * ALIGN)
    raise BadRequestError(
        f"{format_size(size)} is not a multiple of {format_size(ALIGN)}",
        f"nearest that works: {format_size(nearest)}",
    )


def entry_offset(index: int) -> int:
    """Where table entry `index` begins."""
    return TABLE_OFFSET + index * ENTRY_SIZE


def is_blank(metadata: bytes) -> bool:
    """Whether nothing was ever written to the arena's metadata."""
    return not any(metadata)
