# SPDX-License-Identifier: GPL-2.0-or-later
"""What a call's end means to who has made it."""

from __future__ import annotations

import asyncio
import socket

import grpc.aio
import pytest

from multiroot.errors import PeerLostError
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import storage_pb2, storage_pb2_grpc


async def call(channel: grpc.aio.Channel) -> None:
    with translated("the other root's agent"):
        await storage_pb2_grpc.StorageServiceStub(channel).Open(storage_pb2.OpenDiskRequest(path="/srv/a"))


async def test_a_call_ends_with_the_other_root() -> None:
    """Who closes the channel has heard that the root has ended; the caller was not cancelled."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{silent.getsockname()[1]}")
        caller = asyncio.create_task(call(channel))
        await asyncio.to_thread(silent.accept)  # it is under way
        await channel.close()
        with pytest.raises(PeerLostError, match="the other root's agent has gone amid a call"):
            await caller


async def test_a_caller_that_is_cancelled_ends_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{silent.getsockname()[1]}") as channel:
            caller = asyncio.create_task(call(channel))
            await asyncio.to_thread(silent.accept)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
