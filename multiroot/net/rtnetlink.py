# SPDX-License-Identifier: GPL-2.0-or-later
"""The few messages of rtnetlink(7) that a root needs (linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h).

A library for it took an eighth of all instructions of an agent's start. The kernel answers a request while
that is being sent, so nothing here waits.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

_SIZE = 1 << 16  # the kernel's dumps come in smaller pieces
_ERROR, _DONE = 2, 3
_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _GET_ADDRESS = 16, 18, 20, 22
_REQUEST, _ACK, _DUMP, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x300, 0x400, 0x200
_INTERRUPTED = 0x10  # of an answer: what is listed has changed meanwhile
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 10, 18, 28
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2

_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, which of them
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, length of the prefix, flags, scope, index
_INT = struct.Struct("=i")


class Device:
    """A network device: `flags` as of netdevice(7), `master` the index of its bridge or 0."""

    def __init__(self, index: int, flags: int, attributes: dict[int, bytes]) -> None:
        self.index = index
        self.flags = flags
        self.name = attributes[_IFLA_IFNAME].rstrip(b"\0").decode()
        self.mac = attributes.get(_IFLA_ADDRESS, b"").hex(":")
        self.master = _INT.unpack(attributes[_IFLA_MASTER])[0] if _IFLA_MASTER in attributes else 0


def devices(sock: socket.socket) -> list[Device]:
    """All devices of the socket's namespace. Raises OSError."""
    answers = _ask(sock, _GET_LINK, _DUMP, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    return [
        Device(index, flags, dict(_attributes(answer[_LINK.size :])))
        for answer in answers
        for _, _, index, flags, _ in (_LINK.unpack_from(answer),)
    ]


def addresses(sock: socket.socket) -> list[tuple[int, str]]:
    """Of each IPv4 address the index of its device, and ADDRESS/LENGTH. Raises OSError."""
    found = []
    for answer in _ask(sock, _GET_ADDRESS, _DUMP, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
        family, length, _, _, index = _ADDRESS.unpack_from(answer)
        told = dict(_attributes(answer[_ADDRESS.size :]))
        if family == socket.AF_INET:
            found.append((index, f"{socket.inet_ntoa(told.get(_IFA_LOCAL) or told[_IFA_ADDRESS])}/{length}"))
    return found


def add_bridge(sock: socket.socket, name: str) -> None:
    """Make a bridge. Raises OSError."""
    kind = _attribute(_IFLA_LINKINFO, _attribute(_IFLA_INFO_KIND, b"bridge"))
    body = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, name.encode() + b"\0") + kind
    _ask(sock, _NEW_LINK, _CREATE | _EXCLUSIVE | _ACK, body)


def add_address(sock: socket.socket, index: int, address: str) -> None:
    """Give a device an IPv4 address, as ADDRESS/LENGTH. Raises OSError."""
    text, _, length = address.partition("/")
    packed = socket.inet_aton(text)
    body = _ADDRESS.pack(socket.AF_INET, int(length), 0, 0, index)
    body += _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
    _ask(sock, _NEW_ADDRESS, _CREATE | _EXCLUSIVE | _ACK, body)


def move(sock: socket.socket, index: int, namespace: int) -> None:
    """Move a device to the network namespace that is open as `namespace`. Raises OSError."""
    body = _LINK.pack(0, 0, index, 0, 0) + _attribute(_IFLA_NET_NS_FD, _INT.pack(namespace))
    _ask(sock, _NEW_LINK, _ACK, body)


def _ask(sock: socket.socket, kind: int, flags: int, body: bytes) -> list[bytes]:
    """What the kernel answers. Raises OSError with its reason."""
    while True:
        sock.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, flags | _REQUEST, 0, 0) + body)
        answers = _answers(sock)
        if answers is not None:
            return answers


def _answers(sock: socket.socket) -> list[bytes] | None:
    """Bodies of the messages that answer one request; None if they list what has changed meanwhile."""
    answers: list[bytes] = []
    whole = True
    while True:
        for kind, flags, data in _messages(sock.recv(_SIZE)):
            whole = whole and not flags & _INTERRUPTED
            if kind in (_ERROR, _DONE):
                if number := -_INT.unpack_from(data)[0]:
                    raise OSError(number, os.strerror(number))
                return answers if whole else None
            answers.append(data)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each."""
    while len(data) >= _MESSAGE.size:
        length, kind, flags, _, _ = _MESSAGE.unpack_from(data)
        yield kind, flags, data[_MESSAGE.size : length]
        data = data[_aligned(max(length, _MESSAGE.size)) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : length]
        data = data[_aligned(max(length, _ATTRIBUTE.size)) :]


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
