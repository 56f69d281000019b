# SPDX-License-Identifier: GPL-2.0-or-later
"""Tap devices (Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

from multiroot.errors import MultirootError
from multiroot.net.ports import IFREQ_FLAGS

TUN = "/dev/net/tun"
NAME_PATTERN = "mrtap%d"  # the kernel fills in the next free number

_TUNSETIFF = 0x400454CA
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
