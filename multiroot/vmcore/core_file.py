# SPDX-License-Identifier: GPL-2.0-or-later
"""A vmcore: memory as an ELF core file, which crash, drgn and makedumpfile read (elf(5), fs/proc/vmcore.c).

Pages that are not written are holes of the file and read as zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from multiroot.ranges import Range, align_up
from multiroot.units import PAGE
from multiroot.vmcore.info import NAME, VmcoreInfo, parse

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_CORE, _VERSION = 4, 1  # e_type, e_version
_LOAD, _NOTES = 1, 4  # p_type
_ALL_RIGHTS = 7
NO_ADDRESS = (1 << 64) - 1  # of memory that is mapped nowhere


@dataclass(frozen=True)
class Note:
    """An ELF note."""

    name: bytes  # with its NUL
    kind: int
    data: bytes

    def packed(self) -> bytes:
        """As it is in a file."""
        head = _NOTE.pack(len(self.name), len(self.data), self.kind)
        return head + _padded(self.name) + _padded(self.data)


@dataclass(frozen=True)
class CoreFile:
    """Where everything is in a core file of `ranges` of physical memory.

    `machine` is ELF's number of the architecture. `linear` is where the kernel has all memory mapped in a
    row, NO_ADDRESS if that is not known.
    """

    machine: int
    ranges: tuple[Range, ...]
    notes: tuple[Note, ...] = ()
    linear: int = NO_ADDRESS
    _offsets: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        at = align_up(len(self._head()) + len(self._notes()), PAGE)
        offsets = []
        for each in self.ranges:
            offsets.append(at)
            at += each.size
        object.__setattr__(self, "_offsets", tuple(offsets))

    @property
    def size(self) -> int:
        """Bytes of the whole file, with its holes."""
        last = len(self.ranges) - 1
        return self._offsets[last] + self.ranges[last].size if self.ranges else len(self.header())

    def header(self) -> bytes:
        """The start of the file: all but the memory."""
        return self._head(self._offsets) + self._notes()

    def offset_of(self, phys: int, size: int) -> int:
        """Where memory has its place in the file. Raises ValueError for what is not all in one range."""
        for each, offset in zip(self.ranges, self._offsets, strict=True):
            if each.base <= phys and phys + size <= each.end:
                return offset + phys - each.base
        raise ValueError(f"{phys:#x}-{phys + size:#x} has no place in the file")

    def _notes(self) -> bytes:
        return b"".join(note.packed() for note in self.notes)

    def _head(self, offsets: Sequence[int] = ()) -> bytes:
        count = 1 + len(self.ranges)
        notes_at = _HEADER.size + count * _PROGRAM.size
        header = _HEADER.pack(
            _IDENT, _CORE, self.machine, _VERSION, 0, _HEADER.size, 0, 0, _HEADER.size, _PROGRAM.size, count,
            0, 0, 0,
        )  # fmt: skip
        size = len(self._notes())
        programs = [_PROGRAM.pack(_NOTES, 0, notes_at, 0, 0, size, size, 4)]
        for number, each in enumerate(self.ranges):
            at = offsets[number] if offsets else 0
            virtual = NO_ADDRESS if self.linear == NO_ADDRESS else (self.linear + each.base) & NO_ADDRESS
            programs.append(
                _PROGRAM.pack(_LOAD, _ALL_RIGHTS, at, virtual, each.base, each.size, each.size, 0)
            )
        return header + b"".join(programs)


def vmcoreinfo_note(text: bytes) -> Note:
    """The note by which debuggers know a kernel's core file."""
    return Note(NAME, 0, text)


def all_notes(start: bytes) -> list[Note]:
    """The notes of a core file; `start` are the first bytes of the file. Empty for what is none."""
    if len(start) < _HEADER.size or start[: len(_IDENT)] != _IDENT:
        return []
    header = _HEADER.unpack_from(start)
    at, size, count = header[5], header[9], header[10]
    if header[1] != _CORE or size != _PROGRAM.size or at + size * count > len(start):
        return []
    programs = [_PROGRAM.unpack_from(start, at + size * number) for number in range(count)]
    return [
        note
        for each in programs
        if each[0] == _NOTES
        for note in notes_in(start[each[2] : each[2] + each[5]])
    ]


def vmcoreinfo_in(start: bytes) -> VmcoreInfo | None:
    """What the VMCOREINFO note among them says; None if there is none."""
    return next((parse(note.data) for note in all_notes(start) if note.name == NAME), None)


def notes_in(data: bytes) -> Iterator[Note]:
    """The notes of a segment of notes, up to the first that is not whole."""
    at = 0
    while at + _NOTE.size <= len(data):
        name_size, size, kind = _NOTE.unpack_from(data, at)
        name = at + _NOTE.size
        value = name + align_up(name_size, 4)
        if value + size > len(data):
            return
        yield Note(data[name : name + name_size], kind, data[value : value + size])
        at = value + align_up(size, 4)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
