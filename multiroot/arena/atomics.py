# SPDX-License-Identifier: GPL-2.0-or-later
"""Atomic words and checksums on memory that two kernels share, and the clock they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multiroot.arena._atomics import ffi, lib

WORD = 8
_MASK = (1 << 64) - 1
_FLUSH_KINDS = ("clflush", "clflushopt", "clwb")

lib.mra_init()


class Memory:
    """64-bit words, byte ranges and checksums on a writable buffer, usually a shared mapping.

    All offsets and sizes are in bytes. IndexError for anything outside the buffer, ValueError for a word
    that is not aligned to 8 bytes (a misaligned one would not be atomic).
    """

    def __init__(self, buffer: Any) -> None:
        self._view = memoryview(buffer).cast("B")
        self._base = ffi.from_buffer("char[]", self._view, require_writable=True)
        self.size = len(self._view)

    def close(self) -> None:
        """Release the buffer; after this it may be unmapped."""
        ffi.release(self._base)
        self._view.release()

    def load(self, offset: int) -> int:
        """The word at `offset`, with acquire ordering."""
        return lib.mra_load_acquire(self._word(offset))

    def store(self, offset: int, value: int) -> None:
        """Set the word at `offset`, with release ordering, and write its line back."""
        word = self._word(offset)
        lib.mra_store_release(word, value & _MASK)
        lib.mra_flush(word, WORD)

    def compare_exchange(self, offset: int, expected: int, desired: int) -> int:
        """Set the word to `desired` if it holds `expected`; returns what it held before."""
        word = self._word(offset)
        seen = lib.mra_compare_exchange(word, expected, desired)
        lib.mra_flush(word, WORD)
        return seen

    def address(self, offset: int) -> Any:
        """Where the word at `offset` is, for C. It is there until `close`."""
        return self._word(offset)

    def read(self, offset: int, size: int) -> bytes:
        """A copy of the bytes."""
        self._check(offset, size)
        return bytes(self._view[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Copy the bytes in and write their lines back; not atomic."""
        self._check(offset, len(data))
        self._view[offset : offset + len(data)] = data
        self.flush(offset, len(data))

    def flush(self, offset: int, size: int) -> None:
        """Write the cache lines of the range back to memory and wait until that is ordered."""
        self._check(offset, size)
        lib.mra_flush(self._base + offset, size)

    def _word(self, offset: int) -> Any:
        self._check(offset, WORD)
        if offset % WORD:
            raise ValueError(f"word at {offset:#x} is not aligned")
        return self._base + offset

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise IndexError(f"{offset:#x}+{size:#x} is outside of {self.size:#x} bytes")


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli, RFC 3720) by the CPU's instruction where it has one."""
    return lib.mra_crc32c(ffi.from_buffer("char[]", data), len(data))


def crc32c_portable(data: bytes | memoryview) -> int:
    """The same checksum by table, for CPUs without SSE4.2."""
    return lib.mra_crc32c_table(ffi.from_buffer("char[]", data), len(data))


def flush_instruction() -> str:
    """The instruction that writes cache lines back on this CPU."""
    return _FLUSH_KINDS[lib.mra_flush_kind()]


def tsc() -> int:
    """The time-stamp counter, in ticks."""
    return lib.mra_tsc()


def tsc_clock(khz: int) -> Callable[[], int]:
    """A clock of ns = TSC * 10^6 / `khz`: the same in every root that is given the same frequency."""
    if khz <= 0:
        raise ValueError(f"not a TSC frequency: {khz} kHz")
    read = lib.mra_tsc
    return lambda: read() * 1_000_000 // khz
