# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages of a kernel are free, by its own account: a dump can do without them, as makedumpfile's can.

Every page has a struct page. That of the first page of a free block carries a mark and the block's order. All
that it takes to read them is in VMCOREINFO, for makedumpfile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from multiroot.ranges import Range
from multiroot.units import PAGE
from multiroot.vmcore.info import VmcoreInfo
from multiroot.vmcore.space import Space, UnmappedError, word

_ORDERS = 16  # no kernel has blocks that large
_STEP = 1 << 15  # pages looked at in one go
_FLAGS = 0x3F  # in the lower bits of section_mem_map
_PAGE_MOST = 256  # bytes of a struct page


class FreePages:
    """Raises UnmappedError when the kernel does not say how its memory is accounted for."""

    def __init__(self, space: Space, info: VmcoreInfo) -> None:
        self._space = space
        try:
            self._page = info.sizes["page"]
            self._mark_at = info.offsets["page._mapcount"]
            self._order_at = info.offsets["page.private"]
            self._mark = info.numbers["PAGE_BUDDY_MAPCOUNT_VALUE"] & 0xFFFF_FFFF
            self._section_bits = info.numbers["SECTION_SIZE_BITS"]
            self._sections = info.symbols["mem_section"]
            self._section = info.sizes["mem_section"]
            self._map_at = info.offsets["mem_section.section_mem_map"]
        except KeyError as missing:
            raise UnmappedError(f"the kernel does not say {missing.args[0]}") from missing
        sane = (
            0 < self._page <= _PAGE_MOST
            and max(self._mark_at + 4, self._order_at + 8) <= self._page
            and min(self._mark_at, self._order_at, self._map_at) >= 0
            and 0 < self._section <= PAGE
            and 20 <= self._section_bits <= 40
        )
        if not sane:
            raise UnmappedError("what the kernel says of its memory makes no sense")

    def used(self, memory: Range) -> Iterator[Range]:
        """The parts of `memory` that are not free, in order. What nothing is known of counts as used.

        In a kernel that lives, a page may have been taken since.
        """
        start = memory.base
        for free in self._free(memory):
            if free.base > start:
                yield Range.between(start, free.base)
            start = max(start, min(free.end, memory.end))
        if start < memory.end:
            yield Range.between(start, memory.end)

    def _free(self, memory: Range) -> Iterator[Range]:
        number, end = memory.base // PAGE, memory.end // PAGE
        while number < end:
            count = min(_STEP - number % _STEP, end - number)
            try:
                raw = self._space.read(self._map_of(number) + number * self._page, count * self._page)
            except UnmappedError:
                raw = b""
            for each in range(len(raw) // self._page):
                (mark,) = struct.unpack_from("<I", raw, each * self._page + self._mark_at)
                if mark != self._mark:
                    continue
                (order,) = struct.unpack_from("<Q", raw, each * self._page + self._order_at)
                if order < _ORDERS:
                    yield Range((number + each) * PAGE, PAGE << order)
            number += count

    def _map_of(self, number: int) -> int:
        """Where the struct page of page 0 would be, as the section of page `number` counts."""
        section = number * PAGE >> self._section_bits
        per_root = PAGE // self._section
        root = word(self._space, self._sections + 8 * (section // per_root))
        if not root:
            raise UnmappedError("no such memory")
        coded = word(self._space, root + section % per_root * self._section + self._map_at)
        if not coded & 1:
            raise UnmappedError("no such memory")
        return coded & ~_FLAGS
