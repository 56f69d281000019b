# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes into a new root's memory and how it is entered, in words that fit every architecture."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from multiroot.ranges import Range
from multiroot.units import HUGE_PAGE, MIB

CARVE_ALIGNMENT = HUGE_PAGE  # the shared area is aligned like this, and sits at a fixed offset
BOOT_AREA_SIZE = 2 * MIB  # the carve begins with what the new kernel is started with
SHARED_OFFSET = BOOT_AREA_SIZE


@dataclass(frozen=True)
class RootSpec:
    """The root to be: its share of the machine and what it must know about the old root.

    `hardware_ids`: its CPUs, the one to start it on first. `boot_hardware_id`: the CPU that the machine
    started on. `wide_ids`: the old root uses the wide mode of the interrupt controller. `reserved`: ranges
    (and what they are) that it must see as reserved. `hz`: the new kernel's CONFIG_HZ, 0 when unknown.
    `later_hardware_ids`: CPUs that it may take over one day. `ledger_cpus`: physical address of the ledger's
    table of CPUs. `cleared`: CPU features that it must do without. `uart`: its serial port, 0 or 1.
    `node_tables`: the firmware's tables of nodes, unchanged.
    """

    root: int
    carve: Range
    low: Range
    hardware_ids: tuple[int, ...]
    boot_hardware_id: int
    tsc_khz: int
    wide_ids: bool
    reserved: tuple[tuple[Range, str], ...]
    pmem: tuple[Range, ...] = ()
    hz: int = 0
    later_hardware_ids: tuple[int, ...] = ()
    ledger_cpus: int = 0
    cleared: tuple[str, ...] = ()
    uart: int = 0
    node_tables: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Segment:
    """`data` for physical address `phys`, which is page aligned; `what` is for people."""

    phys: int
    data: bytes = field(repr=False)
    what: str

    @property
    def range(self) -> Range:
        return Range(self.phys, len(self.data))


class MemoryType(enum.Enum):
    """What a new root is told about a range of memory."""

    RAM = "RAM"
    RESERVED = "reserved"
    PMEM = "persistent memory"


@dataclass(frozen=True)
class MemoryEntry:
    """One line of a new root's memory map; `what` is for people only."""

    range: Range
    type: MemoryType
    what: str


@dataclass(frozen=True)
class BootPlan:
    """kexec_load(2)'s segments and entry, and the registers of struct multiroot_cpu_start.

    `page_table` is the physical address of the top page table.
    """

    segments: tuple[Segment, ...]
    trampoline: int
    page_table: int
    stack: int
    entry: int
    boot_params: int
    release: str
    command_line: str
    memory: tuple[MemoryEntry, ...]
