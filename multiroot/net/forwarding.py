# SPDX-License-Identifier: GPL-2.0-or-later
"""Which port of its bridge leads to a station (rtnetlink(7); structures of linux/neighbour.h).

A bridge learns that when the station sends. A guest that has just changed its root may wait for somebody, and
send nothing; until then its frames went to where it was, and its new bridge threw away what came by the link
for it, for a bridge sends nothing back the way it came. One message in one socket, since every handoff needs
it: see `ports` for why not pyroute2.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

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


def learn(sock: socket.socket, mac: str, port: int) -> None:
    """Have the bridge of the device with index `port` take the station `mac` for one that is behind it, as if
    a frame of that had come. `sock` is a rtnetlink socket of their namespace. Raises OSError.
    """
    body = _NDMSG.pack(socket.AF_BRIDGE, port, _NUD_REACHABLE, _NTF_USE | _NTF_MASTER, 0)
    body += _MAC.pack(4 + 6, _NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    sock.send(_HEADER.pack(_HEADER.size + len(body), _RTM_NEWNEIGH, _REQUEST | _ACK, 0, 0) + body)
    answer = sock.recv(_ROOM)
    if _HEADER.unpack_from(answer)[1] != _NLMSG_ERROR:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
    if code := -_ERROR.unpack_from(answer, _HEADER.size)[0]:
        raise OSError(code, os.strerror(code))
