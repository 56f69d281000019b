# SPDX-License-Identifier: GPL-2.0-or-later
"""What a call's end means to who has made it."""

from __future__ import annotations

import asyncio
import socket

import grpc.aio
import pytest

from multiroot.errors import MultirootError, PeerLostError, WaitTimeoutError
from multiroot.rpc.status import decode, translated
from multiroot.rpc.v1 import storage_pb2, storage_pb2_grpc


class FailedCall(grpc.RpcError):
    """As gRPC says it, without anything of ours."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._said = code, details

    def code(self) -> grpc.StatusCode:
        return self._said[0]

    def details(self) -> str:
        return self._said[1]

    def trailing_metadata(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize(
    ("code", "details", "kind", "message"),
    [
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", WaitTimeoutError, "the agent did not answer in time"),
        ("UNAVAILABLE", "Socket closed", PeerLostError, "the agent does not answer"),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9: Connection refused",
            PeerLostError,
            "the agent does not answer",
        ),
        ("UNKNOWN", "Stream removed (Socket closed)", PeerLostError, "the agent has gone amid a call"),
    ],
)
def test_grpcs_own_words_are_not_shown(
    code: str, details: str, kind: type[MultirootError], message: str
) -> None:
    found = decode(FailedCall(grpc.StatusCode[code], details), "the agent")
    assert (type(found), found.message) == (kind, message)
    assert found.hint == "it is busy, or its root is gone; in a lab: `multiroot lab status`"


def test_what_grpc_alone_knows_is_kept() -> None:
    found = decode(FailedCall(grpc.StatusCode.UNAVAILABLE, "Ssl handshake failed"), "the agent")
    assert found.hint == "Ssl handshake failed"
    found = decode(FailedCall(grpc.StatusCode.RESOURCE_EXHAUSTED, "message is too large"), "the agent")
    assert str(found) == "the agent failed: message is too large"


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
