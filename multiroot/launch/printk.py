# SPDX-License-Identifier: GPL-2.0-or-later
"""The message buffer of a Linux kernel, read in copies of its memory. Pure: bytes in, messages out.

Since 5.10 every kernel keeps its messages like this (kernel/printk/printk_ringbuffer.c). A block of text is a
64-bit id, the text, a NUL, padding to 8 bytes. Ids have 62 bits and count up, from 2^32 less the number of
descriptors, which is a power of two. 7.3 begins at 2^62 less that number, and so comes to 0 soon. Messages
without text have an id and no block. The first message is "Linux version". A block that does not fit at the
end of the buffer has its id there and lies at its start, with its id again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = struct.Struct("<Q")
# What every kernel says first, as a word of memory behind the first id.
BANNER_WORD: int = _WORD.unpack(b"Linux ve")[0]
_IDS_END = 1 << 62  # 0 follows
_FIRST_IDS_ENDS = (1 << 32, _IDS_END)
_COUNT_MOST = 1 << 31  # descriptors
BLOCK_MOST = 4096  # bytes that a block can have; messages have at most 1024, or 2048 in later kernels
_SKIPPED_MOST = 256  # messages without text in a row


@dataclass(frozen=True)
class Block:
    """One message: where its block is (bytes from the start of what was looked at), its id and its text."""

    offset: int
    id: int
    text: str


def is_first(number: int) -> bool:
    """Whether a word of memory may be the id of a kernel's first message."""
    counts = (end - number for end in _FIRST_IDS_ENDS)
    return any(1 < count <= _COUNT_MOST and count & (count - 1) == 0 for count in counts)


def id_at(memory: bytes | bytearray, offset: int) -> int:
    """The 64-bit word there; -1 beyond the end."""
    if offset + _WORD.size > len(memory):
        return -1
    return int(_WORD.unpack_from(memory, offset)[0])


def follows(later: int, earlier: int) -> bool:
    """Whether `later` is an id that may come next after `earlier`."""
    return 0 <= later < _IDS_END and 0 < (later - earlier) % _IDS_END <= _SKIPPED_MOST


def blocks(memory: bytes | bytearray, number: int) -> Iterator[Block]:
    """The blocks in `memory`, which begins with the block of id `number`, up to the first that is missing."""
    at = 0
    if id_at(memory, at) != number:
        return
    while at >= 0:
        end = _next(memory, at, number)
        yield Block(at, number, _text(memory, at, end))
        number = id_at(memory, end) if end >= 0 else number
        at = end


def _next(memory: bytes | bytearray, at: int, number: int) -> int:
    """Where the block after the one at `at` is; -1 when there is none."""
    for offset in range(at + 16, min(at + BLOCK_MOST, len(memory) - 8), 8):
        found = id_at(memory, offset)
        # The last characters of a text look like an id that is small. But before an id, a text has ended.
        ended = memory.find(b"\0", offset - 8, offset) >= 0
        if ended and follows(found, number) and (found or not _is_padding(memory, offset, number)):
            return offset
    return -1


def _is_padding(memory: bytes | bytearray, at: int, number: int) -> bool:
    """Whether a word of zeros is no id: behind an id stands a text."""
    return memory[at + 8] == 0 or follows(id_at(memory, at + 8), number)


def _text(memory: bytes | bytearray, at: int, end: int) -> str:
    raw = memory[at + 8 : end if end >= 0 else at + BLOCK_MOST].partition(b"\0")[0].removesuffix(b"\n")
    # A level of two bytes stood before the text, which was then moved to its place: its end is there twice.
    if raw[-2:] == raw[-4:-2]:
        raw = raw[:-2]
    # It goes to terminals and files.
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in raw.decode(errors="replace"))
