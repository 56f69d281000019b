# SPDX-License-Identifier: GPL-2.0-or-later
"""The ACPI tables of a new root: all it ever learns about the machine around its CPUs and memory.

RSDP -> XSDT -> FADT (-> DSDT), MADT, NFIT. Section numbers are of the ACPI specification 6.5. Field
offsets are from the start of the table named.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from multiroot.arch.x86 import LAPIC_MAX_ID  # larger ids need a local x2APIC structure
from multiroot.errors import BadRequestError
from multiroot.kexec.x86 import aml
from multiroot.ranges import Range, align_up

OEM_ID = b"MULTRT"
OEM_TABLE_ID = b"MULTROOT"
CREATOR_ID = b"MRPY"
HEADER_SIZE = 36
TABLE_ALIGNMENT = 64

# FADT fixed feature flags (table 5.10) and IA-PC boot architecture flags (table 5.11).
FADT_WBINVD = 1 << 0
FADT_PWR_BUTTON = 1 << 4  # set: no fixed-hardware button
FADT_SLP_BUTTON = 1 << 5
FADT_FORCE_PHYSICAL = 1 << 19
FADT_HW_REDUCED = 1 << 20
BOOT_NO_VGA = 1 << 2
BOOT_NO_ASPM = 1 << 4
BOOT_NO_CMOS_RTC = 1 << 5

MAX_APIC_ID = 0xFFF  # the names of CPUs to come have three digits for it
LAPIC_ADDRESS = 0xFEE00000
LAPIC_ENABLED = 1 << 0
LAPIC_ONLINE_CAPABLE = 1 << 1
LEDGER_CPU_SIZE = 8  # sizeof(struct multiroot_ledger_cpu), which begins with the owner's number
SET_ASIDE_UID = 0xFE
IOAPIC_ID = 0xF0
UART_PORTS_AT = (0x3F8, 0x2F8)  # ttyS0, ttyS1
UART_PORTS = 8

# "Byte-addressable persistent memory" 66F0D379-B4F3-4074-AC43-0D3318B78CDB, as stored (5.2.25.2).
PMEM_GUID = bytes.fromhex("79d3f066f3b47440ac430d3318b78cdb")
PMEM_ATTRIBUTES = 0x8008  # EFI_MEMORY_WB | EFI_MEMORY_NV

_FIRST_WITH_BSP_CHECK = (6, 9)


class ForeignBsp(enum.Enum):
    """What a kernel not running on the machine's boot CPU does about the first CPU listed."""

    UNCHECKED = "takes all CPUs as listed"
    FIRST_IS_SET_ASIDE = "sets the first one aside as the real boot CPU"


def foreign_bsp(version: tuple[int, int]) -> ForeignBsp:
    """Since 6.9 the first LAPIC listed is taken for the machine's boot CPU and never started.

    If it is the CPU that the kernel runs on, it suspects a crash kernel and limits itself to that
    one CPU. So one that is not ours has to come first there, and must not be there for older
    kernels, which would try to start it.
    """
    return ForeignBsp.FIRST_IS_SET_ASIDE if version >= _FIRST_WITH_BSP_CHECK else ForeignBsp.UNCHECKED


@dataclass(frozen=True)
class Hardware:
    """What the tables are to describe. `apic_ids`: CPUs of the root, the one it starts on first.

    `later_apic_ids`: CPUs that it may take over one day, when `ledger_cpus`, the ledger's table of CPUs at
    that physical address, names `root` as their owner. `uart`: which serial port is its own, 0 or 1.
    """

    apic_ids: tuple[int, ...]
    machine_boot_apic_id: int
    ioapic: int
    pmem: tuple[Range, ...]
    foreign_bsp: ForeignBsp
    root: int = 0
    ledger_cpus: int = 0
    uart: int = 0
    later_apic_ids: tuple[int, ...] = ()
    node_tables: tuple[bytes, ...] = ()


def build(hardware: Hardware, area: Range) -> bytes:
    """All tables, laid out for physical address `area.base`, which is where the RSDP is.

    Raises BadRequestError when they do not fit into `area`.
    """
    blob = bytearray(align_up(_RSDP.size, TABLE_ALIGNMENT))
    dsdt_at = _append(blob, area, dsdt(hardware))
    tables = [_append(blob, area, fadt(dsdt_at)), _append(blob, area, madt(hardware))]
    if hardware.pmem:
        tables.append(_append(blob, area, nfit(hardware.pmem)))
    # What they say of the machine's memory and CPUs is true in every root, also of those that come later.
    tables += [_append(blob, area, data) for data in hardware.node_tables]
    xsdt_at = _append(blob, area, xsdt(tables))
    blob[: _RSDP.size] = rsdp(xsdt_at)
    if len(blob) > area.size:
        raise BadRequestError(
            f"ACPI tables of {len(blob)} bytes do not fit into {area.size}", "use fewer CPUs"
        )
    return bytes(blob)


def _append(blob: bytearray, area: Range, data: bytes) -> int:
    """Add a table to the blob; returns its physical address."""
    at = area.base + len(blob)
    blob += data.ljust(align_up(len(data), TABLE_ALIGNMENT), b"\0")
    return at


_RSDP = struct.Struct("<8sB6sBIIQB3x")


def rsdp(xsdt_at: int) -> bytes:
    """Root system description pointer, revision 2 (5.2.5.3)."""
    data = bytearray(_RSDP.pack(b"RSD PTR ", 0, OEM_ID, 2, 0, _RSDP.size, xsdt_at, 0))
    data[8] = _checksum(data[:20])
    data[32] = _checksum(data)
    return bytes(data)


def xsdt(tables: Sequence[int]) -> bytes:
    """Extended system description table (5.2.8)."""
    return table(b"XSDT", 1, b"".join(struct.pack("<Q", at) for at in tables))


def fadt(dsdt_at: int) -> bytes:
    """Fixed ACPI description table, revision 6.5 (5.2.9): hardware-reduced, nothing but the DSDT's address.

    Hardware-reduced keeps the new root off PM timer, SCI and PIC; physical destination mode is
    forced because flat logical APIC ids of two roots would collide.
    """
    body = bytearray(276 - HEADER_SIZE)
    flags = FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_FORCE_PHYSICAL | FADT_HW_REDUCED
    struct.pack_into("<H", body, 109 - HEADER_SIZE, BOOT_NO_VGA | BOOT_NO_ASPM | BOOT_NO_CMOS_RTC)
    struct.pack_into("<I", body, 112 - HEADER_SIZE, flags)
    body[131 - HEADER_SIZE] = 5  # minor version
    struct.pack_into("<Q", body, 140 - HEADER_SIZE, dsdt_at)
    return table(b"FACP", 6, bytes(body))


def madt(hardware: Hardware) -> bytes:
    """Multiple APIC description table (5.2.12): the root's CPUs, and an I/O APIC that is only memory.

    With no I/O APIC at all, Linux falls back to the PIC and rewrites the ELCR, which belong to the old root.
    """
    entries = [_local_apic(uid, apic_id) for uid, apic_id in enumerate(hardware.apic_ids)]
    entries += [_local_apic(uid, apic_id, LAPIC_ONLINE_CAPABLE) for uid, apic_id in _later(hardware)]
    on_real_bsp = hardware.apic_ids[0] == hardware.machine_boot_apic_id
    if hardware.foreign_bsp is ForeignBsp.FIRST_IS_SET_ASIDE and not on_real_bsp:
        entries.insert(0, _local_apic(SET_ASIDE_UID, _apic_id_to_set_aside(hardware)))
    entries.append(struct.pack("<BBBxII", 1, 12, IOAPIC_ID, hardware.ioapic, 0))
    return table(b"APIC", 5, struct.pack("<II", LAPIC_ADDRESS, 0) + b"".join(entries))


def _apic_id_to_set_aside(hardware: Hardware) -> int:
    """The machine's boot CPU if this root never gets it, else the highest id that no CPU has."""
    known = {*hardware.apic_ids, *hardware.later_apic_ids}
    if hardware.machine_boot_apic_id not in known:
        return hardware.machine_boot_apic_id
    return max(set(range(LAPIC_MAX_ID + 1)) - known)


def _later(hardware: Hardware) -> Iterable[tuple[int, int]]:
    """UID and APIC id of the CPUs that are not there yet."""
    return enumerate(hardware.later_apic_ids, len(hardware.apic_ids))


def _local_apic(uid: int, apic_id: int, flags: int = LAPIC_ENABLED) -> bytes:
    """Processor local APIC (5.2.12.2) or, for ids beyond 254, local x2APIC structure (5.2.12.12)."""
    if apic_id <= LAPIC_MAX_ID and uid <= 0xFF:
        return struct.pack("<BBBBI", 0, 8, uid, apic_id, flags)
    return struct.pack("<BBHIII", 9, 16, 0, apic_id, flags, uid)


def nfit(pmem: Sequence[Range]) -> bytes:
    """NVDIMM firmware interface table (5.2.25): one system physical address range for each of `pmem`."""
    ranges = (
        struct.pack("<HHHHII16sQQQ", 0, 56, index, 0, 0, 0, PMEM_GUID, item.base, item.size, PMEM_ATTRIBUTES)
        for index, item in enumerate(pmem, 1)
    )
    return table(b"NFIT", 1, bytes(4) + b"".join(ranges))


def dsdt(hardware: Hardware) -> bytes:
    """Differentiated system description table (5.2.11.1): the UART, the root of the NVDIMMs, CPUs to come.

    The UART has no interrupt, which makes 8250_pnp poll it; ACPI0012 (9.20.2) is what the nfit
    driver binds to.
    """
    present = aml.name("_STA", aml.integer(0x0F))
    uart = aml.device(
        "UAR0",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.integer(0)),
        present,
        aml.name("_CRS", aml.resource_template(aml.io_ports(UART_PORTS_AT[hardware.uart], UART_PORTS))),
    )
    nvdimm_root = aml.device("NVDR", aml.name("_HID", aml.string("ACPI0012")), present)
    cpus = [
        _processor(uid, apic_id, hardware.root, hardware.ledger_cpus + apic_id * LEDGER_CPU_SIZE)
        for uid, apic_id in _later(hardware)
    ]
    return table(b"DSDT", 2, aml.scope("_SB", uart, nvdimm_root, *cpus))


def processor_name(apic_id: int) -> str:
    """What csrc/kmod/core/adopt.c calls the device of a CPU that may come, below \\_SB."""
    return f"C{apic_id:03X}"


def _processor(uid: int, apic_id: int, root: int, owner_at: int) -> bytes:
    """A processor device (8.4) that is present as soon as the ledger's word at `owner_at` says `root`."""
    here = aml.if_equal(aml.name_string("OWNR"), aml.integer(root), aml.give(aml.integer(0x0F)))
    return aml.device(
        processor_name(apic_id),
        aml.name("_HID", aml.string("ACPI0007")),
        aml.name("_UID", aml.integer(uid)),
        aml.memory_word("LEDG", "OWNR", owner_at),
        aml.method("_STA", here, aml.give(aml.integer(0))),
        aml.name("_MAT", aml.buffer(_local_apic(uid, apic_id))),
    )


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """`body` behind a system description table header with its checksum (5.2.6)."""
    length = HEADER_SIZE + len(body)
    header = struct.pack(
        "<4sIBB6s8sI4sI", signature, length, revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR_ID, 1
    )
    data = bytearray(header + body)
    data[9] = _checksum(data)
    return bytes(data)


def _checksum(data: bytes | bytearray) -> int:
    """The byte that makes all bytes add up to 0 modulo 256."""
    return -sum(data) & 0xFF
