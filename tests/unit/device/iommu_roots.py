# SPDX-License-Identifier: GPL-2.0-or-later
"""Roots whose multiroot_iommu.ko have one memory, each a library of its own (kernel/iommu_glue.c)."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

from kernel_code import U64

BASE, SIZE, PAGE = 1 << 32, 8 << 20, 4096
RID = 1 << 8  # of the card
LOCK, REMAPPING, QUEUE, PARTS, DEVICES = 0x0C, 0x28, 0x30, 0x48, 0x50
REGISTERS, ROOT_TABLE = 0x18, 0x20  # struct multiroot_iommu_tables


class Root:
    """One root's module."""

    def __init__(self, path: Path, number: int, memory: ctypes.Array[ctypes.c_char], seen: int) -> None:
        self.library = ctypes.CDLL(str(path))
        self.number = number
        ctypes.c_void_p.in_dll(self.library, "memory").value = ctypes.addressof(memory)
        ctypes.c_void_p.in_dll(self.library, "seen").value = seen
        U64.in_dll(self.library, "memory_size").value = SIZE
        self.library.attach.restype = ctypes.c_void_p
        self.library.owned.restype = self.library.remap.restype = ctypes.c_bool
        self.living(1, 2)
        ctypes.c_uint32.in_dll(self.library, "this_root").value = number

    def living(self, *roots: int) -> None:
        """What the ledger says to it."""
        lives = (ctypes.c_ubyte * 16).in_dll(self.library, "lives")
        for root in range(16):
            lives[root] = root in roots

    def __getitem__(self, name: str) -> int:
        return ctypes.c_int.in_dll(self.library, name).value

    def __setitem__(self, name: str, value: int) -> None:
        ctypes.c_int.in_dll(self.library, name).value = value

    @property
    def waited_us(self) -> int:
        return ctypes.c_ulong.in_dll(self.library, "waited_us").value

    def did(self) -> bytes:
        """What happened to its card, a letter each."""
        return (ctypes.c_char * 16).in_dll(self.library, "did").value

    def start(self) -> int:
        return int(self.library.start(U64(SIZE)))

    def join(self, peer: int) -> int:
        self.living(peer, self.number)
        return int(self.library.join(U64(SIZE)))

    def attach(self, phys: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.library.attach(U64(PAGE), U64(phys)))

    def take_over(self, giver: int, ram: int) -> int:
        return int(self.library.take_over(RID, giver, U64(ram), U64(PAGE)))


class Machine:
    """Memory that outlives roots."""

    def __init__(self, library: Path, folder: Path) -> None:
        # Where the host's pages begin is where the machine's do.
        self.raw = ctypes.create_string_buffer(SIZE + PAGE)
        start = -ctypes.addressof(self.raw) % PAGE
        self.memory = (ctypes.c_char * SIZE).from_buffer(self.raw, start)
        self.memory.raw = b"\xa5" * SIZE  # what somebody left there
        self.seen = ctypes.create_string_buffer(self.memory.raw, SIZE)  # by a unit that is not coherent
        self.library, self.folder = library, folder

    def root(self, number: int) -> Root:
        """A root comes up; a copy, so that its variables are its own."""
        path = self.folder / f"root-{number}.so"
        copy = Path(shutil.copy(self.library, path))
        return Root(copy, number, self.memory, ctypes.addressof(self.seen))

    def word(self, offset: int, size: int = 4) -> int:
        return int.from_bytes(self.memory[offset : offset + size], "little")

    def put(self, offset: int, value: int, size: int = 4) -> None:
        self.memory[offset : offset + size] = value.to_bytes(size, "little")

    @property
    def parts(self) -> list[int]:
        """Which root has each part."""
        return [self.word(PARTS), self.word(PARTS + 4)]

    @property
    def context_at(self) -> int:
        """Where the first device's context entry is."""
        return self.word(DEVICES + 8, 8) - BASE

    @property
    def context(self) -> int:
        """Its first word."""
        return self.word(self.context_at, 8)

    @property
    def interrupt(self) -> int:
        """First word of the remapping of the first device's first interrupt."""
        return self.word(self.word(REMAPPING, 8) - BASE, 8)
