# SPDX-License-Identifier: GPL-2.0-or-later
"""Tap devices (Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import MultirootError
from multiroot.net.ports import IFREQ_FLAGS
from multiroot.processes import copied_fd

TUN = "/dev/net/tun"
NAME_PATTERN = "mrtap%d"  # the kernel fills in the next free number

_TUNSETIFF = 0x400454CA
_TUNGETVNETHDRSZ = 0x800454D7
# struct virtio_net_hdr, with which a tap is made and which packet sockets have: which parts of checksums and
# segments stay undone. A VMM may make that of its tap longer.
VNET_HEADER = 10
LARGEST = 1 << 17  # bytes of a frame with its header
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_MULTI_QUEUE = 0x0100
_IFF_VNET_HDR = 0x4000  # lets virtio-net pass checksums and segments unchanged


@dataclass(frozen=True)
class TapDevice:
    """An open tap, with a descriptor for each of its queues. It is not persistent: the kernel removes it when
    nobody holds any of them any more.
    """

    name: str
    fds: tuple[int, ...]

    @property
    def fd(self) -> int:
        """The first one."""
        return self.fds[0]

    def close(self) -> None:
        """This process needs it no more."""
        for fd in self.fds:
            os.close(fd)


def open_tap(pattern: str = NAME_PATTERN, queues: int = 1) -> TapDevice:
    """Make a tap. Raises MultirootError when the kernel has no tap devices or this user may not make one."""
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    name, fds = pattern, []
    try:
        for _ in range(queues):
            fd, name = _open_queue(name, flags)
            fds.append(fd)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return TapDevice(name, tuple(fds))


def _open_queue(name: str, flags: int) -> tuple[int, str]:
    """A queue of the tap called so, which is made if there is none, and the tap's name."""
    try:
        fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise MultirootError(f"cannot open {TUN}: {error.strerror}", "modprobe tun") from error
    try:
        answer = fcntl.ioctl(fd, _TUNSETIFF, IFREQ_FLAGS.pack(name.encode(), flags))
    except OSError as error:
        os.close(fd)
        raise MultirootError(f"cannot make a tap device: {error.strerror}") from error
    made: bytes = IFREQ_FLAGS.unpack(answer)[0]
    return fd, made.rstrip(b"\0").decode()


@dataclass(frozen=True)
class TapQueue:
    """A copy of a descriptor that another process has of one queue of the tap `name`. The tap lives until
    this is closed, too.
    """

    name: str
    fd: int

    def left(self) -> Iterator[bytes]:
        """Frames that nobody has taken from it yet, each with VNET_HEADER; it has them no more. Raises
        OSError.
        """
        header = struct.unpack("i", fcntl.ioctl(self.fd, _TUNGETVNETHDRSZ, bytes(4)))[0]
        while True:
            try:
                frame = os.read(self.fd, LARGEST)
            except BlockingIOError:
                return
            yield frame[:VNET_HEADER] + frame[header:]

    def close(self) -> None:
        os.close(self.fd)


def _tap_in(fdinfo: str) -> str:
    """The tap that a descriptor is of, by what proc(5) says of it; "" for any other."""
    return next((line.split()[1] for line in fdinfo.splitlines() if line.startswith("iff:")), "")


def queues_of(pid: int, taps: Collection[str]) -> list[TapQueue]:
    """Those of these taps that a process has; raises OSError if this user may not have them.

    A descriptor that the process closes meanwhile is none.
    """
    found: list[TapQueue] = []
    try:
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                if (name := _tap_in(entry.read_text())) in taps:
                    found.append(TapQueue(name, copied_fd(pid, int(entry.name))))
    except BaseException:
        for queue in found:
            queue.close()
        raise
    return found
