# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory map that a new root is told about (ACPI specification 6.5, section 15)."""

from __future__ import annotations

import enum
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from multiroot.errors import BadRequestError, ConflictError
from multiroot.kexec.ranges import Range
from multiroot.kexec.x86.layout import BootLayout

ENTRY_SIZE = 20
MAX_ENTRIES = 128  # E820_MAX_ENTRIES_ZEROPAGE
MIN_ENTRIES = 2  # Linux takes a map with fewer for firmware rubbish and ignores it


class E820Type(enum.IntEnum):
    RAM = 1
    RESERVED = 2
    PMEM = 7


_NAMES = {E820Type.RAM: "RAM", E820Type.RESERVED: "reserved", E820Type.PMEM: "persistent memory"}


@dataclass(frozen=True)
class E820Entry:
    """One line of the map; `what` is for people only."""

    range: Range
    type: E820Type
    what: str

    @property
    def type_name(self) -> str:
        return _NAMES[self.type]


def memory_map(
    layout: BootLayout, pmem: Sequence[Range], reserved: Sequence[tuple[Range, str]]
) -> tuple[E820Entry, ...]:
    """The map of a new root, sorted by address.

    `pmem` is shown as persistent memory (type 7 together with an NFIT gives /dev/pmem with stock
    drivers), `reserved` (range and what it is) is kept out of the new root's allocator.
    ConflictError when ranges overlap.
    """
    entries = [
        E820Entry(
            Range.between(layout.low.base, layout.low_ram.base),
            E820Type.RESERVED,
            "trampoline, PML4, fake IOAPIC",
        ),
        E820Entry(layout.low_ram, E820Type.RAM, "low RAM"),
        E820Entry(layout.boot_area, E820Type.RESERVED, "boot area"),
        E820Entry(layout.shared, E820Type.RESERVED, "shared area"),
        E820Entry(layout.ram, E820Type.RAM, "RAM"),
    ]
    entries += [E820Entry(item, E820Type.PMEM, "PMEM") for item in pmem]
    entries += [E820Entry(item, E820Type.RESERVED, what) for item, what in reserved]
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


def encode(entries: Sequence[E820Entry]) -> bytes:
    """struct boot_e820_entry[]: u64 address, u64 size, u32 type, packed."""
    return b"".join(struct.pack("<QQI", entry.range.base, entry.range.size, entry.type) for entry in entries)
