# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes devices for VMs, describes them to other roots, and takes them over from other roots.

The hard part of a device's state, its IOMMU tables, lies in the arena in an extent of its own, which
every root maps. What is described here is the soft part; it travels with the handoff.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from multiroot import proc
from multiroot.arena.allocator import Extent
from multiroot.arena.arena import Arena
from multiroot.arena.backing import find_device
from multiroot.arena.layout import RESERVED
from multiroot.device.passthrough import TABLES_SIZE, Comparison, Function, Iommu, Pci, Translation, Unit
from multiroot.errors import BadRequestError, ConflictError
from multiroot.passthrough import firmware
from multiroot.passthrough.functions import Functions, parse_address

log = logging.getLogger(__name__)

VERSION = 1
TABLES = f"{RESERVED}iommu-tables"
ACPI = Path("/sys/firmware/acpi/tables")
WHAT = {"DMAR": "IOMMU", "MCFG": "memory-mapped PCI configuration space"}


@dataclass(frozen=True)
class DeviceState:
    """A device's soft state, as one root tells another; `version` is that of this description."""

    version: int
    function: Function
    tables: Extent
    tables_address: int
    capabilities: int
    translation: Translation


class Devices:
    """The devices of this root's VMs."""

    def __init__(
        self, arena: Arena, root: int, functions: Functions | None = None, acpi: Path = ACPI
    ) -> None:
        self._arena = arena
        self._root = root
        self._functions = functions or Functions()
        self._acpi = acpi
        self._iommu = Iommu()
        self._pci = Pci()
        self._described: dict[int, Function] = {}  # by requester id, as a giver told us

    def acquire(self, device: str) -> str:
        """Make `device` ready for a VM of this root and return its address here.

        Raises BadRequestError or ConflictError that says what stands in the way.
        """
        rid = parse_address(device)
        address = self._functions.need(rid)
        self._take_part()
        self._functions.check(address)
        owner = self._iommu.owner(rid)
        if owner not in (0, self._root):
            raise ConflictError(f"{address} belongs to root {owner}", "run the VM there")
        self._functions.bind(address)
        return address

    def describe(self, device: str, ram: Extent) -> DeviceState:
        """The state that the taker must know. `ram` is the extent of the VM's RAM, here and below."""
        rid = parse_address(device)
        unit = self._iommu.info()
        return DeviceState(
            version=VERSION,
            function=self._described.get(rid) or self._functions.describe(rid, self._table("MCFG")),
            tables=self._arena.find(TABLES).extent,
            tables_address=unit.tables,
            capabilities=unit.capabilities,
            translation=self._iommu.device(rid, *self._physical(ram)),
        )

    def prepare(self, device: str, state: DeviceState) -> str:
        """Make the device appear in this root, bind it to our driver, and return its address here.

        Raises ConflictError when what the giver says does not fit this root.
        """
        rid = parse_address(device)
        if state.version != VERSION:
            raise ConflictError(f"the giver describes devices in version {state.version}, we in {VERSION}")
        if rid != state.function.rid:
            raise BadRequestError(f"the giver describes another device than {device}")
        unit = self._join(state)
        if unit.capabilities != state.capabilities:
            raise ConflictError("the giver sees an IOMMU of other capabilities")
        self._described[rid] = state.function
        address = self._functions.find(rid)
        if address is None:
            self._pci.add(rid, state.function)
            address = self._functions.need(rid)
        self._functions.bind(address)
        return address

    def verify(self, device: str, owner: int, ram: Extent) -> Comparison:
        """Compare the owner's translations with those our VMM has made; ConflictError when they differ."""
        return self._iommu.switch(parse_address(device), owner, *self._physical(ram), verify=True)

    def take(self, device: str, owner: int, ram: Extent) -> Comparison:
        """Switch the device's DMA to our translations; from then on it is this root's."""
        return self._iommu.switch(parse_address(device), owner, *self._physical(ram))

    def translation(self, device: str, ram: Extent) -> Translation:
        """The device's translations as they are now, whichever root owns it."""
        return self._iommu.device(parse_address(device), *self._physical(ram))

    def take_back(self, device: str, ram: Extent) -> None:
        """Switch the device back to this root after a handoff that failed, if the other root has it."""
        owner = self.translation(device, ram).owner
        if owner != self._root:
            self.take(device, owner, ram)

    def _take_part(self) -> None:
        """Load the modules; make the tables if this is the machine's first root, else join them."""
        load_modules()
        if self._iommu.info().on:
            return
        entry = next((entry for entry in self._arena.entries() if entry.name == TABLES), None)
        if entry is not None:
            self._iommu.join(*self._physical(entry.extent), self._root)
            return
        dmar = self._table("DMAR")
        registers = firmware.vtd_registers(dmar)
        remap = firmware.remaps_interrupts(dmar)
        self._functions.isolate()
        entry = self._arena.allocate(TABLES, TABLES_SIZE, 0)
        try:
            self._iommu.start(*self._physical(entry.extent), registers, self._root, remap=remap)
        except BaseException:
            self._arena.free(TABLES, entry.owner)
            raise

    def _join(self, state: DeviceState) -> Unit:
        if self._arena.find(TABLES).extent != state.tables:
            raise ConflictError("the arena has other IOMMU tables than the giver")
        self._take_part()
        unit = self._iommu.info()
        if (unit.tables, unit.size) != (state.tables_address, state.tables.size):
            raise ConflictError(
                f"the giver's IOMMU tables are at {state.tables_address:#x}, ours at {unit.tables:#x}"
            )
        return unit

    def _physical(self, extent: Extent) -> tuple[int, int]:
        return find_device().physical + extent.offset, extent.size

    def _table(self, name: str) -> bytes:
        try:
            return (self._acpi / name).read_bytes()
        except FileNotFoundError as error:
            what = f"this machine has no {WHAT[name]}: its firmware has no table {name}"
            raise ConflictError(what) from error


def load_modules() -> None:
    """Everything that passthrough needs; loaded only when a VM wants a device."""
    # Without interrupt remapping a guest could raise any interrupt: VFIO wants to be told that this is known.
    proc.run(["modprobe", "vfio_iommu_type1", "allow_unsafe_interrupts=1"])
    for module in ("multiroot_pci", "multiroot_iommu", "multiroot_vfio"):
        proc.run(["modprobe", module])
