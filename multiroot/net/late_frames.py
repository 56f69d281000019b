# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that come for a guest while it stands still in a handoff (packet(7)).

They end in the giver's tap, where nobody takes them any more, and in QEMU itself, which reads one more
before it finds that its guest does not run. A TCP connection stands for its sender's retransmission timeout
then, which is many blackouts long. So the giver listens to what its bridge passes to the tap, and sends
that on when the guest runs elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from multiroot.errors import MultirootError
from multiroot.net import namespace, ports
from multiroot.net.packet_filter import attach_filter
from multiroot.net.plan import GUEST_BRIDGE

_ETH_P_ALL = 3
_ETH_ALEN = 6
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_VNET_HDR = 10  # bytes before each frame, struct virtio_net_hdr: parts of checksums and segments stay undone
_TIMESPEC = struct.Struct("qq")
_LARGEST = 1 << 17
_ROOM = 8 << 20

# Whether the frame goes out of the device, and to one station.
_OUT_TO_ONE = (
    (0x20, 0, 0, 0xFFFFF004),  # load the kind of packet: SKF_AD_OFF + SKF_AD_PKTTYPE
    (0x15, 0, 3, 4),  # PACKET_OUTGOING, or drop it
    (0x30, 0, 0, 0),  # load the first byte of the destination
    (0x45, 1, 0, 1),  # group addresses: whoever waits elsewhere gets its own
    (0x06, 0, 0, _LARGEST),
    (0x06, 0, 0, 0),
)


class LateFrames:
    """Listens to taps of the guests' namespace, from `listen` to `close`. Nothing here is for a blackout."""

    def __init__(self, taps: Sequence[str], link: str) -> None:
        """`link` leads to where the guest goes. Raises MultirootError if this user may not listen."""
        self._taps = tuple(taps)
        self._link = link
        self._open = ExitStack()
        try:
            with namespace.entered():
                self._sockets = tuple(self._made() for _ in self._taps)
        except OSError as error:
            self._open.close()
            raise MultirootError(f"cannot listen to {', '.join(taps)}: {error.strerror}") from error

    def _made(self) -> socket.socket:
        """One that gets nothing before it is bound."""
        sock = self._open.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        sock.setblocking(False)
        attach_filter(sock, _OUT_TO_ONE)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        return sock

    def listen(self) -> None:
        """From now on; raises MultirootError if a tap is gone."""
        try:
            for sock, tap in zip(self._sockets, self._taps, strict=True):
                sock.bind((tap, _ETH_P_ALL))
        except OSError as error:
            raise MultirootError(f"cannot listen to {', '.join(self._taps)}: {error.strerror}") from error

    def pass_on(self, since_ns: int) -> int:
        """Send what has come since `since_ns` (wall clock) out of the link, and say how many frames it was.

        They get this root's bridge for a sender: the bridges would learn that their own is behind the link.
        Raises MultirootError if the link is gone.
        """
        count = 0
        try:
            for sock in self._sockets:
                sender = _mac(sock, GUEST_BRIDGE)
                for frame in _frames(sock, since_ns):
                    head = _VNET_HDR + _ETH_ALEN
                    sock.sendto(frame[:head] + sender + frame[head + _ETH_ALEN :], (self._link, 0))
                    count += 1
        except OSError as error:
            raise MultirootError(f"cannot pass frames on by {self._link}: {error.strerror}") from error
        return count

    def close(self) -> None:
        """Once is enough."""
        self._open.close()


def _frames(sock: socket.socket, since_ns: int) -> Iterator[bytes]:
    """What has come so far, with its virtio_net_hdr."""
    while True:
        try:
            frame, extra, _, _ = sock.recvmsg(_LARGEST, socket.CMSG_SPACE(_TIMESPEC.size))
        except BlockingIOError:
            return
        except OSError as error:
            # That the tap is gone is told once, before what had come until then.
            if error.errno != errno.ENETDOWN:
                raise
            continue
        seconds, ns = _TIMESPEC.unpack(extra[0][2])
        if seconds * 1_000_000_000 + ns >= since_ns:
            yield frame


def _mac(sock: socket.socket, name: str) -> bytes:
    answer = fcntl.ioctl(sock, ports.SIOCGIFHWADDR, ports.IFREQ_FLAGS.pack(name.encode(), 0))
    return answer[18 : 18 + _ETH_ALEN]
