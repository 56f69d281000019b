# SPDX-License-Identifier: GPL-2.0-or-later
"""Which address a guest has taken, by what it asks its network (ARP, RFC 826) and by what a server gives it
(DHCP, RFC 2131).

Else only these two know. Questions go to all stations, in all roots, and a bridge hears them, too. What a
server says goes to the guest alone: it is heard at the guest's own tap, and only until it has come.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from multiroot.errors import MultirootError
from multiroot.net import namespace
from multiroot.net.packet_filter import Step, attach_filter

_SIZE = 2048
# ARP: hardware and protocol type, the lengths of their addresses, operation; sender's addresses.
_ARP = struct.Struct("!HHBBH6s4s")
_ETHERNET, _IPV4, _MAC_LENGTH, _ADDRESS_LENGTH = 1, 0x0800, 6, 4
# DHCP, behind IP and UDP: a reply, types of hardware; the client's new address; its MAC address; options.
_UDP_HEADER, _BOOTP = 8, struct.Struct("!BBB13x4s8x6s")
_OPTIONS, _COOKIE = 240, b"\x63\x82\x53\x63"
_REPLY, _KIND, _ACK, _PAD, _END = 2, 53, b"\x05", 0, 255

Sender = tuple[str, str]  # MAC and IPv4 address


@dataclass(frozen=True)
class Source:
    """Packets of an Ethernet protocol, which of them are looked at, and what they tell."""

    protocol: int
    filter: tuple[Step, ...]  # none: all of them
    read: Callable[[bytes], Sender | None]


def sender(packet: bytes) -> Sender | None:
    """MAC and IPv4 address of whoever sent an ARP packet (without its Ethernet header).

    None if the packet is something else, or its sender has no address yet.
    """
    if len(packet) < _ARP.size:
        return None
    hardware, protocol, mac_length, length, _, mac, address = _ARP.unpack_from(packet)
    if (hardware, protocol, mac_length, length) != (_ETHERNET, _IPV4, _MAC_LENGTH, _ADDRESS_LENGTH):
        return None
    return _told(mac, address)


def lease(packet: bytes) -> Sender | None:
    """MAC address of a client and the IPv4 address that a DHCP server has given it, in an IP packet.

    None if the packet is something else, or refuses or only offers one.
    """
    message = packet[(packet[0] & 0xF) * 4 + _UDP_HEADER :] if packet else b""
    if len(message) < _OPTIONS or message[_OPTIONS - len(_COOKIE) : _OPTIONS] != _COOKIE:
        return None
    operation, hardware, length, address, mac = _BOOTP.unpack_from(message)
    if (operation, hardware, length) != (_REPLY, _ETHERNET, _MAC_LENGTH):
        return None
    return _told(mac, address) if _option(message[_OPTIONS:], _KIND) == _ACK else None


def _option(options: bytes, wanted: int) -> bytes:
    """The value of a DHCP option; nothing if it is not there."""
    at = 0
    while at + 1 < len(options) and options[at] != _END:
        if options[at] == _PAD:
            at += 1
            continue
        value = options[at + 2 : at + 2 + options[at + 1]]
        if options[at] == wanted:
            return value
        at += 2 + options[at + 1]
    return b""


def _told(mac: bytes, address: bytes) -> Sender | None:
    found = ipaddress.IPv4Address(address)
    return (mac.hex(":"), str(found)) if found.packed != bytes(4) else None


_DROP = 12  # the place of the last instruction
ARP = Source(0x0806, (), sender)
# Of all protocols (only such a socket hears what goes to a port of a bridge) IPv4; UDP, no later part of a
# packet, from port 67 to port 68.
DHCP = Source(
    0x0003,
    (
        (0x20, 0, 0, 0xFFFFF000),
        (0x15, 0, _DROP - 2, _IPV4),
        (0x30, 0, 0, 9),
        (0x15, 0, _DROP - 4, 17),
        (0x28, 0, 0, 6),
        (0x45, _DROP - 6, 0, 0x1FFF),
        (0xB1, 0, 0, 0),
        (0x48, 0, 0, 0),
        (0x15, 0, _DROP - 9, 67),
        (0x48, 0, 0, 2),
        (0x15, 0, _DROP - 11, 68),
        (0x06, 0, 0, _SIZE),
        (0x06, 0, 0, 0),
    ),
    lease,
)


class Stations:
    """What one source tells in a network namespace, from the moment when the object is made."""

    def __init__(self, source: Source, device: str = "", inside: Path = namespace.PATH) -> None:
        """At one device, or at all. Raises MultirootError if this user may not listen, or it is gone."""
        self._source = source
        self._device = device
        try:
            with namespace.entered(inside):
                # Without a protocol it gets nothing before it is bound.
                first = 0 if device else socket.htons(source.protocol)
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, first)
            attach_filter(self._socket, source.filter)
            if device:
                self._socket.bind((device, source.protocol))
        except OSError as error:
            raise MultirootError(f"cannot listen to what guests are called: {error.strerror}") from error
        self._socket.setblocking(False)

    async def heard(self) -> AsyncIterator[Sender]:
        """Yields what it tells, again and again. Never ends; MultirootError when the device is gone."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                packet = await loop.sock_recv(self._socket, _SIZE)
            except OSError as error:
                # That a device is gone is told once; for whoever listens to all that means nothing.
                if self._device:
                    raise MultirootError(f"{self._device}: {error.strerror}") from error
                continue
            if found := self._source.read(packet):
                yield found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
