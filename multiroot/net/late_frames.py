# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that come for a guest while it stands still in a handoff (packet(7), tun).

They stay in the giver's tap, where nobody takes them any more: all that came since its VMM last looked there,
which may be long before the guest stopped, for the VMM is busy with sending. A TCP connection stands for its
sender's retransmission timeout then, which is many blackouts long. So when the guest runs elsewhere, the
giver looks what is left in the tap, and sends that on. A VMM takes some frames more before it finds that its
guest does not run. So the giver listens to what its bridge passes to the tap, too, and sends on the last
ones before those that are left.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from multiroot.errors import MultirootError
from multiroot.net import namespace, ports
from multiroot.net.forwarding import Moving
from multiroot.net.packet_filter import attach_filter
from multiroot.net.plan import GUEST_BRIDGE
from multiroot.net.tap import LARGEST, VNET_HEADER, queues_of

_ETH_P_ALL = 3
_ETH_ALEN = 6
_DATA = VNET_HEADER  # where a frame begins in what is read
_SENDER = slice(_DATA + _ETH_ALEN, _DATA + 2 * _ETH_ALEN)
_SO_RCVBUFFORCE = 33
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_ROOM = 8 << 20
# So many frames QEMU takes from a queue whose guest does not run: one, and another when it has thrown the
# first one away, which it does when it has stopped its devices (net/tap.c, net/net.c).
_SWALLOWED = 2

# Whether the frame goes out of the device, and to one station.
_OUT_TO_ONE = (
    (0x20, 0, 0, 0xFFFFF004),  # load the kind of packet: SKF_AD_OFF + SKF_AD_PKTTYPE
    (0x15, 0, 3, 4),  # PACKET_OUTGOING, or drop it
    (0x30, 0, 0, 0),  # load the first byte of the destination
    (0x45, 1, 0, 1),  # group addresses: whoever waits elsewhere gets its own
    (0x06, 0, 0, LARGEST),
    (0x06, 0, 0, 0),
)


class LateFrames:
    """Of a guest's cards, from `listen` to `close`."""

    def __init__(self, cards: Mapping[str, str], link: str, vmm: int) -> None:
        """`cards` are MAC addresses by tap; process `vmm` has the taps; `link` leads to where the guest goes.

        Raises MultirootError if this user may not listen.
        """
        self._cards = dict(cards)
        self._link = link
        self._open = ExitStack()
        self._first = True
        try:
            with namespace.entered():
                self._sockets = tuple(self._made() for _ in self._cards)
            self._moving = Moving(dict.fromkeys(self._cards.values(), link))
            self._open.callback(self._moving.close)
            self._queues = queues_of(vmm, self._cards)
            for queue in self._queues:
                self._open.callback(queue.close)
        except OSError as error:
            self._open.close()
            raise self._not_heard(error) from error

    def _made(self) -> socket.socket:
        """One that gets nothing before it is bound."""
        sock = self._open.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        sock.setblocking(False)
        attach_filter(sock, _OUT_TO_ONE)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        return sock

    def _not_heard(self, error: OSError) -> MultirootError:
        return MultirootError(f"cannot listen to {', '.join(self._cards)}: {error.strerror}")

    def listen(self) -> None:
        """From now on; raises MultirootError if a tap is gone."""
        try:
            for sock, tap in zip(self._sockets, self._cards, strict=True):
                sock.bind((tap, _ETH_P_ALL))
        except OSError as error:
            raise self._not_heard(error) from error

    def pass_on(self) -> int:
        """The guest runs elsewhere: send what it has not got out of the link, and say how many frames it was.
        What comes from now on, the bridge sends there by itself. May be called again for what came meanwhile.

        They get this root's bridge for a sender: the bridges would learn that their own is behind the link.
        Raises MultirootError if the link is gone.
        """
        count = 0
        try:
            if self._first:
                self._moving.tell()
            for sock, tap in zip(self._sockets, self._cards, strict=True):
                sender = ports.mac_of(sock, GUEST_BRIDGE)
                for frame in self._missed(sock, tap):
                    head, data = frame[: _SENDER.start], frame[_SENDER.stop :]
                    sock.sendto(head + sender + data, (self._link, 0))
                    count += 1
        except OSError as error:
            raise MultirootError(f"cannot pass frames on by {self._link}: {error.strerror}") from error
        self._first = False
        return count

    def _missed(self, sock: socket.socket, tap: str) -> list[bytes]:
        """What has come to a card and was not passed on yet."""
        # Seen first: one that comes in between is sent twice, and not lost.
        seen = list(_frames(sock))
        if not self._first:
            return seen
        queues = [queue for queue in self._queues if queue.name == tap]
        return missed(seen, [list(queue.left()) for queue in queues])

    def close(self) -> None:
        """Once is enough."""
        self._open.close()


def missed(seen: Sequence[bytes], left: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Frames that a guest has not got: `seen` are those that came to its tap for it alone, in their order,
    `left` those that each of the tap's queues still has.

    Rather one too many than one too few: protocols take one that comes twice for what it is.
    """
    waiting = [frame for queue in left for frame in queue if not frame[_DATA] & 1]
    # By what they say: of headers there may be more than one that says the same.
    unmatched = Counter(frame[_DATA:] for frame in waiting)
    taken: list[bytes] = []
    for frame in reversed(seen):
        data = frame[_DATA:]
        if unmatched[data]:
            unmatched[data] -= 1
        elif len(taken) < _SWALLOWED * len(left):
            taken.append(frame)
    return [*reversed(taken), *waiting]


def _frames(sock: socket.socket) -> Iterator[bytes]:
    """What has come so far, with its header."""
    while True:
        try:
            yield sock.recv(LARGEST)
        except BlockingIOError:
            return
        except OSError as error:
            # That the tap is gone is told once, before what had come until then.
            if error.errno != errno.ENETDOWN:
                raise
