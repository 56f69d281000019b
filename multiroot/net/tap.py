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
_IFF_VNET_HDR = 0x4000  # lets virtio-net pass checksums and segments unchanged


@dataclass(frozen=True)
class TapDevice:
    """An open tap. It is not persistent: the kernel removes it when the last process that holds `fd` ends."""

    name: str
    fd: int


def open_tap(pattern: str = NAME_PATTERN) -> TapDevice:
    """Make a tap. Raises MultirootError when the kernel has no tap devices or this user may not make one."""
    try:
        fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise MultirootError(f"cannot open {TUN}: {error.strerror}", "modprobe tun") from error
    try:
        request = IFREQ_FLAGS.pack(pattern.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        answer = fcntl.ioctl(fd, _TUNSETIFF, request)
    except OSError as error:
        os.close(fd)
        raise MultirootError(f"cannot make a tap device: {error.strerror}") from error
    name: bytes = IFREQ_FLAGS.unpack(answer)[0]
    return TapDevice(name.rstrip(b"\0").decode(), fd)
