# SPDX-License-Identifier: GPL-2.0-or-later
"""What the firmware's tables say about the IOMMU and PCI configuration space; pure, bytes in."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from multiroot.errors import BadRequestError, ConflictError

_HEADER = 36  # bytes of every ACPI table before its own fields
_DMAR_UNITS = 48
_DMAR_FLAGS = 37
_DMAR_REMAPPING = 1
_MCFG_ENTRIES = 44
_DRHD = 0


@dataclass(frozen=True)
class Ecam:
    """Configuration space of a PCI segment's buses `first` to `last`; `base` is that of bus 0."""

    base: int
    segment: int
    first: int
    last: int


def vtd_registers(dmar: bytes) -> int:
    """Physical address of the machine's one VT-d unit (VT-d specification 4.1, section 8).

    Raises ConflictError when there are several: a device could be behind any of them.
    """
    units = []
    at = _DMAR_UNITS
    while at + 4 <= len(dmar):
        kind, length = struct.unpack_from("<HH", dmar, at)
        if length < 4 or at + length > len(dmar):
            raise BadRequestError("the firmware's DMAR table is malformed")
        if kind == _DRHD and length >= 16:
            units.append(struct.unpack_from("<Q", dmar, at + 8)[0])
        at += length
    if not units:
        raise ConflictError("the firmware's DMAR table names no IOMMU")
    if len(units) > 1:
        raise ConflictError(f"this machine has {len(units)} IOMMUs, only one is supported so far")
    return int(units[0])


def remaps_interrupts(dmar: bytes) -> bool:
    """Whether interrupts can be remapped (DMAR's INTR_REMAP flag, same section)."""
    return len(dmar) > _DMAR_FLAGS and bool(dmar[_DMAR_FLAGS] & _DMAR_REMAPPING)


def ecams(mcfg: bytes) -> list[Ecam]:
    """All ranges of the MCFG table (PCI Firmware specification 3.3, section 4.1.2)."""
    entries = range(_MCFG_ENTRIES, len(mcfg) - 15, 16)
    return [Ecam(*struct.unpack_from("<QHBB", mcfg, at)) for at in entries]


def config_address(mcfg: bytes, rid: int) -> int:
    """Physical address of a function's 4 KiB of configuration space in segment 0."""
    bus = rid >> 8
    for ecam in ecams(mcfg):
        if ecam.segment == 0 and ecam.first <= bus <= ecam.last:
            return ecam.base + (rid << 12)
    raise ConflictError(f"PCI bus {bus:#x} has no memory-mapped configuration space")
