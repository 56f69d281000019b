# SPDX-License-Identifier: GPL-2.0-or-later
"""As much of a kernel in memory as debuggers look at: page tables, names, symbols, struct pages, a stack."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from multiroot.ranges import Range
from multiroot.units import GIB, MIB, PAGE
from multiroot.vmcore.space import UnmappedError

BASE = 4 * GIB  # of the carve
SIZE = 4 * MIB
TEXT = 0xFFFF_FFFF_8000_0000
OFFSET = 0x1200_0000  # of KASLR
PHYS = BASE + MIB  # of the kernel's image, whose virtual address is TEXT + OFFSET
LINEAR = 0xFFFF_8EC0_4000_0000  # where KASLR has put all memory
RELEASE = "6.12.118-test"
_FLAGS = 0x63
_LARGE = 0xE3
STACK = TEXT + OFFSET + 0x10_0000
CODE = TEXT + OFFSET
PAGES = TEXT + OFFSET + 0xC_0000  # the struct page of the carve's first page
PAGE_SIZE = 64  # of a struct page
SECTION_BITS = 27


@dataclass
class SmallKernel:
    """`memory` is what lies at BASE. It is mapped by the image's addresses and in a row at LINEAR."""

    memory: bytearray = field(default_factory=lambda: bytearray(SIZE))
    more: str = ""  # lines of VMCOREINFO
    at: int = BASE + 0x3000  # of VMCOREINFO

    def __post_init__(self) -> None:
        self._map()
        names = struct.pack("<I", 1) + b"Linux".ljust(65, b"\0") + b"host".ljust(65, b"\0")
        self.put(CODE + 0x2000, names + RELEASE.encode().ljust(65, b"\0"))
        self.put_phys(self.at, self.text)

    @property
    def text(self) -> bytes:
        """Its VMCOREINFO."""
        lines = (
            f"OSRELEASE={RELEASE}",
            "BUILD-ID=00112233445566778899aabbccddeeff00112233",
            "PAGESIZE=4096",
            f"SYMBOL(init_uts_ns)={CODE + 0x2000:x}",
            f"SYMBOL(swapper_pg_dir)={CODE + 0x1000:x}",
            f"SYMBOL(_stext)={CODE:x}",
            f"SYMBOL(mem_section)={CODE + 0x4000:x}",
            f"SIZE(page)={PAGE_SIZE}",
            "OFFSET(page._mapcount)=48",
            "OFFSET(page.private)=40",
            "SIZE(mem_section)=32",
            "OFFSET(mem_section.section_mem_map)=0",
            f"NUMBER(SECTION_SIZE_BITS)={SECTION_BITS}",
            "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129",
            f"NUMBER(phys_base)={PHYS - OFFSET}",
            "NUMBER(pgtable_l5_enabled)=0",
            f"KERNELOFFSET={OFFSET:x}",
            "CRASHTIME=0",
        )
        return ("\n".join(lines) + "\n" + self.more).encode()

    @property
    def ranges(self) -> list[Range]:
        return [Range(BASE, SIZE)]

    def _map(self) -> None:
        """The image by a large page each; all of the carve in a row, too."""
        top, text_3, text_2, row_3, row_2 = (PHYS + 0x1000, *(BASE + 0x10000 + n * PAGE for n in range(4)))
        self._entry(top, CODE >> 39, text_3 | _FLAGS)
        self._entry(text_3, CODE >> 30, text_2 | _FLAGS)
        # Small pages: PHYS is not aligned to 2 MiB.
        tables = BASE + 0x20000
        for large in range(2):
            self._entry(text_2, (CODE >> 21) + large, tables + large * PAGE | _FLAGS)
            for small in range(512):
                phys = PHYS + (large * 512 + small) * PAGE
                if phys < BASE + SIZE:
                    self._entry(tables + large * PAGE, small, phys | _FLAGS)
        row = LINEAR + BASE
        self._entry(top, row >> 39, row_3 | _FLAGS)
        self._entry(row_3, row >> 30, row_2 | _FLAGS)
        for large in range(SIZE // (2 * MIB)):
            self._entry(row_2, (row >> 21) + large, BASE + large * 2 * MIB | _LARGE)

    def _entry(self, table: int, number: int, entry: int) -> None:
        self.put_phys(table + number % 512 * 8, struct.pack("<Q", entry))

    def put(self, virtual: int, data: bytes) -> None:
        """By an address of the image."""
        self.put_phys(virtual - CODE + PHYS, data)

    def put_phys(self, phys: int, data: bytes) -> None:
        self.memory[phys - BASE : phys - BASE + len(data)] = data

    def set_free(self, number: int, order: int) -> None:
        """Page `number` of the carve begins a free block."""
        section = BASE >> SECTION_BITS
        root = CODE + 0x5000
        self.put(CODE + 0x4000 + 8 * (section // 128), struct.pack("<Q", root))
        coded = (PAGES - BASE // PAGE * PAGE_SIZE) | 3
        self.put(root + section % 128 * 32, struct.pack("<Q", coded % (1 << 64)))
        self.put(PAGES + number * PAGE_SIZE + 48, struct.pack("<i", -129))
        self.put(PAGES + number * PAGE_SIZE + 40, struct.pack("<Q", order))

    # What the module shows of it.

    def read_memory(self, phys: int, size: int) -> bytes:
        assert phys >= BASE, hex(phys)
        assert phys + size <= BASE + len(self.memory), hex(phys)
        return bytes(self.memory[phys - BASE : phys - BASE + size])

    def find_word(self, phys: int, size: int, word: int) -> int:
        data = self.read_memory(phys, size)
        at = data.find(struct.pack("<Q", word))
        while at % 8 and at >= 0:
            at = data.find(struct.pack("<Q", word), at + 1)
        return phys + at if at >= 0 else 0

    def read(self, phys: int, size: int) -> bytes:
        """For page tables."""
        if phys < BASE or phys + size > BASE + len(self.memory):
            raise UnmappedError(f"nothing at {phys:#x}")
        return self.read_memory(phys, size)
