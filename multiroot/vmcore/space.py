# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's own view of its memory: virtual addresses, translated by its page tables."""

from __future__ import annotations

import struct
from typing import Protocol

_WORD = struct.Struct("<Q")
_TEXT_MOST = 1 << 16


class UnmappedError(Exception):
    """The kernel has nothing at a virtual address, or nothing that can be read."""


class Space(Protocol):
    """What can be read of a kernel by virtual addresses."""

    def read(self, address: int, size: int) -> bytes:
        """Raises UnmappedError."""

    @property
    def linear(self) -> int:
        """The virtual address of physical address 0, where all memory is mapped in a row."""


def word(space: Space, address: int) -> int:
    """The 64-bit word there. Raises UnmappedError."""
    return int(_WORD.unpack(space.read(address, _WORD.size))[0])


def half(space: Space, address: int) -> int:
    """The 32-bit word there. Raises UnmappedError."""
    return int(struct.unpack("<I", space.read(address, 4))[0])


def text(space: Space, address: int, most: int) -> str:
    """The string there, of at most `most` bytes. Raises UnmappedError."""
    raw = space.read(address, min(most, _TEXT_MOST)).partition(b"\0")[0]
    return "".join(c if c.isprintable() else "?" for c in raw.decode("ascii", errors="replace"))
