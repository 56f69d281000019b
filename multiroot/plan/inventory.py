# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine has, as seen from one root. Addresses physical, sizes in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multiroot.plan.iomem import Resource
from multiroot.ranges import Range, cut, intersect, merge, subtract
from multiroot.units import MIB

MOVABLE = "Movable"


@dataclass(frozen=True)
class Cpu:
    """A CPU by its logical number in this root.

    `siblings`: all threads of its core, itself included. `owner`: the root that has it according to
    the ledger, 0 when nobody claimed it yet. `hardware_id` is None when there was no way to tell.
    """

    number: int
    hardware_id: int | None
    online: bool
    siblings: tuple[int, ...]
    is_boot: bool
    owner: int = 0


@dataclass(frozen=True)
class MemoryBlock:
    """A unit of memory hotplug (Documentation/admin-guide/mm/memory-hotplug.rst).

    `zone` is the only zone an online block belongs to, "" when it has several or none.
    """

    number: int
    range: Range
    online: bool
    zone: str

    @property
    def can_go(self) -> bool:
        """Offline already, or holding movable pages only, so that it is likely to go offline."""
        return not self.online or self.zone == MOVABLE


@dataclass(frozen=True)
class FirmwareRange:
    """A line of the memory map that this root's kernel was started with (/sys/firmware/memmap)."""

    range: Range
    type: str


@dataclass(frozen=True)
class Inventory:
    """`root` is the number of the root that looked; 1 for a root without ledger. `regions` are the devices of
    persistent memory.
    """

    root: int
    cpus: tuple[Cpu, ...]
    iomem: tuple[Resource, ...]
    firmware: tuple[FirmwareRange, ...]
    blocks: tuple[MemoryBlock, ...]
    regions: tuple[Range, ...] = ()

    def cpu(self, number: int) -> Cpu | None:
        return next((cpu for cpu in self.cpus if cpu.number == number), None)

    @property
    def system_ram(self) -> tuple[Range, ...]:
        """What this root's kernel takes for its memory."""
        return tuple(item.range for item in self.iomem if item.is_ram)

    @property
    def pmem(self) -> tuple[Range, ...]:
        """Persistent memory, merged where namespaces touch, but not across devices: a root that is told of
        two devices as one takes what is written at the beginning of the first for what both are.
        """
        found = merge(item.range for item in self.iomem if item.is_persistent)
        return cut(found, (at for region in self.regions for at in (region.base, region.end)))

    @property
    def firmware_ram(self) -> tuple[Range, ...]:
        return merge(item.range for item in self.firmware if item.type == "System RAM")

    @property
    def reserved_carves(self) -> tuple[Range, ...]:
        """RAM above 1 MiB that this kernel was told to keep off, by memmap=SIZE$START or mem=.

        /sys/firmware/memmap still has it as RAM, /proc/iomem as "Reserved" with nothing inside, or
        not at all.
        """
        used = [
            part.range for item in self.iomem for part in (item.children if item.is_reserved else (item,))
        ]
        return subtract(self.firmware_ram, [Range(0, MIB), *used])

    @property
    def block_runs(self) -> tuple[tuple[MemoryBlock, ...], ...]:
        """Runs of adjacent memory blocks that can go offline, by address."""
        return adjacent(sorted((b for b in self.blocks if self.can_go(b)), key=lambda b: b.range))

    def can_go(self, block: MemoryBlock) -> bool:
        """Whether `block` is likely to go offline: movable, and nothing with a name of its own in it.

        A kernel that address randomisation has put into what then became movable memory stays there.
        """
        fixed = (child for item in self.iomem if item.is_ram for child in item.children)
        return block.can_go and not any(child.range.overlaps(block.range) for child in fixed)


def adjacent(blocks: Sequence[MemoryBlock]) -> tuple[tuple[MemoryBlock, ...], ...]:
    """Split sorted blocks into runs without gaps."""
    runs: list[list[MemoryBlock]] = []
    for block in blocks:
        if runs and runs[-1][-1].range.end == block.range.base:
            runs[-1].append(block)
        else:
            runs.append([block])
    return tuple(tuple(run) for run in runs)


def blocks_in(inventory: Inventory, wanted: Range) -> tuple[MemoryBlock, ...]:
    """The memory blocks that overlap `wanted`, by address."""
    return tuple(sorted((b for b in inventory.blocks if b.range.overlaps(wanted)), key=lambda b: b.range))


def is_ram_only(inventory: Inventory, wanted: Range) -> bool:
    """Whether all of `wanted` is RAM according to the firmware."""
    return intersect(inventory.firmware_ram, [wanted]) == (wanted,)
