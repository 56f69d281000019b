# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a lab machine's memory lies: pure arithmetic on physical addresses and sizes in bytes.

The q35 machine puts 2 GiB of RAM below 4 GiB once it has 2.75 GiB or more, the rest from 4 GiB on, and
device memory (the nvdimm with the system image) at the next 1 GiB boundary (QEMU: hw/i386/pc_q35.c,
hw/i386/pc.c). Arena and carve go to the start of the high part, 128 MiB aligned: that is a memory
section, and the size of a memory block.
"""

from __future__ import annotations

from dataclasses import dataclass

from multiroot.errors import BadRequestError
from multiroot.units import GIB, KIB, MIB, format_size

SECTION = 128 * MIB
LOW_RAM = 2 * GIB
HIGH_BASE = 4 * GIB
SPLIT_FROM = 0xB000_0000  # q35: RAM from which on only 2 GiB lie below 4 GiB
LOW_WINDOW = 0x1_0000
LOW_WINDOW_SIZE = 192 * KIB  # ledger and the new root's low window
SMALLEST_CARVE = 256 * MIB


@dataclass(frozen=True)
class Range:
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    def __str__(self) -> str:
        return f"{self.start:#x}-{self.end - 1:#x} ({format_size(self.size)})"


@dataclass(frozen=True)
class Layout:
    """`ram` is all of the machine's RAM; arena and carve are parts of it, the image is not.

    Without `carve_reserved` the carve is only where one could be: memory the old root uses for movable
    pages.
    """

    ram: int
    max_memory: int
    arena: Range
    carve: Range
    carve_reserved: bool
    image: Range

    def cmdline(self) -> list[str]:
        """Parameters of the old root's kernel (Documentation/admin-guide/kernel-parameters.txt: memmap,
        movablecore).
        """
        words = [f"memmap={_hex(self.arena.size)}!{_hex(self.arena.start)}"]
        if self.carve_reserved:
            return [*words, f"memmap={_hex(self.carve.size)}${_hex(self.carve.start)}"]
        # All from the carve on. One section more: the kernel counts pages that are in use already.
        movable = HIGH_BASE + self.ram - LOW_RAM - self.carve.start + SECTION
        return [*words, f"movablecore={movable // MIB}M"]


def arena_size(vms: int, vm_memory: int, slack: int) -> int:
    """Arena for so many virtual machines; `slack` is for superblock, handoff records and alignment."""
    return _up(vms * vm_memory + slack, SECTION)


def lay_out(*, old_memory: int, arena: int, carve: int, carve_reserved: bool, image: int) -> Layout:
    """The layout for at least `old_memory` of RAM for the old root. Raises BadRequestError for a carve
    too small.
    """
    if carve < SMALLEST_CARVE:
        raise BadRequestError(
            f"a carve of {format_size(carve)} is too small", f"{format_size(SMALLEST_CARVE)} will do"
        )
    arena_range = Range(HIGH_BASE, _up(arena, SECTION))
    carve_size = _up(carve, SECTION)
    taken = arena_range.size + carve_size
    # A kernel's early allocations come from the end of memory and never move: the carve must not be there.
    wanted = max(old_memory - LOW_RAM, SPLIT_FROM - LOW_RAM - taken, 0 if carve_reserved else 2 * SECTION)
    spare = _up(wanted, SECTION)
    carve_range = Range(arena_range.end, carve_size)
    high_end = HIGH_BASE + taken + spare
    ram = LOW_RAM + taken + spare
    image_range = Range(_up(high_end, GIB), image)
    return Layout(
        ram=ram,
        # QEMU wants room to align every slot to 1 GiB.
        max_memory=ram + _up(image, GIB) + GIB,
        arena=arena_range,
        carve=carve_range,
        carve_reserved=carve_reserved,
        image=image_range,
    )


def _up(value: int, unit: int) -> int:
    return -(-max(value, 0) // unit) * unit


def _hex(value: int) -> str:
    return f"{value:#x}"
