# SPDX-License-Identifier: GPL-2.0-or-later
"""What the module shows of a small kernel's carve."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmcore.small_kernel import BASE, SIZE, SmallKernel

from multiroot.device.uapi import SHARED_SIZE
from multiroot.ranges import Range
from multiroot.units import KIB, MIB

LOW = Range(0x20000, 128 * KIB)
CARVE = Range(BASE - 4 * MIB, 4 * MIB + SIZE)  # boot area and shared area before the kernel's memory
SHARED = BASE - SHARED_SIZE


@dataclass
class Info:
    carve_base: int = CARVE.base
    carve_size: int = CARVE.size
    low_base: int = LOW.base
    low_size: int = LOW.size
    child_control: int = SHARED


@dataclass
class Device:
    """The module: it refuses the shared area and what is not in the carve."""

    kernel: SmallKernel = field(default_factory=SmallKernel)
    other: dict[int, bytes] = field(default_factory=dict)
    told: Info = field(default_factory=Info)

    def info(self) -> Info:
        return self.told

    def read_memory(self, phys: int, size: int) -> bytes:
        if phys >= BASE:
            return self.kernel.read_memory(phys, size)
        assert phys + size <= SHARED or (LOW.base <= phys and phys + size <= LOW.end), hex(phys)
        data = bytearray(size)
        for at, some in self.other.items():
            if phys <= at < phys + size:
                data[at - phys : at - phys + len(some)] = some
        return bytes(data[:size])

    def find_word(self, phys: int, size: int, word: int) -> int:
        return self.kernel.find_word(phys, size, word) if phys >= BASE else 0
