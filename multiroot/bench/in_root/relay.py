# SPDX-License-Identifier: GPL-2.0-or-later
"""Device state that has to wait somewhere: out of a QEMU into our memory, and from there into another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

FD_NAME = "relay"  # what QEMU calls its end
URI = f"fd:{FD_NAME}"

_BUFFER = 1 << 20
_SO_SNDBUFFORCE = getattr(socket, "SO_SNDBUFFORCE", 32)  # Linux; exceeds net.core.wmem_max for root


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Our end (non-blocking) and QEMU's end, with room for a whole device state: QEMU need not wait."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    for end in (ours, theirs):
        try:
            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
        except PermissionError:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ours, theirs


async def chunks(sock: socket.socket) -> AsyncIterator[bytes]:
    """What arrives, as it arrives, until the other end closes; all that is there comes as one chunk."""
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(_BUFFER))
    while size := await loop.sock_recv_into(sock, buffer):
        size += _drain(sock, buffer[size:])
        yield bytes(buffer[:size])


def _drain(sock: socket.socket, buffer: memoryview) -> int:
    size = 0
    while size < len(buffer):
        try:
            more = sock.recv_into(buffer[size:])
        except BlockingIOError:
            break
        if not more:
            break
        size += more
    return size


async def feed(sock: socket.socket, data: AsyncIterator[bytes]) -> None:
    """Write everything to the other end, then say that no more comes.

    If the other end closes before, this just stops: QEMU itself tells whether it was content. Errors of
    `data` pass through.
    """
    loop = asyncio.get_running_loop()
    try:
        async for chunk in data:
            await loop.sock_sendall(sock, chunk)
        sock.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        return
