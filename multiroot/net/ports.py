# SPDX-License-Identifier: GPL-2.0-or-later
"""What each handoff asks of network devices, by ioctl (netdevice(7); the bridge's is in linux/sockios.h).

rtnetlink can do the same. But pyroute2 reads a list of all devices to find one by its name, and its messages
point at one another, so that they stay until Python looks for cycles: 800 objects for each VM that is taken.
"""

from __future__ import annotations

import fcntl
import socket
import struct

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCGIFHWADDR = 0x8927
_SIOCGIFINDEX = 0x8933
_SIOCBRADDIF = 0x89A2
IFF_UP = 1

# struct ifreq of a 64-bit kernel, with ifr_flags or ifr_ifindex.
IFREQ_FLAGS = struct.Struct("16sH22x")
_INDEX = struct.Struct("16si20x")


def index_of(sock: socket.socket, name: str) -> int:
    """The number of the device `name` in the network namespace of `sock`. Raises OSError."""
    index: int = _INDEX.unpack(fcntl.ioctl(sock, _SIOCGIFINDEX, _INDEX.pack(name.encode(), 0)))[1]
    return index


def mac_of(sock: socket.socket, name: str) -> bytes:
    """The address of the device `name` in the network namespace of `sock`. Raises OSError."""
    answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, IFREQ_FLAGS.pack(name.encode(), 0))
    return answer[18:24]


def add_port(sock: socket.socket, name: str, bridge: str) -> None:
    """Make the device `name` a port of `bridge`, in the network namespace of `sock`. Raises OSError."""
    fcntl.ioctl(sock, _SIOCBRADDIF, _INDEX.pack(bridge.encode(), index_of(sock, name)))


def bring_up(sock: socket.socket, name: str) -> None:
    """Let the device `name` pass frames, in the network namespace of `sock`. Raises OSError."""
    answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, IFREQ_FLAGS.pack(name.encode(), 0))
    flags = IFREQ_FLAGS.unpack(answer)[1] | IFF_UP
    fcntl.ioctl(sock, _SIOCSIFFLAGS, IFREQ_FLAGS.pack(name.encode(), flags))
