# SPDX-License-Identifier: GPL-2.0-or-later
"""The connection of the device state: who shows the key gets it, nobody else."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from multiroot.handoff import wire


async def test_bytes_behind_the_key_are_left_alone() -> None:
    listener = wire.Listener("127.0.0.1")
    accepting = asyncio.create_task(listener.accept())
    with await wire.connect(listener.endpoint) as giver, await accepting as taker:
        giver.sendall(b"state")
        giver.shutdown(socket.SHUT_WR)
        assert taker.recv(100) == b"state"
        assert taker.recv(100) == b""
    listener.close()


@pytest.mark.parametrize("key", [b"", b"short", bytes(16)])
async def test_a_wrong_key_is_turned_away_and_the_right_one_still_gets_in(key: bytes) -> None:
    listener = wire.Listener("127.0.0.1")
    accepting = asyncio.create_task(listener.accept())
    with await wire.connect(replace(listener.endpoint, key=key)) as stranger:
        stranger.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(stranger.recv, 1) == b""
        assert not accepting.done()
        with await wire.connect(listener.endpoint), await accepting:
            listener.close()


async def test_nobody_there() -> None:
    listener = wire.Listener("127.0.0.1")
    listener.close()
    with pytest.raises(OSError, match=r".+"):
        await wire.connect(listener.endpoint)


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(OSError, match=r".+"):
        wire.Listener("192.0.2.1")
