# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory map that a new root is told about (ACPI specification 6.5, section 15)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

from multiroot.errors import BadRequestError, ConflictError
from multiroot.kexec.boot import MemoryEntry, MemoryType
from multiroot.kexec.x86.layout import BootLayout
from multiroot.ranges import Range

ENTRY_SIZE = 20
MAX_ENTRIES = 128  # E820_MAX_ENTRIES_ZEROPAGE


# Address range types.
TYPES = {MemoryType.RAM: 1, MemoryType.RESERVED: 2, MemoryType.PMEM: 7}


def memory_map(
    layout: BootLayout, pmem: Sequence[Range], reserved: Sequence[tuple[Range, str]]
) -> tuple[MemoryEntry, ...]:
    """The map of a new root, sorted by address.

    `pmem` is shown as persistent memory (type 7 together with an NFIT gives /dev/pmem with stock
    drivers), `reserved` (range and what it is) is kept out of the new root's allocator.
    ConflictError when ranges overlap.
    """
    entries = [
        MemoryEntry(
            Range.between(layout.low.base, layout.low_ram.base),
            MemoryType.RESERVED,
            "trampoline, PML4, fake IOAPIC",
        ),
        MemoryEntry(layout.low_ram, MemoryType.RAM, "low RAM"),
        MemoryEntry(layout.boot_area, MemoryType.RESERVED, "boot area"),
        MemoryEntry(layout.shared, MemoryType.RESERVED, "shared area"),
        MemoryEntry(layout.ram, MemoryType.RAM, "RAM"),
    ]
    entries += [MemoryEntry(item, MemoryType.PMEM, "PMEM") for item in pmem]
    entries += [MemoryEntry(item, MemoryType.RESERVED, what) for item, what in reserved]
    entries.sort(key=lambda entry: entry.range)
    for before, after in itertools.pairwise(entries):
        if before.range.overlaps(after.range):
            raise ConflictError(
                f"{before.what} at {before.range} overlaps {after.what} at {after.range}",
                "choose another carve or low window",
            )
    if len(entries) > MAX_ENTRIES:
        raise BadRequestError(f"memory map with {len(entries)} entries, boot_params holds {MAX_ENTRIES}")
    return tuple(entries)


def encode(entries: Sequence[MemoryEntry]) -> bytes:
    """struct boot_e820_entry[]: u64 address, u64 size, u32 type, packed."""
    return b"".join(
        struct.pack("<QQI", entry.range.base, entry.range.size, TYPES[entry.type]) for entry in entries
    )
