# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes devices for VMs, describes them to other roots, and takes them over from other roots.

The hard part of a device's state, its IOMMU tables, lies in the arena in an extent of its own, which
every root maps. What is described here is the soft part; it travels with the handoff.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multiroot import json_files, proc
from multiroot.arena.allocator import Extent
from multiroot.arena.arena import Arena
from multiroot.arena.backing import find_device
from multiroot.arena.layout import RESERVED
from multiroot.device.passthrough import (
    TABLES_SIZE,
    Bar,
    Comparison,
    Function,
    Iommu,
    Pci,
    Translation,
    Unit,
    segment_of,
)
from multiroot.device.uapi import Ecam
from multiroot.errors import BadRequestError, ConflictError
from multiroot.passthrough import firmware
from multiroot.passthrough.functions import Functions, parse_address, rid_of

log = logging.getLogger(__name__)

VERSION = 1
TABLES = f"{RESERVED}iommu-tables"
ACPI = Path("/sys/firmware/acpi/tables")
SYSCTL = Path("/proc/sys/kernel")
# From here on a kernel warns of each device whose driver was there before its IOMMU (drivers/iommu/iommu.c,
# __iommu_probe_device), and ours is there when a VM first wants a device.
_WARNS_FROM = (6, 15)
_ADDRESSES = ("config", "start", "size")  # fields of 64 bits; the others have 32


@dataclass(frozen=True)
class Surroundings:
    """What devices have to do with beside the arena. `root` is this root's number. `ecams` tells where
    configuration space is. `run_dir` outlives an agent.
    """

    root: int
    ecams: Callable[[], Sequence[Ecam]]
    run_dir: Path
    acpi: Path = ACPI
    sysctl: Path = SYSCTL


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
        self,
        arena: Arena,
        around: Surroundings,
        functions: Functions | None = None,
        iommu: Iommu | None = None,
        pci: Pci | None = None,
    ) -> None:
        self._arena = arena
        self._around = around
        self._root = around.root
        self._functions = functions or Functions()
        self._iommu = iommu or Iommu()
        self._pci = pci or Pci()

    def acquire(self, device: str) -> str:
        """Make `device` ready for a VM of this root and return its address here.

        Raises BadRequestError or ConflictError that says what stands in the way.
        """
        rid = parse_address(device)
        address = self._functions.need(rid)
        self._check_pins()
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
            function=self._told(rid) or self._functions.describe(rid, self._around.ecams()),
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
        self._check_pins()
        unit = self._join(state)
        if unit.capabilities != state.capabilities:
            raise ConflictError("the giver sees an IOMMU of other capabilities")
        self._remember(state.function)
        address = self._functions.find(rid)
        if address is None:
            self._pci.add(segment_of(rid), state.function)
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

    def staying(self) -> dict[str, str]:
        """Functions of VMs in the other root that would end with this one: they are parts of cards here."""
        if self._tables() is None:
            return {}
        cards = {address: self._functions.card_of(address) for address in self._functions.ours()}
        return {
            address: card
            for address, card in cards.items()
            if card and self._iommu.owner(rid_of(address)) not in (0, self._root)
        }

    def stop_ended(self) -> None:
        """Stop the devices of roots that have ended: they go on writing to those roots' and VMs' memory."""
        if self._tables() is not None:
            self._take_part()

    def inherit(self) -> None:
        """All other roots have ended. What this root's VMs own goes on; all other devices can be adopted."""
        if self._tables() is None:
            return
        load_modules()
        if self._iommu.info().on:
            for address in self._functions.ours():
                segment, rid = int(address.partition(":")[0], 16), rid_of(address)
                if segment and self._iommu.owner(rid) != self._root:
                    self._functions.unbind(address)
                    self._pci.remove(segment)
                    log.info("%s, which a root that has ended owned, is no longer shown as handed", address)
        self._take_part()

    def _take_part(self) -> None:
        """Load the modules; make the tables if this is the machine's first root, else join them. Devices of
        roots that have ended become this root's.
        """
        load_modules()
        if self._iommu.info().on:
            self._iommu.inherit()
            return
        extent = self._tables()
        if extent is not None:
            self._iommu.join(*self._physical(extent))
            return
        dmar = self._dmar()
        self._check_warnings()
        registers = firmware.vtd_registers(dmar)
        remap = firmware.remaps_interrupts(dmar)
        self._functions.isolate()
        entry = self._arena.allocate(TABLES, TABLES_SIZE, 0)
        try:
            self._iommu.start(*self._physical(entry.extent), registers, remap=remap)
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

    def _tables(self) -> Extent | None:
        """The extent with the IOMMU's tables, None as long as no root has made them."""
        return next((entry.extent for entry in self._arena.entries() if entry.name == TABLES), None)

    def _dmar(self) -> bytes:
        try:
            return (self._around.acpi / "DMAR").read_bytes()
        except FileNotFoundError as error:
            raise ConflictError(
                "this root knows of no IOMMU: its firmware has no table DMAR",
                "in a machine that has one, start the first VM with a device in the first root",
            ) from error

    @staticmethod
    def _check_pins() -> None:
        """Raises ConflictError where VFIO can't have guests' memory, before anything has changed."""
        found = find_device()
        if not found.kind.pins:
            raise ConflictError(
                f"VMs own no devices here: VFIO can't pin their memory, for the arena is {found.kind}",
                "start such a VM where the arena is /dev/dax* or /dev/multiroot-arena",
            )

    def _check_warnings(self) -> None:
        """Raises ConflictError when this kernel would panic at what it says of an IOMMU that comes late."""
        release = (self._around.sysctl / "osrelease").read_text()
        panics = (self._around.sysctl / "panic_on_warn").read_text()
        major, minor = re.findall(r"\d+", release)[:2]
        if int(panics) and (int(major), int(minor)) >= _WARNS_FROM:
            raise ConflictError(
                "this kernel warns when an IOMMU comes later than drivers, and it panics at a warning",
                "for as long as no VM owns a device: sysctl kernel.panic_on_warn=0",
            )

    def _told_file(self, rid: int) -> Path:
        return self._around.run_dir / f"{rid:04x}.json"

    def _remember(self, function: Function) -> None:
        """Keep what a giver told, for this root's sysfs says less of the function."""
        self._around.run_dir.mkdir(parents=True, exist_ok=True)
        json_files.write(self._told_file(function.rid), asdict(function))

    def _told(self, rid: int) -> Function | None:
        """What a giver told, None if none did. Raises MultirootError when the file is damaged."""

        def mine(data: dict[str, Any]) -> Function:
            made = _function(data)
            if made.rid != rid:
                raise ValueError(f"it tells of function {made.rid:#x}")
            return made

        file = self._told_file(rid)
        hint = (
            f"if the device is no virtual function, this root knows it as well: `rm {shlex.quote(str(file))}`"
        )
        return json_files.read(file, dict, mine, hint)


def _function(data: dict[str, Any]) -> Function:
    """A function from what `asdict` made of one, after JSON. Raises the usual errors for anything else."""
    made = Function(**{**data, "bars": tuple(Bar(**bar) for bar in data["bars"])})
    for name, value in (*asdict(made).items(), *(item for bar in made.bars for item in asdict(bar).items())):
        if name != "bars" and not _fits(name, value):
            raise ValueError(f"{name} cannot be {value!r}")
    return made


def _fits(name: str, value: object) -> bool:
    """Whether a function, or a message, can hold the value in that field."""
    if name == "virtual":
        return isinstance(value, bool)
    return type(value) is int and 0 <= value < 1 << (64 if name in _ADDRESSES else 32)


def load_modules() -> None:
    """Everything that passthrough needs; loaded only when a VM wants a device."""
    # Without interrupt remapping a guest could raise any interrupt: VFIO wants to be told that this is known.
    proc.run(["modprobe", "vfio_iommu_type1", "allow_unsafe_interrupts=1"])
    for module in ("multiroot_pci", "multiroot_iommu", "multiroot_vfio"):
        proc.run(["modprobe", module])
