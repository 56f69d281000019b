# SPDX-License-Identifier: GPL-2.0-or-later
"""A device with MSI-X as VFIO shows it, for programs that run in a root with this file beside them. VFIO's
numbers are those of linux/vfio.h.
"""

import ctypes
import fcntl
import os
import struct
from pathlib import Path

SET_IOMMU, SET_CONTAINER, GET_DEVICE, SET_IRQS, FEATURE = 102, 104, 106, 110, 117
MSIX, NO_DATA, EVENTFDS, TRIGGER = 2, 1, 4, 0x20
STATE, SET = 2, 1 << 17
STOP, RUNNING, RESUMING = 1, 2, 4
VECTORS = 2


def vfio(number: int) -> int:
    return 0x3B << 8 | number


class Device:
    def __init__(self, address: str) -> None:
        group = Path(f"/sys/bus/pci/devices/{address}/iommu_group").resolve().name
        self.container = os.open("/dev/vfio/vfio", os.O_RDWR)
        self.group = os.open(f"/dev/vfio/{group}", os.O_RDWR)
        fcntl.ioctl(self.group, vfio(SET_CONTAINER), struct.pack("i", self.container))
        fcntl.ioctl(self.container, vfio(SET_IOMMU), 1)
        self.address = address
        name = ctypes.create_string_buffer(address.encode())
        self.fd = ctypes.CDLL(None).ioctl(self.group, vfio(GET_DEVICE), name)
        self.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(VECTORS)]

    def reopen(self) -> None:
        """Resuming ends with a stream that is whole, or with the device's file: this is another one."""
        os.close(self.fd)
        name = ctypes.create_string_buffer(self.address.encode())
        self.fd = ctypes.CDLL(None).ioctl(self.group, vfio(GET_DEVICE), name)

    def state(self, state: int) -> int:
        """Go to a state; the file that belongs to it, or -1."""
        raw = bytearray(struct.pack("IIIi", 16, STATE | SET, state, -1))
        fcntl.ioctl(self.fd, vfio(FEATURE), raw)
        return struct.unpack("IIIi", raw)[3]

    def interrupts(self, on: bool) -> None:
        flags, count = (EVENTFDS, VECTORS) if on else (NO_DATA, 0)
        head = struct.pack("IIIII", 20 + 4 * count, flags | TRIGGER, MSIX, 0, count)
        fcntl.ioctl(self.fd, vfio(SET_IRQS), head + struct.pack(f"{count}i", *self.events[:count]))
