# SPDX-License-Identifier: GPL-2.0-or-later
"""What the firmware's table DMAR says about the IOMMU; pure, bytes in."""

from __future__ import annotations

import struct

from multiroot.errors import BadRequestError, ConflictError

_HEADER = 36  # bytes of every ACPI table before its own fields
_DMAR_UNITS = 48
_DMAR_FLAGS = 37
_DMAR_REMAPPING = 1
_DRHD = 0


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
