# SPDX-License-Identifier: GPL-2.0-or-later
"""The zero page, struct boot_params (Documentation/arch/x86/zero-page.rst)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from multiroot.kexec.boot import MemoryEntry
from multiroot.kexec.x86 import e820
from multiroot.kexec.x86.image import HEADER_START, LOADED_HIGH, KernelImage
from multiroot.ranges import Range
from multiroot.units import PAGE

# Offsets into boot_params.
ACPI_RSDP_ADDR = 0x070
EXT_RAMDISK_IMAGE = 0x0C0
EXT_RAMDISK_SIZE = 0x0C4
EXT_CMD_LINE_PTR = 0x0C8
E820_ENTRIES = 0x1E8
VID_MODE = 0x1FA
TYPE_OF_LOADER = 0x210
LOADFLAGS = 0x211
RAMDISK_IMAGE = 0x218
RAMDISK_SIZE = 0x21C
CMD_LINE_PTR = 0x228
E820_TABLE = 0x2D0

LOADER_UNDEFINED = 0xFF  # "no assigned ID" (boot.rst, type_of_loader)
VID_MODE_NORMAL = 0xFFFF  # vga=normal: leave the display, which is the old root's, alone


def encode(
    image: KernelImage,
    *,
    cmdline: int,
    initrd: Range | None,
    rsdp: int,
    memory: Sequence[MemoryEntry],
) -> bytes:
    """One page for RSI at the 64-bit entry point.

    `cmdline` and `rsdp` are physical addresses, `initrd` the exact bytes of it. All else stays 0, the
    sentinel at 0x1ef included, which says that nothing below the setup header is rubbish.
    """
    page = bytearray(PAGE)
    page[HEADER_START : HEADER_START + len(image.setup_header)] = image.setup_header
    page[TYPE_OF_LOADER] = LOADER_UNDEFINED
    page[LOADFLAGS] |= LOADED_HIGH
    struct.pack_into("<H", page, VID_MODE, VID_MODE_NORMAL)
    _split(page, cmdline, CMD_LINE_PTR, EXT_CMD_LINE_PTR)
    _split(page, initrd.base if initrd else 0, RAMDISK_IMAGE, EXT_RAMDISK_IMAGE)
    _split(page, initrd.size if initrd else 0, RAMDISK_SIZE, EXT_RAMDISK_SIZE)
    struct.pack_into("<Q", page, ACPI_RSDP_ADDR, rsdp)
    table = e820.encode(memory)
    page[E820_ENTRIES] = len(memory)
    page[E820_TABLE : E820_TABLE + len(table)] = table
    return bytes(page)


def _split(page: bytearray, value: int, low: int, high: int) -> None:
    """Store a 64-bit value in the two halves that boot_params has for it."""
    struct.pack_into("<I", page, low, value & 0xFFFFFFFF)
    struct.pack_into("<I", page, high, value >> 32)
