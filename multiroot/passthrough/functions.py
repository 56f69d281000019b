# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI functions as this root's sysfs shows them (Documentation/ABI/testing/sysfs-bus-pci)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from multiroot.device.passthrough import Bar, Function, segment_of
from multiroot.device.passthrough import address as in_segment
from multiroot.device.uapi import Ecam
from multiroot.errors import BadRequestError, ConflictError

SYS = Path("/sys")
DRIVER = "multiroot-vfio"

_ADDRESS = re.compile(r"(?:0000:)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
# linux/ioport.h
_IO, _MEM, _MEM_64, _PREFETCH = 0x100, 0x200, 0x100000, 0x2000
_BARS = 6
# linux/pci_regs.h
_BRIDGE = 0x0604  # class of a PCI-to-PCI bridge
_STATUS_CAPABILITIES = 0x10
_MSIX = 0x11
_EXTENDED = 0x100
_ATS, _PRI, _PASID, _ACS = 0x0F, 0x13, 0x1B, 0x0D
# Source validation, request and completion redirect, upstream forwarding: what Linux wants for a group.
_ACS_ISOLATION = 0x1D
_REFUSED = {_ATS: "ATS", _PRI: "page requests", _PASID: "PASID"}


def parse_address(text: str) -> int:
    """Requester id of "[0000:]BB:DD.F"; raises BadRequestError for anything else."""
    match = _ADDRESS.fullmatch(text.lower())
    if not match or int(match[2], 16) > 31:
        raise BadRequestError(f"not a PCI address: {text!r}", "write it like 01:00.0")
    return int(match[1], 16) << 8 | int(match[2], 16) << 3 | int(match[3])


def rid_of(address: str) -> int:
    """Requester id of a function by its address in sysfs, whatever its segment."""
    return parse_address(address.partition(":")[2])


class Functions:
    """The PCI functions of this root; `sys` is where its sysfs is."""

    def __init__(self, sys: Path = SYS) -> None:
        self._sys = sys
        self._devices = sys / "bus/pci/devices"

    def find(self, rid: int) -> str | None:
        """Address, with segment, that a function has in this root; None if it is not there.

        In other segments, of the machine or of a driver (VMD), the same numbers are another function's.
        """
        found = (f"{segment:04x}:{in_segment(rid)}" for segment in (0, segment_of(rid)))
        return next((each for each in found if (self._devices / each).exists()), None)

    def need(self, rid: int) -> str:
        """The same; raises BadRequestError if it is not there."""
        address = self.find(rid)
        if address is None:
            raise BadRequestError(
                f"no PCI device {in_segment(rid)} in this root",
                "see /sys/bus/pci/devices",
            )
        return address

    def check(self, address: str) -> None:
        """Raises ConflictError, naming why, for a device that could not go along."""
        folder = self._devices / address
        group = folder / "iommu_group/devices"
        if not group.is_dir():
            raise ConflictError(f"{address} is behind no IOMMU", "the machine needs one, and multiroot_iommu")
        # A bridge above it does no DMA of its own, and its driver may stay.
        others = sorted(
            path.name for path in group.iterdir() if path.name != address and not _is_bridge(path)
        )
        if others:
            raise ConflictError(f"{address} shares its IOMMU group with {', '.join(others)}")
        check_capabilities(address, (folder / "config").read_bytes())
        driver = self.driver(address)
        if driver not in ("", DRIVER) and self._in_use(folder):
            raise ConflictError(f"{address} is in use by {driver}", "take its interface down first")

    def isolate(self) -> None:
        """Have the ports send everything up to the IOMMU (PCI Express specification 6.0, section 6.12).

        A kernel told at its start that there is no IOMMU has not done so, and would put all functions of a
        card in one group, its virtual ones among them. It must come before the IOMMU, which makes the groups.
        """
        for folder in sorted(self._devices.glob("*")):
            if not _is_bridge(folder):
                continue
            config = folder / "config"
            for at, control in acs_wanted(config.read_bytes()):
                with config.open("r+b", buffering=0) as file:
                    file.seek(at)
                    file.write(control.to_bytes(2, "little"))

    def driver(self, address: str) -> str:
        """Name of the driver that has it, "" for none."""
        link = self._devices / address / "driver"
        return link.readlink().name if link.is_symlink() else ""

    def bind(self, address: str) -> None:
        """Give it to our driver; whatever had it lets go first."""
        folder = self._devices / address
        if self.driver(address) == DRIVER:
            return
        (folder / "driver_override").write_text(DRIVER)
        if self.driver(address):
            (folder / "driver/unbind").write_text(address)
        (self._sys / "bus/pci/drivers_probe").write_text(address)
        if self.driver(address) != DRIVER:
            raise ConflictError(f"{address} was not taken by {DRIVER}", "see the kernel log")

    def unbind(self, address: str) -> None:
        """Have its driver let go of it, whichever that is."""
        if self.driver(address):
            (self._devices / address / "driver/unbind").write_text(address)

    def ours(self) -> list[str]:
        """Addresses of the functions that no driver but ours may have."""
        overrides = sorted(self._devices.glob("*/driver_override"))
        return [path.parent.name for path in overrides if path.read_text().strip() == DRIVER]

    def card_of(self, address: str) -> str:
        """Address of the card that a virtual function is a part of, "" for any other function."""
        link = self._devices / address / "physfn"
        return link.readlink().name if link.is_symlink() else ""

    def describe(self, rid: int, ecams: Sequence[Ecam]) -> Function:
        """All that another root must know to show the function without touching it."""
        folder = self._devices / self.need(rid)
        return Function(
            rid=rid,
            config=config_address(ecams, rid),
            virtual=bool(self.card_of(folder.name)),
            vendor=_number(folder / "vendor"),
            device=_number(folder / "device"),
            subsystem_vendor=_number(folder / "subsystem_vendor"),
            subsystem_device=_number(folder / "subsystem_device"),
            class_revision=_number(folder / "class") << 8 | _number(folder / "revision"),
            bars=parse_resources((folder / "resource").read_text()),
        )

    @staticmethod
    def _in_use(folder: Path) -> bool:
        """Whether a network interface of it is up, or a block device of it mounted or otherwise held."""
        up = any(int((path / "flags").read_text(), 16) & 1 for path in folder.glob("net/*") if path.is_dir())
        return up or any(path.is_dir() and any(path.iterdir()) for path in folder.glob("**/block/*/holders"))


def config_address(ecams: Sequence[Ecam], rid: int) -> int:
    """Physical address of a function's 4 KiB of configuration space; ConflictError if it is not in memory."""
    for ecam in ecams:
        if ecam.has(0, rid >> 8):
            return ecam.base + (rid << 12)
    raise ConflictError(f"PCI bus {rid >> 8:#x} has no memory-mapped configuration space")


def parse_resources(text: str) -> tuple[Bar, ...]:
    """The memory BARs in a `resource` file, six; size 0 where there is none."""
    bars = []
    for line in text.splitlines()[:_BARS]:
        start, end, flags = (int(word, 16) for word in line.split())
        if not flags & _MEM:
            bars.append(Bar(0, 0, 0))
            continue
        bits = (4 if flags & _MEM_64 else 0) | (8 if flags & _PREFETCH else 0)
        bars.append(Bar(start, end - start + 1, bits))
    return tuple(bars)


def check_capabilities(address: str, config: bytes) -> None:
    """Raises ConflictError for a device without MSI-X, or with ATS, page requests or PASID turned on."""
    if _MSIX not in _capabilities(config):
        raise ConflictError(
            f"{address} has no MSI-X", "INTx and MSI can't be moved: a root has no interrupt router"
        )
    for kind, at in _extended(config):
        # The enable bit is bit 15 of ATS's control word at +6, bit 0 of the other two's.
        control = int.from_bytes(config[at + 6 : at + 8], "little") if kind in _REFUSED else 0
        if kind == _PRI:
            control = int.from_bytes(config[at + 4 : at + 6], "little")
        if control & (0x8000 if kind == _ATS else 1):
            raise ConflictError(f"{address} has {_REFUSED[kind]} turned on", "that can't be handed over")


def acs_wanted(config: bytes) -> list[tuple[int, int]]:
    """Where a port's ACS control word is and what it should be, empty when it has none or is right."""
    wanted = []
    for kind, at in _extended(config):
        if kind == _ACS:
            can, is_on = (int.from_bytes(config[at + off : at + off + 2], "little") for off in (4, 6))
            if is_on != (should := is_on | can & _ACS_ISOLATION):
                wanted.append((at + 6, should))
    return wanted


def _capabilities(config: bytes) -> dict[int, int]:
    found: dict[int, int] = {}
    if len(config) < 0x40 or not config[6] & _STATUS_CAPABILITIES:
        return found
    at = config[0x34] & ~3
    while 0x40 <= at < 0xFF and config[at] not in found:
        found[config[at]] = at
        at = config[at + 1] & ~3
    return found


def _extended(config: bytes) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    at = _EXTENDED
    while _EXTENDED <= at <= len(config) - 8 and at not in (offset for _, offset in found):
        head = int.from_bytes(config[at : at + 4], "little")
        if head in (0, 0xFFFFFFFF):
            break
        found.append((head & 0xFFFF, at))
        at = head >> 20 & ~3
    return found


def _is_bridge(folder: Path) -> bool:
    return _number(folder / "class") >> 8 == _BRIDGE


def _number(path: Path) -> int:
    return int(path.read_text(), 16)
