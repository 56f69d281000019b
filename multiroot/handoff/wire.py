# SPDX-License-Identifier: GPL-2.0-or-later
"""The connection of the device state: one TCP connection from the giver's agent to the taker's.

It is there before the guest stops. What passes is in frames.py, and who passes it in relay.py.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
from dataclasses import dataclass

from multiroot.handoff import frames

CONNECT_TIMEOUT_S = 10.0

_BUFFER = 1 << 20  # room for a whole device state: nobody who writes need wait for a reader
# Linux; exceed net.core.wmem_max and rmem_max for root.
_SO_SNDBUFFORCE = getattr(socket, "SO_SNDBUFFORCE", 32)
_SO_RCVBUFFORCE = getattr(socket, "SO_RCVBUFFORCE", 33)


@dataclass(frozen=True)
class Endpoint:
    """Where a taker waits for one VM's device state, and the key of its frames."""

    host: str
    port: int
    key: bytes


class Listener:
    """The taker's end until the giver has come."""

    def __init__(self, host: str) -> None:
        """Listens at once; raises OSError if this root does not have that address."""
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            _make_room(self._sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
            self._sock.bind((host, 0))
            self._sock.listen()
            self._sock.setblocking(False)
        except OSError:
            self._sock.close()
            raise
        self.endpoint = Endpoint(host, self._sock.getsockname()[1], secrets.token_bytes(frames.KEY_SIZE))

    async def accept(self) -> socket.socket:
        """The connection, blocking, of whoever knows the key; waits for it, and turns others away."""
        loop = asyncio.get_running_loop()
        expected = frames.greeting(self.endpoint.key)
        while True:
            sock, _ = await loop.sock_accept(self._sock)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    if hmac.compare_digest(await _read(sock, len(expected)), expected):
                        sock.setblocking(True)
                        return sock
            except (OSError, TimeoutError):
                sock.close()
                continue
            except BaseException:
                sock.close()
                raise
            sock.close()

    def close(self) -> None:
        self._sock.close()


async def connect(to: Endpoint) -> socket.socket:
    """The giver's end, blocking.

    Raises OSError, TimeoutError among them, when nobody is there.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        make_room_to_send(sock)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await loop.sock_connect(sock, (to.host, to.port))
            await loop.sock_sendall(sock, frames.greeting(to.key))
        sock.setblocking(True)
    except BaseException:
        sock.close()
        raise
    return sock


async def _read(sock: socket.socket, size: int) -> bytes:
    """So many bytes, fewer if the other end closes; not one more, they are the first frame's."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(sock, size - len(data))
        if not more:
            break
        data += more
    return data


def make_room_to_send(sock: socket.socket) -> None:
    """Let a whole device state wait in this socket."""
    _make_room(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF)


def _make_room(sock: socket.socket, forced: int, asked: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, asked, _BUFFER)
