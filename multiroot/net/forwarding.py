# SPDX-License-Identifier: GPL-2.0-or-later
"""Which port of its bridge leads to a station (rtnetlink(7); structures of linux/neighbour.h).

A bridge learns that when the station sends. A guest that has just changed its root may wait for somebody, and
send nothing; until then its frames went to where it was, and its new bridge threw away what came by the link
for it, for a bridge sends nothing back the way it came. All is made before the guest stops, and one message
is left for each card: see `ports` for why not pyroute2.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping

from multiroot.net import namespace
from multiroot.net.ports import index_of

_RTM_NEWNEIGH, _NLMSG_ERROR = 28, 2
_REQUEST, _ACK = 0x1, 0x4
_NDA_LLADDR = 2
_NTF_USE, _NTF_MASTER = 0x01, 0x04  # as if a frame had come; of the device's bridge
_NUD_REACHABLE = 0x02
_HEADER = struct.Struct("=IHHII")
_NDMSG = struct.Struct("=BxxxiHBB")
_MAC = struct.Struct("=HH6sxx")
_ERROR = struct.Struct("=i")
_ROOM = 4096


class Moving:
    """Stations, by their MAC addresses, that are about to be behind other ports of the guests' bridge."""

    def __init__(self, ports: Mapping[str, str]) -> None:
        """`ports` has the names of ports by address. Raises OSError if there is no such device, or this user
        may not enter the guests' network.
        """
        with namespace.entered():
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._messages = [_message(mac, index_of(self._sock, port)) for mac, port in ports.items()]
        except BaseException:
            self._sock.close()
            raise

    def tell(self) -> None:
        """The bridge takes each for one that has just sent something there. Raises OSError."""
        for message in self._messages:
            self._sock.send(message)
            answer = self._sock.recv(_ROOM)
            if _HEADER.unpack_from(answer)[1] != _NLMSG_ERROR:
                raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
            if code := -_ERROR.unpack_from(answer, _HEADER.size)[0]:
                raise OSError(code, os.strerror(code))

    def close(self) -> None:
        """Once is enough."""
        self._sock.close()


def _message(mac: str, port: int) -> bytes:
    body = _NDMSG.pack(socket.AF_BRIDGE, port, _NUD_REACHABLE, _NTF_USE | _NTF_MASTER, 0)
    body += _MAC.pack(4 + 6, _NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return _HEADER.pack(_HEADER.size + len(body), _RTM_NEWNEIGH, _REQUEST | _ACK, 0, 0) + body
