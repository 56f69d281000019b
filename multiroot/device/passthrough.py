# SPDX-License-Identifier: GPL-2.0-or-later
"""/dev/multiroot_iommu and /dev/multiroot_pci, opened: devices that change their root at work."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiroot.device.errors import refusal
from multiroot.device.uapi import ffi, lib

IOMMU = Path("/dev/multiroot_iommu")
PCI = Path("/dev/multiroot_pci")
TABLES_ABI: int = lib.MULTIROOT_IOMMU_ABI
_LEGACY_END = 1 << 20
TABLES_SIZE = 16 << 20  # bytes: page tables for some GiB of guest memory in each root


@dataclass(frozen=True)
class Fault:
    """DMA that was blocked: requester id, address, VT-d's reason code."""

    rid: int
    address: int
    reason: int
    write: bool


@dataclass(frozen=True)
class Unit:
    """The IOMMU; `on` when this root takes part, `last` the last of the `faults` it saw. `remapping` is
    where the interrupt remapping table is, 0 when interrupts are not remapped.
    """

    on: bool
    tables: int
    size: int
    registers: int
    remapping: int
    capabilities: int
    faults: int
    last: Fault | None


@dataclass(frozen=True)
class Translation:
    """What is in place for a device. `leaves` counts 4 KiB pages into the range asked for, with `crc`;
    `remapped` its interrupts that go through the remapping table.
    """

    owner: int
    did: int
    context: int
    table: int
    leaves: int
    crc: int
    remapped: int


@dataclass(frozen=True)
class Comparison:
    """How the owner's translations compare with ours, in 4 KiB pages; times in ns."""

    same: int
    elsewhere: int
    verify_ns: int
    switch_ns: int


@dataclass(frozen=True)
class Bar:
    """A memory BAR; `bits` are the low 4 of its register."""

    start: int
    size: int
    bits: int


@dataclass(frozen=True)
class Function:
    """A PCI function as its root knows it. `config` is the physical address of its configuration space."""

    rid: int
    config: int
    virtual: bool
    vendor: int
    device: int
    subsystem_vendor: int
    subsystem_device: int
    class_revision: int
    bars: tuple[Bar, ...]


class _Module:
    """One of the two devices. What changes something needs the claim, which is kept from then on: nobody else
    may change what this agent believes to be as it left it.
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        self._prefix = prefix
        self._claimed: int | None = None

    def _ask(self, operation: str, argument: Any) -> int:
        """0 or an errno, of what changes nothing."""
        with _opened(self._path) as fd:
            return _ioctl(fd, operation, argument)

    def _change(self, operation: str, argument: Any) -> int:
        """0 or an errno. ClaimError when another program has the claim."""
        if self._claimed is None:
            self._claimed = self._claim()
        return _ioctl(self._claimed, operation, argument)

    def _must_ask(self, operation: str, argument: Any, what: str) -> None:
        if number := self._ask(operation, argument):
            raise refusal(operation, what, number)

    def _must_change(self, operation: str, argument: Any, what: str) -> None:
        if number := self._change(operation, argument):
            raise refusal(operation, what, number)

    def _claim(self) -> int:
        operation = f"{self._prefix}_IOC_CLAIM"
        fd = _open(self._path)
        number = _ioctl(fd, operation, ffi.NULL)
        if number:
            os.close(fd)
            raise refusal(operation, f"cannot claim {self._path}", number)
        return fd


class Iommu(_Module):
    """The IOMMU module."""

    def __init__(self, path: Path = IOMMU) -> None:
        super().__init__(path, "IOMMU")

    def info(self) -> Unit:
        """The unit, whether this root takes part or not."""
        raw = ffi.new("struct multiroot_iommu_info *")
        self._must_ask("IOMMU_IOC_INFO", raw, "cannot ask the IOMMU module")
        last = Fault(raw.fault_device, raw.fault_address, raw.fault_reason, bool(raw.fault_write))
        return Unit(
            on=bool(raw.flags & lib.MULTIROOT_IOMMU_ON),
            tables=raw.tables,
            size=raw.size,
            registers=raw.registers,
            remapping=raw.remapping,
            capabilities=raw.capabilities,
            faults=raw.faults,
            last=last if raw.faults else None,
        )

    def start(self, tables: int, size: int, registers: int, *, remap: bool) -> None:
        """Make tables at a physical address and turn translation on, all devices passed through; with `remap`
        interrupts of devices that VMs own are remapped, if the unit can.
        """
        flags = lib.MULTIROOT_IOMMU_REMAP if remap else 0
        raw = ffi.new("struct multiroot_iommu_start *", (tables, size, registers, flags, 0))
        self._must_change("IOMMU_IOC_START", raw, f"cannot start the IOMMU at {registers:#x}")

    def join(self, tables: int, size: int) -> None:
        """Take part in the tables that another root made, and inherit as `inherit` does."""
        raw = ffi.new("struct multiroot_iommu_start *", (tables, size, 0, 0, 0))
        self._must_change("IOMMU_IOC_JOIN", raw, f"cannot join the IOMMU tables at {tables:#x}")

    def inherit(self) -> int:
        """Become the owner of the devices of all roots that have ended; how many there were. Those that
        worked for a VM do no DMA any more.
        """
        raw = ffi.new("struct multiroot_iommu_inherit *")
        self._must_change("IOMMU_IOC_INHERIT", raw, "cannot inherit devices")
        return int(raw.devices)

    def device(self, rid: int, ram_base: int, ram_size: int) -> Translation:
        """What is in place for a device; the range says what of it to count."""
        raw = ffi.new(
            "struct multiroot_iommu_device *", {"rid": rid, "ram_base": ram_base, "ram_size": ram_size}
        )
        self._must_ask("IOMMU_IOC_DEVICE", raw, f"cannot look at {address(rid)}")
        return Translation(raw.owner, raw.did, raw.context, raw.table, raw.leaves, raw.crc, raw.remapped)

    def owner(self, rid: int) -> int:
        """Root that has a device, 0 when no VM ever owned it."""
        raw = ffi.new("struct multiroot_iommu_device *", {"rid": rid})
        number = self._ask("IOMMU_IOC_DEVICE", raw)
        if number not in (0, errno.ENOENT):
            raise refusal("IOMMU_IOC_DEVICE", f"cannot look at {address(rid)}", number)
        return 0 if number else int(raw.owner)

    def switch(
        self, rid: int, owner: int, ram_base: int, ram_size: int, *, verify: bool = False
    ) -> Comparison:
        """Take a device over from `owner`; with `verify` only compare translations into the VM's memory, and
        not those below 1 MiB: what is RAM there the chipset says, whose state has not been loaded then.

        ConflictError, and nothing changed, when they differ or somebody else owns it.
        """
        flags = lib.MULTIROOT_IOMMU_VERIFY if verify else 0
        raw = ffi.new(
            "struct multiroot_iommu_switch *",
            {
                "rid": rid,
                "flags": flags,
                "from": owner,
                "ram_base": ram_base,
                "ram_size": ram_size,
                "iova_base": _LEGACY_END if verify else 0,
            },
        )
        what = f"cannot {'verify' if verify else 'take over'} the DMA of {address(rid)}"
        number = self._change("IOMMU_IOC_SWITCH", raw)
        if number == errno.EXDEV:
            what += f" ({raw.different} pages, the first at {raw.first:#x})"
        if number:
            raise refusal("IOMMU_IOC_SWITCH", what, number)
        return Comparison(raw.same, raw.elsewhere, raw.verify_ns, raw.switch_ns)


class Pci(_Module):
    """The PCI module."""

    def __init__(self, path: Path = PCI) -> None:
        super().__init__(path, "PCI")

    def add(self, segment: int, function: Function) -> None:
        """Make a PCI segment with this function, held: nothing this kernel does to it reaches it."""
        self._must_change("PCI_IOC_ADD", _function(segment, function), f"cannot add {address(function.rid)}")

    def remove(self, segment: int) -> None:
        """Take the segment away; ConflictError while a driver has its function."""
        raw = ffi.new("struct multiroot_pci_function *", {"segment": segment})
        self._must_change("PCI_IOC_REMOVE", raw, f"cannot remove PCI segment {segment:#x}")


def segment_of(rid: int) -> int:
    """The PCI segment in which a function appears that a root was handed; never 0, where a root's own are."""
    return rid


def address(rid: int) -> str:
    """A requester id as bus:device.function."""
    return f"{rid >> 8:02x}:{rid >> 3 & 31:02x}.{rid & 7}"


def _function(segment: int, function: Function) -> Any:
    return ffi.new(
        "struct multiroot_pci_function *",
        {
            "segment": segment,
            "rid": function.rid,
            "config": function.config,
            "flags": lib.MULTIROOT_PCI_VF if function.virtual else 0,
            "vendor": function.vendor,
            "device": function.device,
            "subsystem_vendor": function.subsystem_vendor,
            "subsystem_device": function.subsystem_device,
            "class_revision": function.class_revision,
            "bar": [(bar.start, bar.size, bar.bits, 0) for bar in function.bars],
        },
    )


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise refusal("OPEN_PASSTHROUGH", f"cannot open {path}", error.errno or errno.EIO) from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = _open(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _ioctl(fd: int, operation: str, argument: Any) -> int:
    """0 or an errno; begun again when a signal came in between."""
    request = getattr(lib, f"MULTIROOT_{operation}")
    while lib.ioctl(fd, request, ffi.cast("void *", argument)) < 0:
        if ffi.errno != errno.EINTR:
            return int(ffi.errno)
    return 0
