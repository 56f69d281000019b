# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a root: many threads at once on the VFIO file of a device with MSI-X, as a VMM never would.

python3 -c THIS ADDRESS ROUNDS: prints one line of JSON. VFIO's numbers are those of linux/vfio.h.
"""

import ctypes
import errno
import fcntl
import json
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from multiroot.passthrough.functions import Functions

SET_IOMMU, SET_CONTAINER, GET_DEVICE, SET_IRQS, FEATURE = 102, 104, 106, 110, 117
MSIX, NO_DATA, EVENTFDS, TRIGGER = 2, 1, 4, 0x20
STATE, SET = 2, 1 << 17
STOP, RUNNING, RESUMING = 1, 2, 4
STREAM, WRITERS, VECTORS = 16, 4, 2


def vfio(number: int) -> int:
    return 0x3B << 8 | number


class Device:
    def __init__(self, address: str) -> None:
        group = Path(f"/sys/bus/pci/devices/{address}/iommu_group").resolve().name
        self.container = os.open("/dev/vfio/vfio", os.O_RDWR)
        self.group = os.open(f"/dev/vfio/{group}", os.O_RDWR)
        fcntl.ioctl(self.group, vfio(SET_CONTAINER), struct.pack("i", self.container))
        fcntl.ioctl(self.container, vfio(SET_IOMMU), 1)
        name = ctypes.create_string_buffer(address.encode())
        self.fd = ctypes.CDLL(None).ioctl(self.group, vfio(GET_DEVICE), name)
        self.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(VECTORS)]

    def state(self, state: int) -> int:
        """Go to a state; the file that belongs to it, or -1."""
        raw = bytearray(struct.pack("IIIi", 16, STATE | SET, state, -1))
        fcntl.ioctl(self.fd, vfio(FEATURE), raw)
        return struct.unpack("IIIi", raw)[3]

    def interrupts(self, on: bool) -> None:
        flags, count = (EVENTFDS, VECTORS) if on else (NO_DATA, 0)
        head = struct.pack("IIIII", 20 + 4 * count, flags | TRIGGER, MSIX, 0, count)
        fcntl.ioctl(self.fd, vfio(SET_IRQS), head + struct.pack(f"{count}i", *self.events[:count]))


def written(fd: int) -> int:
    """How many of so many bytes are taken."""
    try:
        return os.write(fd, b"x" * (STREAM // 2 + 1))
    except OSError:
        return 0


def refusal(device: Device) -> int:
    """The error with which resuming does not end, 0: it does."""
    try:
        device.state(STOP)
    except OSError as error:
        return error.errno
    return 0


def streams(device: Device, threads: ThreadPoolExecutor, rounds: int) -> int:
    """The most that a stream of 16 bytes took from several writers at once."""
    most = 0
    for _ in range(rounds):
        device.state(STOP)
        fd = device.state(RESUMING)
        most = max(most, sum(threads.map(written, [fd] * WRITERS)))
        for _ in range(2):
            assert refusal(device) == errno.EINVAL, "it is not whole"
        os.close(fd)
        break_off(device)
    return most


def break_off(device: Device) -> None:
    """Resuming ends with a stream that is whole, or with the device's file: this is another one."""
    os.close(device.fd)
    name = ctypes.create_string_buffer(sys.argv[1].encode())
    device.fd = ctypes.CDLL(None).ioctl(device.group, vfio(GET_DEVICE), name)


def turn(device: Device, rounds: int) -> int:
    for on in (True, False) * rounds:
        with suppress(OSError):  # another thread has turned them off
            device.interrupts(on)
    return rounds


def stop_and_go(device: Device, rounds: int) -> int:
    for _ in range(rounds):
        device.state(STOP)
        device.state(RUNNING)
    return rounds


def main(address: str, rounds: int) -> None:
    Functions().bind(address)
    device = Device(address)
    with ThreadPoolExecutor(WRITERS) as threads:
        most = streams(device, threads, rounds)
        device.interrupts(True)
        device.interrupts(False)
        turns = [threads.submit(work, device, rounds) for work in (turn, stop_and_go, turn, stop_and_go)]
        done = [each.result() for each in turns]
    sys.stdout.write(json.dumps({"most": most, "turns": done}))


main(sys.argv[1], int(sys.argv[2]))
