# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read of an ELF file (elf(5)): its build-id and where its functions are. 64-bit little endian only.

Pure: bytes in. A file that is damaged or something else gives nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

MAGIC = b"\x7fELF"
_64_LITTLE = b"\x02\x01"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_NOTE = struct.Struct("<III")
_SYMTAB, _NOTES = 2, 7  # sh_type
_FUNCTION = 2  # the type of a symbol, low 4 bits of st_info
_GNU, _BUILD_ID = b"GNU\0", 3

Bytes = bytes | mmap


@dataclass(frozen=True)
class Section:
    """One section: where it is in the file, where in memory, and its number."""

    number: int
    name: str
    kind: int
    address: int
    offset: int
    size: int
    link: int


@dataclass(frozen=True)
class Function:
    """A function's symbol. `address` counts from the start of the section in a file to be linked (.ko)."""

    name: str
    address: int
    size: int
    section: int


def sections(data: Bytes) -> list[Section]:
    """All sections; empty for what is no such file."""
    if data[:4] != MAGIC or data[4:6] != _64_LITTLE or len(data) < _HEADER.size:
        return []
    header = _HEADER.unpack_from(data)
    start, entry, count, names = header[6], header[11], header[12], header[13]
    if entry != _SECTION.size or start + entry * count > len(data) or names >= max(count, 1):
        return []
    raw = [_SECTION.unpack_from(data, start + entry * number) for number in range(count)]
    if not raw or raw[names][4] + raw[names][5] > len(data):
        return []
    strings = data[raw[names][4] : raw[names][4] + raw[names][5]]
    return [
        Section(number, _text(strings, each[0]), each[1], each[3], each[4], each[5], each[6])
        for number, each in enumerate(raw)
    ]


def build_id(data: Bytes) -> str:
    """The GNU build-id in the notes of an ELF file, as hex digits; "" if it has none."""
    for section in sections(data):
        if section.kind == _NOTES:
            found = build_id_in_notes(data[section.offset : section.offset + section.size])
            if found:
                return found
    return ""


def build_id_in_notes(notes: bytes) -> str:
    """The same from the notes alone, as /sys/kernel/notes has them."""
    at = 0
    while at + _NOTE.size <= len(notes):
        name_size, size, kind = _NOTE.unpack_from(notes, at)
        name = at + _NOTE.size
        value = name + _padded(name_size)
        if kind == _BUILD_ID and notes[name : name + name_size] == _GNU:
            return bytes(notes[value : value + size]).hex()
        at = value + _padded(size)
    return ""


def functions(data: Bytes) -> Iterator[Function]:
    """All functions in the symbol table."""
    there = sections(data)
    for section in there:
        if section.kind != _SYMTAB or section.link >= len(there):
            continue
        names = there[section.link]
        strings = data[names.offset : names.offset + names.size]
        table = data[section.offset : section.offset + section.size // _SYMBOL.size * _SYMBOL.size]
        for name, info, _, index, address, size in _SYMBOL.iter_unpack(table):
            if info & 0xF == _FUNCTION:
                yield Function(_text(strings, name), address, size, index)


def _padded(size: int) -> int:
    return size + 3 & ~3


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.find(b"\0", at)].decode(errors="replace")
