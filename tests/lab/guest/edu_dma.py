# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a root: lets QEMU's edu device (docs/specs/edu.rst) do DMA through VFIO, mapped and not.

python3 -c THIS ADDRESS: prints one line of JSON. VFIO's numbers are those of linux/vfio.h.
"""

import ctypes
import fcntl
import json
import mmap
import os
import struct
import sys
import time
from pathlib import Path

from multiroot.device.passthrough import Iommu
from multiroot.passthrough.functions import Functions

IOVA, UNMAPPED, BUFFER, PAGE = 0x100000, 0x800000, 0x40000, 4096
TEXT = b"through the IOMMU"
SET_IOMMU, GROUP_STATUS, SET_CONTAINER, GET_DEVICE, REGION_INFO, MAP_DMA = 102, 103, 104, 106, 108, 113
CONFIG_REGION = 7
TO_DEVICE, TO_MEMORY = 1, 3


def vfio(number: int) -> int:
    return 0x3B << 8 | number


class Edu:
    def __init__(self, address: str) -> None:
        group = Path(f"/sys/bus/pci/devices/{address}/iommu_group").resolve().name
        self.container = os.open("/dev/vfio/vfio", os.O_RDWR)
        self.group = os.open(f"/dev/vfio/{group}", os.O_RDWR)
        fcntl.ioctl(self.group, vfio(SET_CONTAINER), struct.pack("i", self.container))
        fcntl.ioctl(self.container, vfio(SET_IOMMU), 1)
        self.memory = mmap.mmap(-1, 2 * PAGE)
        user = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        fcntl.ioctl(self.container, vfio(MAP_DMA), struct.pack("IIQQQ", 32, 3, user, IOVA, 2 * PAGE))
        name = ctypes.create_string_buffer(address.encode())
        self.device = ctypes.CDLL(None).ioctl(self.group, vfio(GET_DEVICE), name)
        config = self.region(CONFIG_REGION)[1]
        os.pwrite(self.device, struct.pack("H", 6), config + 4)  # memory, bus master
        size, offset = self.region(0)
        self.bar = mmap.mmap(self.device, size, offset=offset)

    def region(self, index: int) -> tuple[int, int]:
        raw = bytearray(struct.pack("IIIIQQ", 32, 0, index, 0, 0, 0))
        fcntl.ioctl(self.device, vfio(REGION_INFO), raw)
        return struct.unpack("IIIIQQ", raw)[4:]

    def dma(self, source: int, target: int, size: int, command: int) -> None:
        words = ctypes.c_uint64 * 4
        registers = words.from_buffer(self.bar, 0x80)
        registers[0], registers[1], registers[2], registers[3] = source, target, size, command
        while registers[3] & 1:
            time.sleep(0.01)


def faults_after(before: int) -> int:
    """The unit is asked for faults a few times a second."""
    until = time.monotonic() + 30
    while Iommu().info().faults == before and time.monotonic() < until:
        time.sleep(0.05)
    return Iommu().info().faults - before


def main(address: str) -> None:
    Functions().bind(address)
    edu = Edu(address)
    edu.memory[: len(TEXT)] = TEXT
    edu.dma(IOVA, BUFFER, len(TEXT), TO_DEVICE)
    edu.dma(BUFFER, IOVA + PAGE, len(TEXT), TO_MEMORY)
    before = Iommu().info().faults
    edu.dma(BUFFER, UNMAPPED, len(TEXT), TO_MEMORY)
    seen = faults_after(before)
    last = Iommu().info().last
    sys.stdout.write(
        json.dumps(
            {
                "mapped": edu.memory[PAGE : PAGE + len(TEXT)].decode(errors="replace"),
                "faults_before": before,
                "faults": seen,
                "rid": last.rid if last else 0,
                "address": last.address if last else 0,
                "write": bool(last and last.write),
            }
        )
    )


main(sys.argv[1])
