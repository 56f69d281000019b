# SPDX-License-Identifier: GPL-2.0-or-later
"""csrc/kmod/core/firmware.c, compiled for this program: all that later roots must stop is in the ledger."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest
from kernel_code import U64, compiled, loaded

from multiroot.device.uapi import Bridge, Ecam, Ledger, Window, WindowType, ffi, ledger_from_c, lib

E2BIG = -7
MEM, IO, PREFETCH = 1, 4, 8
DRHD, RMRR, IVHD, IVHD_AGAIN, IVMD, IOAPIC, LAPIC = 0, 1, 0x10, 0x40, 0x20, 1, 0


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("fw"), "acpi.h", "firmware_glue.c", "core/firmware.c")


@pytest.fixture
def machine(module: Path, tmp_path: Path) -> ctypes.CDLL:
    library = loaded(module, tmp_path)
    library.read_all.restype = ctypes.c_void_p
    return library


def give(machine: ctypes.CDLL, signature: bytes, header: int, *entries: bytes) -> None:
    """A table of the firmware; `header` bytes come before its entries."""
    body = b"".join(entries)
    text = (signature + struct.pack("<I", header + len(body))).ljust(header, b"\0") + body
    machine.table(text, ctypes.c_size_t(len(text)))


def read(machine: ctypes.CDLL) -> tuple[int, Ledger]:
    error = ctypes.c_int()
    address = machine.read_all(ctypes.byref(error))
    return error.value, ledger_from_c(ffi.cast("struct multiroot_ledger *", address))


def drhd(registers: int) -> bytes:
    return struct.pack("<HHBBHQ", DRHD, 16, 0, 0, 0, registers)


def ivhd(kind: int, registers: int) -> bytes:
    size = 24 if kind == IVHD else 40
    return struct.pack("<BBHHHQ", kind, 0, size, 0, 0, registers).ljust(size, b"\0")


def mcfg(base: int, segment: int, first: int, last: int) -> bytes:
    return struct.pack("<QHBBI", base, segment, first, last, 0)


def test_all_units_of_intel_are_in_the_ledger(machine: ctypes.CDLL) -> None:
    rmrr = struct.pack("<HHHHQQ", RMRR, 24, 0, 0, 0x1000, 0x1FFF)
    give(machine, b"DMAR", 48, drhd(0xFED90000), rmrr, drhd(0xFED91000))
    assert read(machine)[1].units == (0xFED90000, 0xFED91000)


def test_all_units_of_amd_are_in_the_ledger_once(machine: ctypes.CDLL) -> None:
    memory = struct.pack("<BBHH", IVMD, 0, 32, 0).ljust(32, b"\0")
    units = [ivhd(IVHD, 0xFD000000), ivhd(IVHD, 0xFD100000), memory, ivhd(IVHD_AGAIN, 0xFD000000)]
    give(machine, b"IVRS", 48, *units)
    error, ledger = read(machine)
    assert (error, ledger.units) == (0, (0xFD000000, 0xFD100000))


def test_all_host_bridges_with_their_windows_and_all_segments(machine: ctypes.CDLL) -> None:
    give(machine, b"MCFG", 44, mcfg(0xB0000000, 0, 0, 255), mcfg(0xC0000000, 1, 0, 31))
    machine.bus(0, 0, 0x3F)
    machine.window(0, U64(0x1000), U64(0xFFFF), IO)
    machine.window(2, U64(0xC0000000), U64(0xC0FFFFFF), MEM)
    machine.bus(0, 0x40, 0xFF)
    machine.window(0, U64(0x4000000000), U64(0x40FFFFFFFF), MEM | PREFETCH)
    machine.bus(0x10000, 0, 31)  # of a driver's own
    machine.bus(1, 0, 31)
    error, ledger = read(machine)
    assert error == 0
    assert ledger.ecams == (Ecam(0xB0000000, 0, 255), Ecam(0xC0000000, 0, 31, segment=1))
    assert ledger.bridges == (Bridge(0, 0, 0x3F), Bridge(0, 0x40, 0xFF), Bridge(1, 0, 31))
    assert ledger.windows == (
        Window(0x1000, 0xF000, WindowType.PORTS, 0),
        Window(0xC0000000, 0x1000000, WindowType.MEMORY, 0),
        Window(0x4000000000, 0x100000000, WindowType.PREFETCHABLE, 1),
    )


@pytest.mark.parametrize("signature", [b"MCFG", b"APIC", b"DMAR", b"IVRS"])
@pytest.mark.parametrize(
    ("header", "entries"),
    [(36, b""), (48, b"\0"), (48, b"\0\0"), (48, b"\0\0\0\0\0\0\0\0\0\0"), (48, b"\1\xff\xff\xff\0\0\0\0")],
)
def test_tables_that_are_cut_off_are_read_no_further(
    machine: ctypes.CDLL, signature: bytes, header: int, entries: bytes
) -> None:
    give(machine, signature, header, entries)
    error, ledger = read(machine)
    assert error == 0
    assert (ledger.units, ledger.ecams) == ((), ())


def test_what_the_ledger_has_no_room_for_is_not_passed_over(machine: ctypes.CDLL) -> None:
    """A unit or a bridge that later roots do not know of they could not stop."""
    units = [drhd(0xFED00000 + number * 0x1000) for number in range(lib.MULTIROOT_LEDGER_UNITS + 1)]
    give(machine, b"DMAR", 48, *units[:-1])
    error, ledger = read(machine)
    assert (error, len(ledger.units)) == (0, lib.MULTIROOT_LEDGER_UNITS)
    pin = struct.pack("<BBBBII", IOAPIC, 12, 0, 0, 0xFEC00000, 0)
    give(machine, b"APIC", 44, *[pin] * (lib.MULTIROOT_LEDGER_IOAPICS + 1))
    assert read(machine)[0] == E2BIG


def test_more_host_bridges_than_there_is_room_for(machine: ctypes.CDLL) -> None:
    for number in range(lib.MULTIROOT_LEDGER_BRIDGES):
        machine.bus(0, number, number)
    assert read(machine)[0] == 0
    machine.bus(0, 99, 99)
    assert read(machine)[0] == E2BIG
