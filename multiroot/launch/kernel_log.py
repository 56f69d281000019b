# SPDX-License-Identifier: GPL-2.0-or-later
"""The messages of a new root's kernel, read from its memory: while it comes up, and after it died.

This needs nothing of the new kernel, no driver and no port, so it shows what a kernel said that panicked
before any module was loaded. Nothing is taken away from other readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from multiroot.device.uapi import SHARED_SIZE
from multiroot.launch import printk
from multiroot.ranges import Range
from multiroot.units import KIB, MIB

if TYPE_CHECKING:
    from multiroot.plan.planner import Plan

_SLICE = 32 * MIB  # searched at once
_WINDOW = 64 * KIB  # read at once
# What one call may read and one buffer may say: the new root writes what is read, and may write anything.
_WINDOWS_MOST = 64
_BUFFERS_MOST = 8
_KEPT_MOST = 8 * MIB


class Memory(Protocol):
    """A new root's memory, as the module shows it (`Device`)."""

    def read_memory(self, phys: int, size: int) -> bytes | bytearray:
        """A copy of it."""

    def find_word(self, phys: int, size: int, word: int) -> int:
        """Where in it the 64-bit word is first, 0: nowhere."""


class Loading(Memory, Protocol):
    """The same before a root is started in it."""

    def write_segment(self, phys: int, data: bytes) -> None:
        """Put `data` there."""


def where_kernel_is(plan: Plan) -> Range:
    """The part of a carve that can hold the new kernel's messages."""
    return Range.between(plan.shared + SHARED_SIZE, plan.carve.end)


def forget(memory: Loading, where: Range) -> None:
    """Spoil what kernels that were there before have said, or it would be taken for the next one's."""
    for piece in _pieces(where):
        for base in _buffers_in(memory, where, piece):
            memory.write_segment(base, bytes(8))


def _pieces(where: Range) -> Iterator[Range]:
    for start in range(where.base, where.end, _SLICE):
        yield Range.between(start, min(start + _SLICE, where.end))


def _buffers_in(memory: Memory, where: Range, piece: Range) -> Iterator[int]:
    """Where message buffers begin whose first message is in `piece` of `where`."""
    at = piece.base
    while at < piece.end and (at := memory.find_word(at, piece.end - at, printk.BANNER_WORD)):
        base = at - 8
        if base >= where.base and printk.is_first(printk.id_at(memory.read_memory(base, 8), 0)):
            yield base
        at += 8


class KernelLog:
    """What the kernel in `where` has said."""

    def __init__(self, memory: Memory, where: Range) -> None:
        self._memory = memory
        self._where = where
        self._buffers: list[_Buffer] = []
        self._given = 0

    def search(self) -> Iterator[None]:
        """Look through all of the memory for message buffers; yields to the caller now and then.

        A kernel with many CPUs moves to a larger buffer early on: the old one stays, and says no more.
        """
        for piece in _pieces(self._where):
            for base in _buffers_in(self._memory, self._where, piece):
                self._add(base)
            yield

    def _add(self, base: int) -> None:
        known = any(buffer.base == base for buffer in self._buffers)
        if not known and len(self._buffers) < _BUFFERS_MOST:
            self._buffers.append(_Buffer(self._memory, base, self._where.end))

    @property
    def found(self) -> bool:
        """Whether the kernel has said anything."""
        return bool(self._buffers)

    def new_lines(self) -> list[str]:
        """What was said since the last call; the newest message when it has stayed as it is for a call."""
        for buffer in self._buffers:
            buffer.read_on()
        lines = max((buffer.lines for buffer in self._buffers), key=len, default=[])
        fresh = lines[self._given :]
        self._given += len(fresh)
        return fresh


class _Buffer:
    """One message buffer, and the block of it that was looked at last."""

    def __init__(self, memory: Memory, base: int, end: int) -> None:
        self.base = base
        self.lines: list[str] = []
        self._memory = memory
        self._end = end
        self._size = 0
        self._go_to(base, self._word(base))

    def _go_to(self, at: int, number: int) -> None:
        self._at, self._id = at, number
        self._said = False
        self._seen: str | None = None  # what the block said when it was looked at last

    def read_on(self) -> None:
        """Add what is new to `lines`."""
        for _ in range(_WINDOWS_MOST):
            first = self._word(self.base)
            window = min(_WINDOW, self._end - self._at)
            found = list(printk.blocks(self._memory.read_memory(self._at, window), self._id))
            if not found:
                # Written over in the meantime. What lies at the start is younger.
                self._say("... messages were lost ...")
                self._go_to(self.base, first)
                continue
            self._take(found)
            if self._at != self.base and first == self._id:
                self._go_to(self.base, first)  # it did not fit at the end
            elif self._at != self.base and printk.follows(first, self._id):
                self._say_once(found[-1].text)
                self._go_to(self.base, first)
            elif found[-1].offset + printk.BLOCK_MOST <= window or len(found) == 1:
                self._wait_or_say(found[-1].text)
                return

    def _take(self, found: list[printk.Block]) -> None:
        """Say all of them but the newest, which may still be being written."""
        for block, following in pairwise(found):
            self._say_once(block.text)
            self._go_to(self._at + following.offset - block.offset, following.id)

    def _wait_or_say(self, text: str) -> None:
        if text == self._seen:
            self._say_once(text)
        self._seen = text

    def _say_once(self, text: str) -> None:
        if not self._said:
            self._say(text)
        self._said = True

    def _say(self, text: str) -> None:
        self._size += len(text)
        if self._size <= _KEPT_MOST:
            self.lines.extend(text.splitlines())

    def _word(self, at: int) -> int:
        return printk.id_at(self._memory.read_memory(at, 8), 0)
