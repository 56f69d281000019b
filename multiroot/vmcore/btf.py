# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the members of a kernel's structures are, by its BTF (Documentation/bpf/btf.rst), which lies in its
memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_STRUCT = 4
# What follows a type of each kind: bytes, and bytes for each of its members.
_TAILS = {
    1: (4, 0), 2: (0, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 7: (0, 0), 8: (0, 0), 9: (0, 0),
    10: (0, 0), 11: (0, 0), 12: (0, 0), 13: (0, 8), 14: (4, 0), 15: (0, 12), 16: (0, 0), 17: (4, 0),
    18: (0, 0), 19: (0, 12),
}  # fmt: skip
MOST = 32 << 20  # bytes


def size_of(header: bytes) -> int:
    """Bytes of all of it, by its first bytes; 0 for what is none."""
    if len(header) < _HEADER.size:
        return 0
    magic, _, _, length, types_at, types, names_at, names = _HEADER.unpack_from(header)
    size = int(length + max(types_at + types, names_at + names))
    return size if magic == _MAGIC and size <= MOST else 0


def offsets(data: bytes, name: str) -> dict[str, int]:
    """Bytes to each member of the structure of that name; empty if it is not there, or is nonsense."""
    if not size_of(data) or size_of(data) > len(data):
        return {}
    _, _, _, length, types_at, types, names_at, names = _HEADER.unpack_from(data)
    strings = data[length + names_at : length + names_at + names]
    wanted = name.encode()
    for number, kind_flag, members in _structs(data[length + types_at : length + types_at + types]):
        if _text(strings, number) == wanted:
            return {
                _text(strings, member).decode("ascii", errors="replace"): (
                    bits & 0xFF_FFFF if kind_flag else bits
                )
                // 8
                for member, _, bits in _MEMBER.iter_unpack(members)
                if member
            }
    return {}


def _structs(data: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """The name, as a place among the strings, and the members of each structure."""
    at = 0
    while at + _TYPE.size <= len(data):
        name, info, _ = _TYPE.unpack_from(data, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        if kind not in _TAILS:
            return
        fixed, each = _TAILS[kind]
        end = at + _TYPE.size + fixed + each * count
        if kind == _STRUCT and name and end <= len(data):
            yield name, bool(info >> 31), data[at + _TYPE.size : end]
        at = end


def _text(strings: bytes, at: int) -> bytes:
    return strings[at : max(at, strings.find(b"\0", at))]
