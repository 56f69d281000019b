# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what kexec/ writes, from the specifications and not with its code: page tables and ACPI tables."""

from __future__ import annotations

import struct
from dataclasses import dataclass


class Memory:
    """Physical memory made of segments; reading outside of them fails."""

    def __init__(self, pieces: dict[int, bytes]) -> None:
        self.pieces = pieces

    def read(self, address: int, size: int) -> bytes:
        for base, data in self.pieces.items():
            if base <= address and address + size <= base + len(data):
                return data[address - base : address - base + size]
        raise LookupError(f"nothing at {address:#x}")

    def word(self, address: int) -> int:
        return int(struct.unpack("<Q", self.read(address, 8))[0])


def translate(memory: Memory, cr3: int, virtual: int) -> int | None:
    """Intel SDM vol. 3A, 4.5.4: PML4E, PDPTE, PDE (2 MiB pages), PTE; None when not present."""
    table = cr3
    for level in (39, 30, 21, 12):
        entry = memory.word(table + (virtual >> level & 0x1FF) * 8)
        if not entry & 1:
            return None
        address = entry & 0x000FFFFFFFFFF000
        if level == 12 or (level in (30, 21) and entry & 0x80):
            mask = (1 << level) - 1
            return (address & ~mask) | (virtual & mask)
        table = address
    raise AssertionError("unreachable")


@dataclass
class Table:
    signature: str
    address: int
    data: bytes


def acpi_tables(memory: Memory, rsdp: int) -> dict[str, Table]:
    """Every table reachable from the RSDP, its checksum verified."""
    head = memory.read(rsdp, 36)
    assert head[:8] == b"RSD PTR "
    assert sum(head[:20]) % 256 == sum(head) % 256 == 0
    assert head[15] == 2
    found: dict[str, Table] = {}

    def load(address: int) -> Table:
        size = struct.unpack("<I", memory.read(address + 4, 4))[0]
        data = memory.read(address, size)
        assert sum(data) % 256 == 0, f"checksum of {data[:4]!r}"
        table = Table(data[:4].decode(), address, data)
        found[table.signature] = table
        return table

    xsdt = load(struct.unpack_from("<Q", head, 24)[0])
    assert xsdt.signature == "XSDT"
    for (address,) in struct.iter_unpack("<Q", xsdt.data[36:]):
        table = load(address)
        if table.signature == "FACP":
            load(struct.unpack_from("<Q", table.data, 140)[0])
    return found


def madt_entries(data: bytes) -> list[tuple[int, bytes]]:
    """(type, body) of each interrupt controller structure."""
    entries, at = [], 44
    while at < len(data):
        kind, size = data[at], data[at + 1]
        entries.append((kind, data[at + 2 : at + size]))
        at += size
    assert at == len(data)
    return entries
