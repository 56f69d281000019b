# SPDX-License-Identifier: GPL-2.0-or-later
"""What a root has of the machine: CPUs by the ledger, memory by its kernel. Cheap to look at often."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

from multiroot import arch
from multiroot.device.uapi import CpuState as LedgerState
from multiroot.device.uapi import Info, Ledger
from multiroot.plan import iomem
from multiroot.ranges import Range, subtract
from multiroot.units import MIB, parse_cpu_list
from multiroot.watch.facts import CpuFacts, CpuState, MachineFacts, MemoryKind, RangeFacts

_STATES = {
    LedgerState.ONLINE: CpuState.ONLINE,
    LedgerState.STARTED: CpuState.ONLINE,
    LedgerState.OFFLINE: CpuState.OFFLINE,
    LedgerState.GRANTED: CpuState.GRANTED,
    LedgerState.PARKED: CpuState.PARKED,
}


class Module(Protocol):
    """What is asked of /dev/multiroot."""

    def info(self) -> Info: ...

    def ledger(self) -> Ledger: ...


class MachineLook:
    """Looks at the files below `top` and at the module. Parses what has changed, and only that."""

    def __init__(
        self, module: Module, root: int, arena: Callable[[], int | None], top: Path = Path("/")
    ) -> None:
        """`root` is this root's number, `arena` tells where the arena begins (physical), None without one."""
        self._module = module
        self._root = root
        self._arena = arena
        self._top = top
        self._online: tuple[str, dict[int, int]] = ("", {})
        self._iomem: tuple[str, tuple[iomem.Resource, ...]] = ("", ())

    def ledger(self) -> Ledger:
        """As it is now. One copy serves a whole look, for making one takes time."""
        return self._module.ledger()

    def machine(self, ledger: Ledger) -> MachineFacts:
        """How much there is of the whole machine."""
        ram = sum(each.size for each in ledger.first_map if each.is_ram)
        return MachineFacts(memory_bytes=ram, cpus=len(ledger.cpus))

    def cpus(self, ledger: Ledger, adopted: Collection[int]) -> dict[str, CpuFacts]:
        """All CPUs that the ledger knows; those of this root with their numbers here.

        `adopted` are the hardware ids of those that it got from a root that has ended.
        """
        numbers = {hardware_id: number for number, hardware_id in self._hardware_ids().items()}
        return {
            str(hardware_id): self._cpu(hardware_id, cpu.root, _STATES[cpu.state], numbers, adopted)
            for hardware_id, cpu in sorted(ledger.cpus.items())
        }

    def _cpu(
        self,
        hardware_id: int,
        root: int,
        state: CpuState,
        numbers: Mapping[int, int],
        adopted: Collection[int],
    ) -> CpuFacts:
        if root != self._root:
            return CpuFacts(root if state is not CpuState.PARKED else 0, None, state)
        number = numbers.get(hardware_id)
        if number is not None:
            state = CpuState.ADOPTED if hardware_id in adopted else CpuState.ONLINE
        elif state is CpuState.ONLINE:
            # The ledger knows who has it, its kernel whether it uses it.
            state = CpuState.OFFLINE
        return CpuFacts(root, number, state)

    def memory(self, ledger: Ledger, child: int) -> dict[str, RangeFacts]:
        """This root's RAM, persistent memory, the carve of root number `child`, and the rest of the RAM.

        The rest is spare as far as this root knows: set aside at boot, or left by a root that has ended.
        Other roots may know better.
        """
        arena = self._arena()
        found = [self._range(item, arena) for item in self._resources() if item.range.end > MIB]
        info = self._module.info()
        if info.carve_size:
            found.append(RangeFacts(info.carve_base, info.carve_size, MemoryKind.CARVE, child, "carve"))
        rest = subtract(_usable(ledger), (Range(each.start, each.size) for each in found))
        found += [RangeFacts(each.base, each.size, MemoryKind.SPARE, 0, iomem.SYSTEM_RAM) for each in rest]
        return {f"{each.start:#x}": each for each in found}

    def _range(self, item: iomem.Resource, arena: int | None) -> RangeFacts:
        start, size = item.range.base, item.range.size
        if item.is_ram:
            return RangeFacts(start, size, MemoryKind.SYSTEM, self._root, item.name)
        if arena is not None and start <= arena < start + size:
            return RangeFacts(start, size, MemoryKind.ARENA, 0, "arena")
        return RangeFacts(start, size, MemoryKind.IMAGE, 0, item.name)

    def devices(self) -> list[str]:
        """Addresses of the PCI functions that this root has."""
        try:
            # Path.glob takes four times as long, and this is done twice a second.
            return sorted(os.listdir(self._top / "sys/bus/pci/devices"))  # noqa: PTH208
        except FileNotFoundError:
            return []

    def _hardware_ids(self) -> dict[int, int]:
        """Of the online CPUs, by their numbers here."""
        online = (self._top / "sys/devices/system/cpu/online").read_text()
        if online != self._online[0]:
            ids = arch.current().cpus.hardware_ids((self._top / "proc/cpuinfo").read_text())
            self._online = (online, {cpu: ids[cpu] for cpu in parse_cpu_list(online) if cpu in ids})
        return self._online[1]

    def _resources(self) -> tuple[iomem.Resource, ...]:
        """RAM and persistent memory."""
        text = (self._top / "proc/iomem").read_text()
        if text != self._iomem[0]:
            found = tuple(each for each in iomem.parse(text) if each.is_ram or each.is_persistent)
            self._iomem = (text, found)
        return self._iomem[1]


def _usable(ledger: Ledger) -> list[Range]:
    """The RAM above 1 MiB, by the firmware's map."""
    ends = [(each.addr, each.addr + each.size) for each in ledger.first_map if each.is_ram]
    return [Range.between(max(start, MIB), end) for start, end in ends if end > MIB]
