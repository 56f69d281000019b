# SPDX-License-Identifier: GPL-2.0-or-later
"""Two ends that have each other's keys talk; nobody else gets a word out of either."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from multiroot.rpc.keys import Keys, make_pair
from multiroot.rpc.server import listen, listen_again, make_server
from multiroot.rpc.v1 import root_pb2, root_pb2_grpc

OURS, THEIRS = make_pair()
OTHERS, _ = make_pair()


class Root(root_pb2_grpc.RootServiceServicer):
    asked = 0

    async def GetStatus(self, request, context):
        self.asked += 1
        return root_pb2.RootStatus(root=2)


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[tuple[str, Root]]:
    """The target of a server that has OURS."""
    root = Root()
    server = make_server(lambda _: True, lambda _: None)
    root_pb2_grpc.add_RootServiceServicer_to_server(root, server)
    target = f"unix:{tmp_path}/s"
    listen(server, target, OURS.server())
    await server.start()
    yield target, root
    await server.stop(None)


async def ask(channel: grpc.aio.Channel) -> int:
    async with channel:
        stub = root_pb2_grpc.RootServiceStub(channel)
        return (await stub.GetStatus(root_pb2.GetStatusRequest(), timeout=5)).root


async def test_both_ends_know_each_other(behind: tuple[str, Root]) -> None:
    assert await ask(THEIRS.channel(behind[0])) == 2


@pytest.mark.parametrize(
    "keys",
    [
        OURS,
        OTHERS,
        replace(OTHERS, peer=THEIRS.peer),
        replace(THEIRS, key=OTHERS.key),
        replace(THEIRS, peer=OTHERS.certificate),
    ],
    ids=["our own", "another pair's", "a stranger's", "a certificate without its key", "we are the stranger"],
)
async def test_anybody_else_is_refused(behind: tuple[str, Root], keys: Keys) -> None:
    target, root = behind
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(keys.channel(target))
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert root.asked == 0


async def test_who_shows_no_certificate_is_refused(behind: tuple[str, Root]) -> None:
    target, root = behind
    named = (("grpc.ssl_target_name_override", "multiroot"),)
    for channel in (
        grpc.aio.insecure_channel(target),
        grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(THEIRS.peer), options=named),
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(channel)
    assert root.asked == 0


def test_keys_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "keys" / "child"
    assert Keys.read(folder) is None
    OTHERS.write(folder)
    THEIRS.write(folder)
    assert Keys.read(folder) == THEIRS
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.parent.iterdir()] == ["child"]
    assert THEIRS.key.decode().splitlines()[1] not in repr(THEIRS)


def test_each_pair_is_new() -> None:
    assert len({OURS.key, THEIRS.key, OTHERS.key, *(keys.key for keys in make_pair())}) == 5


async def test_a_door_can_be_opened_again_while_its_last_call_goes_on() -> None:
    """As when a root that is ended asked for its end itself and another one is started in its place."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        target = f"127.0.0.1:{probe.getsockname()[1]}"
    going_on, go_on = asyncio.Event(), asyncio.Event()

    class Slow(root_pb2_grpc.RootServiceServicer):
        async def GetStatus(self, request, context):
            going_on.set()
            await go_on.wait()
            return root_pb2.RootStatus(root=1)

    servers = []
    for keys, service in ((OURS, Slow()), (OTHERS, Root())):
        server = make_server(lambda _: True, lambda _: None)
        root_pb2_grpc.add_RootServiceServicer_to_server(service, server)
        await listen_again(server, target, keys.server())
        await server.start()
        servers.append(server)
        if not servers[1:]:
            last = asyncio.create_task(ask(THEIRS.channel(target)))
            await going_on.wait()
            stopping = asyncio.create_task(server.stop(60))
            await asyncio.sleep(0)
    go_on.set()
    assert await last == 1
    await stopping
    await servers[1].stop(None)
