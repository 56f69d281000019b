# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a lab machine's memory lies: pure arithmetic on physical addresses and sizes in bytes.

QEMU splits the RAM of a machine that has enough of it in two parts (`arch.arch.LabMachine`): a low one at
address 0, and a high one. Device memory follows at the next 1 GiB boundary: the nvdimm with the system image,
and one for each disk that all roots see, none of which touches another: a kernel takes persistent memory that
touches for one. Arena and carve go to the start of the high part, 128 MiB aligned. That is a memory section,
and the size of a memory block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multiroot import arch
from multiroot.coordinator.canary import RAM_BYTES as CANARY_RAM
from multiroot.errors import BadRequestError
from multiroot.plan.request import CARVE_ENOUGH
from multiroot.units import GIB, MIB, format_size

SECTION = 128 * MIB


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
    """`ram` is all of the machine's RAM; arena and carve are parts of it, the image and the disks are not.

    Without `carve_reserved` the carve is only where one could be: memory the old root uses for movable
    pages.
    """

    ram: int
    max_memory: int
    arena: Range
    carve: Range
    carve_reserved: bool
    image: Range
    disks: tuple[Range, ...] = ()

    def cmdline(self) -> list[str]:
        """Parameters of the old root's kernel (Documentation/admin-guide/kernel-parameters.txt: memmap,
        movablecore).
        """
        words = [f"memmap={_hex(self.arena.size)}!{_hex(self.arena.start)}"]
        if self.carve_reserved:
            return [*words, f"memmap={_hex(self.carve.size)}${_hex(self.carve.start)}"]
        # All from the carve on. One section more: the kernel counts pages that are in use already.
        split = arch.current().lab
        movable = split.high_base + self.ram - split.low_ram - self.carve.start + SECTION
        return [*words, f"movablecore={movable // MIB}M"]


def low_reserved() -> Range:
    """What the old root leaves alone near address 0: from the ledger to the end of the first low window."""
    memory = arch.current().memory
    return Range(memory.ledger.base, memory.low_windows[0].end - memory.ledger.base)


def arena_size(vms: int, vm_memory: int, slack: int) -> int:
    """Arena for so many virtual machines and an update's canary; `slack` is for superblock, handoff records
    and alignment.
    """
    return _up(vms * vm_memory + CANARY_RAM + slack, SECTION)


def lay_out(
    *,
    old_memory: int,
    arena: int,
    carve: int,
    carve_reserved: bool,
    image: int,
    disks: Sequence[int] = (),
) -> Layout:
    """The layout for at least `old_memory` of RAM for the old root, and disks of so many bytes. Raises
    BadRequestError for a carve too small.
    """
    if carve < CARVE_ENOUGH:
        raise BadRequestError(
            f"a carve of {format_size(carve)} is too small", f"{format_size(CARVE_ENOUGH)} will do"
        )
    split = arch.current().lab
    arena_range = Range(split.high_base, _up(arena, SECTION))
    carve_size = _up(carve, SECTION)
    taken = arena_range.size + carve_size
    # A kernel's early allocations come from the end of memory and never move: the carve must not be there.
    wanted = max(
        old_memory - split.low_ram,
        split.split_from - split.low_ram - taken,
        0 if carve_reserved else 2 * SECTION,
    )
    spare = _up(wanted, SECTION)
    carve_range = Range(arena_range.end, carve_size)
    high_end = split.high_base + taken + spare
    ram = split.low_ram + taken + spare
    image_range = Range(_up(high_end, GIB), image)
    behind, disk_ranges = image_range.end, []
    for size in disks:
        disk_ranges.append(Range(_up(behind + 1, GIB), size))
        behind = disk_ranges[-1].end
    return Layout(
        ram=ram,
        # QEMU wants room to align every slot to 1 GiB.
        max_memory=ram + _up(behind - image_range.start, GIB) + GIB,
        arena=arena_range,
        carve=carve_range,
        carve_reserved=carve_reserved,
        image=image_range,
        disks=tuple(disk_ranges),
    )


def _up(value: int, unit: int) -> int:
    return -(-max(value, 0) // unit) * unit


def _hex(value: int) -> str:
    return f"{value:#x}"
