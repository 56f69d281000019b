# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's page tables (Intel SDM vol. 3A, 4.5), walked in a copy of its memory."""

from __future__ import annotations

import struct
from collections.abc import Callable

from multiroot.units import PAGE
from multiroot.vmcore.info import VmcoreInfo
from multiroot.vmcore.space import UnmappedError

MACHINE = 62  # EM_X86_64
_TEXT = 0xFFFF_FFFF_8000_0000  # __START_KERNEL_map: the kernel's image, linked from here on
_ENTRIES = 512
_PRESENT, _LARGE = 1, 1 << 7
_FRAME = ((1 << 52) - 1) & ~(PAGE - 1)
# Where the memory is mapped in a row, and what follows it (Documentation/arch/x86/x86_64/mm.rst). KASLR moves
# it up, and never down.
_LINEAR = {
    4: (0xFFFF_8880_0000_0000, 0xFFFF_E000_0000_0000),
    5: (0xFF11_0000_0000_0000, 0xFFD4_0000_0000_0000),
}
_TABLES_MOST = 4096  # kept

Read = Callable[[int, int], bytes | bytearray]


class Tables:
    """A `vmcore.space.Space`. `read` reads physical memory, and raises UnmappedError for what it has not."""

    def __init__(self, read: Read, info: VmcoreInfo) -> None:
        self._read = read
        self._cache: dict[int, tuple[int, ...]] = {}
        self.levels = 5 if info.numbers.get("pgtable_l5_enabled") == 1 else 4
        top = info.symbols.get("swapper_pg_dir") or info.symbols.get("init_top_pgt")
        if top is None or top < _TEXT:
            raise UnmappedError("the kernel does not say where its page tables are")
        self._top = top - _TEXT + info.numbers.get("phys_base", 0)
        self._linear = -1

    def read(self, address: int, size: int) -> bytes:
        """Raises UnmappedError."""
        runs: list[tuple[int, int]] = []  # what lies in a row in physical memory is read in one go
        while size > 0:
            part = min(size, PAGE - address % PAGE)
            phys = self.physical(address)
            if runs and sum(runs[-1]) == phys:
                runs[-1] = (runs[-1][0], runs[-1][1] + part)
            else:
                runs.append((phys, part))
            address += part
            size -= part
        return b"".join(bytes(self._read(phys, part)) for phys, part in runs)

    def physical(self, address: int) -> int:
        """Where a virtual address is. Raises UnmappedError."""
        table = self._top
        for level in range(self.levels, 0, -1):
            shift = 12 + 9 * (level - 1)
            entry = self._table(table)[address >> shift & _ENTRIES - 1]
            if not entry & _PRESENT:
                break
            if level == 1 or (entry & _LARGE and level <= 3):
                inside = (1 << shift) - 1
                return (entry & _FRAME & ~inside) | (address & inside)
            table = entry & _FRAME
        raise UnmappedError(f"nothing is mapped at {address:#x}")

    @property
    def linear(self) -> int:
        """By the first page that is mapped where the kernel has all its memory. Raises UnmappedError."""
        if self._linear < 0:
            first, end = _LINEAR[self.levels]
            self._linear = self._first_mapped(self._top, self.levels, 0, first, end)
        return self._linear

    def _first_mapped(self, table: int, level: int, base: int, first: int, end: int) -> int:
        shift = 12 + 9 * (level - 1)
        for number, entry in enumerate(self._table(table)):
            address = base | number << shift
            if level == self.levels and number >= _ENTRIES // 2:
                address |= (1 << 64) - (1 << 12 + 9 * self.levels)
            if address + (1 << shift) <= first or not entry & _PRESENT:
                continue
            if address >= end:
                break
            if level == 1 or (entry & _LARGE and level <= 3):
                return address - (entry & _FRAME & ~((1 << shift) - 1))
            return self._first_mapped(entry & _FRAME, level - 1, address, first, end)
        raise UnmappedError("the kernel has its memory mapped nowhere in a row")

    def _table(self, phys: int) -> tuple[int, ...]:
        if phys not in self._cache:
            if len(self._cache) >= _TABLES_MOST:
                self._cache.clear()
            self._cache[phys] = struct.unpack(f"<{_ENTRIES}Q", self._read(phys, PAGE))
        return self._cache[phys]
