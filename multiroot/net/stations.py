# SPDX-License-Identifier: GPL-2.0-or-later
"""Which address a guest has taken, by what it asks its network (ARP, RFC 826).

Else only the guest knows, and the server that gave it. Every question goes to all stations, in all roots.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

from multiroot.errors import MultirootError
from multiroot.net import namespace

_ETH_P_ARP = 0x0806
_SIZE = 256
# Hardware and protocol type, the lengths of their addresses, operation; sender's addresses.
_ARP = struct.Struct("!HHBBH6s4s")
_ETHERNET, _IPV4, _MAC_LENGTH, _ADDRESS_LENGTH = 1, 0x0800, 6, 4


def sender(packet: bytes) -> tuple[str, str] | None:
    """MAC and IPv4 address of whoever sent an ARP packet (without its Ethernet header).

    None if the packet is something else, or its sender has no address yet.
    """
    if len(packet) < _ARP.size:
        return None
    hardware, protocol, mac_length, length, _, mac, address = _ARP.unpack_from(packet)
    if (hardware, protocol, mac_length, length) != (_ETHERNET, _IPV4, _MAC_LENGTH, _ADDRESS_LENGTH):
        return None
    found = ipaddress.IPv4Address(address)
    return (mac.hex(":"), str(found)) if found.packed != bytes(4) else None


class Stations:
    """The ARP packets of a network namespace, from the moment when the object is made."""

    def __init__(self, inside: Path = namespace.PATH) -> None:
        """Raises MultirootError if this user may not listen."""
        try:
            with namespace.entered(inside):
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ARP))
        except OSError as error:
            raise MultirootError(f"cannot listen to ARP: {error.strerror}") from error
        self._socket.setblocking(False)

    async def heard(self) -> AsyncIterator[tuple[str, str]]:
        """Yields the MAC and the IPv4 address of each sender, again and again. Never ends."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                packet = await loop.sock_recv(self._socket, _SIZE)
            except OSError:
                continue  # A device that is gone is told once to whoever listens to all.
            if found := sender(packet):
                yield found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
