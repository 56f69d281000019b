# SPDX-License-Identifier: GPL-2.0-or-later
"""Identity-mapping page tables with 2 MiB pages for the 64-bit entry point.

boot.rst ("64-bit boot protocol") wants kernel, boot_params and command line identity mapped; the kernel
builds tables of its own for all else. Format: Intel SDM vol. 3A, section 4.5 (4-level paging).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from multiroot.arch.x86 import X86
from multiroot.errors import BadRequestError
from multiroot.ranges import Range, align_down, align_up
from multiroot.units import GIB, HUGE_PAGE, PAGE

ENTRIES = 512
PDPT_SPAN = ENTRIES * GIB  # what one PML4 entry maps
ADDRESS_LIMIT = X86.memory.address_limit

_PRESENT_WRITABLE = 0x3
_LEAF = _PRESENT_WRITABLE | 0x80  # page size: a 2 MiB page


@dataclass(frozen=True)
class PageTables:
    """`pml4` is one page; `tables` holds PDPTs and PDs and belongs to physical address `tables_base`."""

    pml4: bytes
    tables: bytes
    tables_base: int


def reach(tables: Range) -> int:
    """Bytes, wherever they lie, that `identity_map` can map with `tables` besides the first 4 GiB."""
    pages = tables.size // PAGE
    # Four PDs for the first 4 GiB, its PDPT and two more (a range can straddle two), and one PD lost to each
    # unaligned end.
    return (pages - 4 - 3 - 2) * GIB


def identity_map(ranges: Sequence[Range], tables: Range) -> PageTables:
    """Map every GiB that `ranges` touch onto itself; PDPTs and PDs come to lie in `tables`.

    BadRequestError when they do not fit or when a range can not be reached with 4-level paging.
    """
    gigabytes = _gigabytes(ranges)
    slots = sorted({gigabyte * GIB // PDPT_SPAN for gigabyte in gigabytes})
    pages = len(slots) + len(gigabytes)
    if pages * PAGE > tables.size:
        raise BadRequestError(f"{pages} page tables do not fit into {tables.size} bytes", "map less memory")
    pdpt_at = {slot: tables.base + i * PAGE for i, slot in enumerate(slots)}
    pd_at = {gigabyte: tables.base + (len(slots) + i) * PAGE for i, gigabyte in enumerate(gigabytes)}
    pml4 = _table({slot: pdpt_at[slot] | _PRESENT_WRITABLE for slot in slots})
    pdpts = [
        _table({gb % ENTRIES: pd_at[gb] | _PRESENT_WRITABLE for gb in gigabytes if gb // ENTRIES == slot})
        for slot in slots
    ]
    pds = [_table({i: gb * GIB + i * HUGE_PAGE | _LEAF for i in range(ENTRIES)}) for gb in gigabytes]
    return PageTables(pml4, b"".join(pdpts + pds), tables.base)


def _gigabytes(ranges: Sequence[Range]) -> list[int]:
    """Numbers of the GiBs that `ranges` touch, in order."""
    found: set[int] = set()
    for item in ranges:
        if item.end > ADDRESS_LIMIT:
            raise BadRequestError(f"{item} can not be mapped", "4-level paging reaches 128 TiB")
        found.update(range(align_down(item.base, GIB) // GIB, align_up(item.end, GIB) // GIB))
    return sorted(found)


def _table(entries: dict[int, int]) -> bytes:
    return struct.pack(f"<{ENTRIES}Q", *(entries.get(i, 0) for i in range(ENTRIES)))
