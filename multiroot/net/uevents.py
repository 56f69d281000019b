# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices network devices that appear, by the kernel's uevents (netlink(7), NETLINK_KOBJECT_UEVENT).

Not rtnetlink's RTM_NEWLINK: that also comes whenever a QEMU touches its tap, as it does in a handoff's
blackout, and costs an agent 10 ms to parse under emulation.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

from multiroot.errors import MultirootError

_PROTOCOL = 15  # NETLINK_KOBJECT_UEVENT of linux/netlink.h
_KERNEL = 1  # the group that the kernel itself sends to
_SIZE = 1 << 16


def new_device(message: bytes) -> str | None:
    """Name of the network device that a uevent announces; None when it is about anything else.

    A uevent is a summary and then NAME=VALUE, each ended by a NUL.
    """
    told = dict(part.partition("=")[::2] for part in message.decode(errors="replace").split("\0")[1:])
    appeared = told.get("ACTION") == "add" and told.get("SUBSYSTEM") == "net"
    return told.get("INTERFACE") if appeared else None


class DeviceEvents:
    """The uevents of this network namespace, from the moment when the object is made."""

    def __init__(self) -> None:
        """Raises MultirootError if this user may not listen."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _PROTOCOL)
        self._socket.setblocking(False)
        try:
            self._socket.bind((0, _KERNEL))
        except OSError as error:
            self._socket.close()
            raise MultirootError(f"cannot listen to the kernel's events: {error.strerror}") from error

    async def appeared(self) -> AsyncIterator[str | None]:
        """Yields the name of each network device that appears, and None when events were lost. Never ends."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                name = new_device(await loop.sock_recv(self._socket, _SIZE))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield None
                continue
            if name is not None:
                yield name

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
