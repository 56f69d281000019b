# SPDX-License-Identifier: GPL-2.0-or-later
"""A ledger that is in memory before the module is loaded: of an earlier boot, or of roots that live.

Looked at through /proc/kcore, which has a segment of an ELF file for each range of RAM that the kernel knows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from multiroot.device.uapi import LEDGER_SIZE, ffi, lib
from multiroot.ranges import Range

_MAGIC = int.from_bytes(b"LMREDGR1", "little")  # csrc/kmod/core/core.h
_HEADER = struct.Struct("<32xQ14xHH4x")  # elf(5): where the segments' table is, bytes of an entry, entries
_SEGMENT = struct.Struct("<8xQ8xQQ16x")  # offset in the file, physical address, bytes


@dataclass(frozen=True)
class LeftLedger:
    """Its version, and roots that live by it: their numbers by the hardware ids of the CPUs they were started
    on. Of another version nothing more is known.
    """

    abi: int
    lives: dict[int, int]


def look(kcore: Path, where: Range) -> LeftLedger | None:
    """The one at `where`; None if there is none, or that memory cannot be seen. Raises OSError."""
    if not kcore.exists():
        return None
    with kcore.open("rb") as file:
        data = _read(file, where)
    return _parse(data) if len(data) == LEDGER_SIZE else None


def _read(file: BinaryIO, where: Range) -> bytes:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return b""
    table, size, count = _HEADER.unpack(header)
    file.seek(table)
    for _ in range(count):
        offset, phys, length = _SEGMENT.unpack_from(file.read(size).ljust(_SEGMENT.size, b"\0"))
        if phys <= where.base and where.end <= phys + length:
            file.seek(offset + where.base - phys)
            return file.read(where.size)
    return b""


def _parse(data: bytes) -> LeftLedger | None:
    raw = ffi.from_buffer("struct multiroot_ledger *", data)
    if raw.magic != _MAGIC:
        return None
    if raw.abi != lib.MULTIROOT_ABI or raw.size != LEDGER_SIZE:
        return LeftLedger(raw.abi, {})
    first = {raw.boot_hardware_id: lib.MULTIROOT_CPU_ONLINE}
    return LeftLedger(
        raw.abi,
        {
            hardware_id: raw.cpu[hardware_id].root
            for hardware_id in range(lib.MULTIROOT_LEDGER_CPUS)
            if raw.cpu[hardware_id].state in (lib.MULTIROOT_CPU_STARTED, first.get(hardware_id))
        },
    )
