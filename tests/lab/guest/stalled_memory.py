# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a lab root: ioctls of /dev/multiroot with user memory that answers only when this program lets it.

Arguments: carve base and size (bytes, reserved at boot). Prints what was seen, a word each. The memory is
userfaultfd's (ioctl_userfaultfd(2)); one of a FUSE file would be as slow.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import struct
import sys
import threading

from multiroot.device.handle import Device
from multiroot.device.uapi import SHARED_SIZE, ffi, lib

SYS_USERFAULTFD = 323
API, REGISTER, ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
MODE_MISSING = 1
MESSAGE_SIZE, PAGEFAULT = 32, 0x12
PAGE = mmap.PAGESIZE
LOW, LOW_SIZE = 0x20000, 0x20000
ANSWER_S = 60


class Stalled:
    """A page that is not there until it is asked to be."""

    def __init__(self) -> None:
        # One that blocks is always ready to poll(2), and there would be nothing to wait for.
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self.fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_USERFAULTFD, flags)
        assert self.fd >= 0, os.strerror(ctypes.get_errno())
        fcntl.ioctl(self.fd, API, struct.pack("QQQ", 0xAA, 0, 0))
        self.memory = mmap.mmap(-1, PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        fcntl.ioctl(self.fd, REGISTER, struct.pack("QQQQ", self.address, PAGE, MODE_MISSING, 0))

    def wait(self) -> None:
        """Until somebody waits for the page."""
        assert select.select([self.fd], [], [], ANSWER_S)[0], "nobody touched it"
        assert os.read(self.fd, MESSAGE_SIZE)[0] == PAGEFAULT

    def answer(self) -> None:
        fcntl.ioctl(self.fd, ZEROPAGE, struct.pack("QQQq", self.address, PAGE, 0, 0))


def attempt(request: int, base: int, size: int, fd: int) -> str:
    """What an ioctl says after others were answered, and the carve went, while it waited for its memory."""
    stalled, said = Stalled(), []
    segment = ffi.new("struct multiroot_segment *", (base, PAGE, stalled.address))

    def call() -> None:
        result = lib.ioctl(fd, request, ffi.cast("void *", segment))
        said.append("done" if result >= 0 else errno.errorcode[ffi.errno])

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    stalled.wait()
    with Device() as other:
        assert other.info().carved
    assert lib.ioctl(fd, lib.MULTIROOT_IOC_UNCARVE, ffi.NULL) == 0
    stalled.answer()
    thread.join(ANSWER_S)
    return said[0]


def main() -> None:
    base, size = (int(word, 0) for word in sys.argv[1:])
    signal.alarm(2 * ANSWER_S)  # a lock that is held ends the program
    fd = os.open("/dev/multiroot", os.O_RDWR)
    assert lib.ioctl(fd, lib.MULTIROOT_IOC_CLAIM, ffi.NULL) == 0
    for request in (lib.MULTIROOT_IOC_READ, lib.MULTIROOT_IOC_WRITE):
        carve = ffi.new("struct multiroot_carve *", (base, size, LOW, LOW_SIZE, base + SHARED_SIZE))
        assert lib.ioctl(fd, lib.MULTIROOT_IOC_CARVE, ffi.cast("void *", carve)) == 0
        print(attempt(request, base, size, fd))  # noqa: T201


main()
