# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/uapi/multiroot.h in Python's types.

Every number comes from that header by way of the C compiler (csrc/kmod/uapi/build_uapi.py): nothing is
written twice, and nothing is parsed when an agent starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

from multiroot.device._uapi import ffi, lib

ABI: int = lib.MULTIROOT_ABI
CONTROL_SIZE: int = lib.MULTIROOT_CONTROL_SIZE
SHARED_SIZE: int = lib.MULTIROOT_SHARED_SIZE
LEDGER_SIZE: int = lib.MULTIROOT_LEDGER_SIZE
LEDGER_CPUS_OFFSET: int = ffi.offsetof("struct multiroot_ledger", "cpu")
LEDGER_CPUS: int = lib.MULTIROOT_LEDGER_CPUS
MEMORY_MOST: int = lib.MULTIROOT_MEMORY_MOST


class PeerIndex(IntEnum):
    """Which neighbour: the root that started us, or the one we start."""

    PARENT = lib.MULTIROOT_PARENT
    CHILD = lib.MULTIROOT_CHILD


class CpuState(IntEnum):
    """What a CPU does, as the asking root sees it."""

    ONLINE = lib.MULTIROOT_CPU_ONLINE
    OFFLINE = lib.MULTIROOT_CPU_OFFLINE
    GRANTED = lib.MULTIROOT_CPU_GRANTED
    STARTED = lib.MULTIROOT_CPU_STARTED
    PARKED = lib.MULTIROOT_CPU_PARKED


class Stage(IntEnum):
    """How far the trampoline came."""

    NONE = lib.MULTIROOT_STAGE_NONE
    REAL = lib.MULTIROOT_STAGE_REAL
    LONG = lib.MULTIROOT_STAGE_LONG
    ENTRY = lib.MULTIROOT_STAGE_ENTRY


class MemoryAction(IntEnum):
    """What to do with memory of roots that are gone."""

    SUM = lib.MULTIROOT_MEMORY_SUM
    ZERO = lib.MULTIROOT_MEMORY_ZERO
    ADD = lib.MULTIROOT_MEMORY_ADD


class WindowType(IntEnum):
    """What a window of the PCI host bridge lets through."""

    PORTS = lib.MULTIROOT_WINDOW_PORTS
    MEMORY = lib.MULTIROOT_WINDOW_MEMORY
    PREFETCHABLE = lib.MULTIROOT_WINDOW_PREFETCHABLE


class Event(IntFlag):
    """Bits of a doorbell; USER and all above are free for user space."""

    STATE = lib.MULTIROOT_EVENT_STATE
    LINK = lib.MULTIROOT_EVENT_LINK
    CONSOLE = lib.MULTIROOT_EVENT_CONSOLE
    USER = lib.MULTIROOT_EVENT_USER


@dataclass(frozen=True)
class Info:
    """This root as its module knows it. Physical addresses and sizes in bytes, 0: none."""

    abi: int
    wide_ids: bool
    has_parent: bool
    carved: bool
    claimed: bool
    root: int
    boot_hardware_id: int
    tsc_khz: int
    ledger: int
    parent_control: int
    child_control: int
    carve_base: int
    carve_size: int
    low_base: int
    low_size: int


@dataclass(frozen=True)
class Cpu:
    """struct multiroot_cpu: a CPU by this kernel's number, and the root that has it by the ledger."""

    cpu: int
    hardware_id: int
    state: CpuState
    root: int


@dataclass(frozen=True)
class Started:
    """How a start went: `tsc_sipi` and `tsc_entry` in TSC ticks, `tsc_entry` when ENTRY was seen."""

    stage: Stage
    tsc_sipi: int
    tsc_entry: int


_E820_RAM = 1


@dataclass(frozen=True)
class E820Range:
    """A range of the machine's first memory map: physical address and size in bytes, type as in e820."""

    addr: int
    size: int
    type: int

    @property
    def is_ram(self) -> bool:
        return self.type == _E820_RAM


@dataclass(frozen=True)
class Window:
    """A range of ports or physical addresses that a PCI host bridge passes on; `bridge` is its place in the
    ledger.
    """

    addr: int
    size: int
    type: WindowType
    bridge: int


@dataclass(frozen=True)
class Ecam:
    """Where PCI configuration space of some buses is mapped: `base` is bus 0's, the last bus is inclusive."""

    base: int
    bus_first: int
    bus_last: int
    segment: int = 0

    def has(self, segment: int, bus: int) -> bool:
        """Whether the configuration space of a bus is there."""
        return segment == self.segment and self.bus_first <= bus <= self.bus_last


@dataclass(frozen=True)
class Bridge:
    """A PCI host bridge and the buses behind it, the last one inclusive."""

    segment: int
    bus_first: int
    bus_last: int


@dataclass(frozen=True)
class LedgerCpu:
    """Owner of a CPU and what it does there."""

    root: int
    state: CpuState


@dataclass(frozen=True)
class Ledger:
    """A copy of the ledger; `cpus` by hardware id; `units` are the addresses of IOMMUs' registers."""

    next_root: int
    roots_alive: int
    boot_hardware_id: int
    first_map: tuple[E820Range, ...]
    cpus: dict[int, LedgerCpu]
    ecams: tuple[Ecam, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    windows: tuple[Window, ...] = ()
    units: tuple[int, ...] = ()

    def has_ended(self, root: int) -> bool:
        """Whether another root than the one that asks has ended: it parked, its CPUs are others' by now, or
        it never ran.

        A root that ends marks the CPU that it was started on. What the ledger says of its other CPUs stays
        as it was, until they are adopted; nobody but the one that adopts is alive then.
        """
        states = {cpu.state for cpu in self.cpus.values() if cpu.root == root}
        runs = CpuState.PARKED not in states and bool(states & {CpuState.ONLINE, CpuState.STARTED})
        return self.roots_alive <= 1 or not runs


def info_from_c(raw: Any) -> Info:
    """`raw` is a struct multiroot_info."""
    return Info(
        abi=raw.abi,
        wide_ids=bool(raw.flags & lib.MULTIROOT_INFO_X2APIC),
        has_parent=bool(raw.flags & lib.MULTIROOT_INFO_PARENT),
        carved=bool(raw.flags & lib.MULTIROOT_INFO_CARVED),
        claimed=bool(raw.flags & lib.MULTIROOT_INFO_CLAIMED),
        root=raw.root,
        boot_hardware_id=raw.boot_hardware_id,
        tsc_khz=raw.tsc_khz,
        ledger=raw.ledger,
        parent_control=raw.parent_control,
        child_control=raw.child_control,
        carve_base=raw.carve_base,
        carve_size=raw.carve_size,
        low_base=raw.low_base,
        low_size=raw.low_size,
    )


def cpu_from_c(raw: Any) -> Cpu:
    """`raw` is a struct multiroot_cpu."""
    return Cpu(raw.cpu, raw.hardware_id, CpuState(raw.state), raw.root)


def ledger_from_c(raw: Any) -> Ledger:
    """`raw` is a struct multiroot_ledger."""
    ranges = (raw.e820[index] for index in range(min(raw.e820_entries, lib.MULTIROOT_LEDGER_E820)))
    cpus = {index: raw.cpu[index] for index in _used(raw.cpu, "root") if index < lib.MULTIROOT_LEDGER_CPUS}
    ecams = [raw.ecam[index] for index in _used(raw.ecam, "base")]
    windows = [raw.window[index] for index in _used(raw.window, "type")]
    return Ledger(
        next_root=raw.next_root,
        roots_alive=raw.roots_alive,
        boot_hardware_id=raw.boot_hardware_id,
        first_map=tuple(E820Range(entry.addr, entry.size, entry.type) for entry in ranges),
        cpus={hardware_id: LedgerCpu(cpu.root, CpuState(cpu.state)) for hardware_id, cpu in cpus.items()},
        ecams=tuple(Ecam(each.base, each.bus_first, each.bus_last, each.segment) for each in ecams),
        bridges=tuple(
            Bridge(bridge.segment, bridge.bus_first, bridge.bus_last)
            for bridge in raw.bridge[0 : min(raw.bridges, lib.MULTIROOT_LEDGER_BRIDGES)]
        ),
        windows=tuple(Window(w.addr, w.size, WindowType(w.type), w.bridge) for w in windows),
        units=tuple(raw.unit[index].registers for index in _used(raw.unit, "kind")),
    )


def _used(entries: Any, field: str) -> list[int]:
    """The places of an array of structures at which `field` is not 0.

    Most places of a ledger are empty, and an agent reads it twice a second for those who watch: looking at
    each by itself takes twice as long.
    """
    item = ffi.typeof(entries).item
    told = dict(item.fields)[field]
    size = ffi.sizeof(told.type)
    numbers = ffi.unpack(ffi.cast(f"{told.type.cname} *", entries), ffi.sizeof(entries) // size)
    values = numbers[told.offset // size :: ffi.sizeof(item) // size]
    return [place for place, value in enumerate(values) if value]


__all__ = [
    "ABI",
    "CONTROL_SIZE",
    "LEDGER_CPUS",
    "LEDGER_CPUS_OFFSET",
    "LEDGER_SIZE",
    "MEMORY_MOST",
    "SHARED_SIZE",
    "Bridge",
    "Cpu",
    "CpuState",
    "E820Range",
    "Ecam",
    "Event",
    "Info",
    "Ledger",
    "LedgerCpu",
    "MemoryAction",
    "PeerIndex",
    "Stage",
    "Started",
    "Window",
    "WindowType",
    "cpu_from_c",
    "ffi",
    "info_from_c",
    "ledger_from_c",
    "lib",
]
