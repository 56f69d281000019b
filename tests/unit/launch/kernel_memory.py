# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that writes messages into its memory as Linux does (kernel/printk/printk_ringbuffer.c)."""

from __future__ import annotations

import struct

BANNER = "Linux version 6.12.118 (gcc) #1 SMP\n"


class Memory:
    """What a module shows of `memory`, which lies at `base`."""

    def __init__(self, memory: bytearray, base: int) -> None:
        self.memory, self.base = memory, base

    def read_memory(self, phys: int, size: int) -> bytes:
        assert self.base <= phys
        assert phys + size <= self.base + len(self.memory)
        return bytes(self.memory[phys - self.base : phys - self.base + size])

    def write_segment(self, phys: int, data: bytes) -> None:
        self.memory[phys - self.base : phys - self.base + len(data)] = data

    def find_word(self, phys: int, size: int, word: int) -> int:
        assert not (phys | size) % 8
        data = self.read_memory(phys, size)
        at = data.find(struct.pack("<Q", word))
        while at % 8 and at >= 0:
            at = data.find(struct.pack("<Q", word), at + 1)
        return phys + at if at >= 0 else 0


class Printk:
    """A message buffer of `size` bytes at `base` in `memory`, with `count` descriptors.

    Ids begin that much before 2^`bits`: 32 in kernels up to 6.12 at least, 62 in 7.3.
    """

    def __init__(
        self, memory: bytearray, base: int, size: int = 1 << 12, count: int = 1 << 12, bits: int = 32
    ) -> None:
        self.memory, self.base, self.size = memory, base, size
        self._id = (1 << bits) - count - 1
        self._head = 0  # logical position: only grows

    def say(self, text: str, level: str = "") -> None:
        """What printk() does; a text without characters takes an id and nothing else.

        `level` is two characters; they are written first, and then the text is moved to their place.
        """
        self._id = (self._id + 1) % (1 << 62)
        if not text.strip("\n"):
            return
        data = bytearray((level + text).encode() + b"\0")
        moved = text.removesuffix("\n").encode()
        data[: len(moved)] = moved
        size = 8 + (len(data) + 7) // 8 * 8
        begin, end = self._head, self._head + size
        if begin // self.size != end // self.size:
            self._put(begin % self.size, b"")
            begin = end // self.size * self.size
            end = begin + size
        self._put(begin % self.size, data)
        self._head = end

    def _put(self, offset: int, data: bytes) -> None:
        at = self.base + offset
        if offset <= self.size - 8:
            struct.pack_into("<Q", self.memory, at, self._id)
        self.memory[at + 8 : at + 8 + len(data)] = data
