# SPDX-License-Identifier: GPL-2.0-or-later
"""Who does not bring the token gets nothing from an agent, and nothing from a root behind it."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection

from multiroot.errors import MultirootError, StrangerError
from multiroot.rpc.client import Address, connect
from multiroot.rpc.server import make_server
from multiroot.rpc.status import translated
from multiroot.rpc.token import TokenInterceptor, make_token, read_token
from multiroot.rpc.v1 import root_pb2, root_pb2_grpc, vm_pb2, vm_pb2_grpc


class Root(root_pb2_grpc.RootServiceServicer):
    asked = 0

    async def GetStatus(self, request, context):
        self.asked += 1
        return root_pb2.RootStatus(root=1)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[tuple[str, str, Root]]:
    """A server's target, its token, and what is behind it; other roots are behind it, too."""
    make_token(tmp_path / "token")
    token, root = read_token(tmp_path / "token"), Root()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as behind:
        server = make_server(lambda name: name == "old", lambda _: behind, TokenInterceptor(token))
        root_pb2_grpc.add_RootServiceServicer_to_server(root, server)
        reflection.enable_server_reflection((), server)
        server.add_insecure_port(f"unix:{tmp_path}/s")
        await server.start()
        yield f"unix:{tmp_path}/s", token, root
        await server.stop(None)


def ask(address: Address, root: str | None = None) -> root_pb2.RootStatus:
    with connect(address, root=root) as channel, translated("the agent"):
        return root_pb2_grpc.RootServiceStub(channel).GetStatus(root_pb2.GetStatusRequest(), timeout=10)


async def test_who_brings_the_token_is_served(door: tuple[str, str, Root]) -> None:
    target, token, _ = door
    assert (await asyncio.to_thread(ask, Address(target, token))).root == 1
    assert (await asyncio.to_thread(ask, Address(target, token), "old")).root == 1


@pytest.mark.parametrize("brought", ["", "0" * 64, "x"])
@pytest.mark.parametrize("name", [None, "old", "new"])
async def test_a_stranger_is_told_so_and_gets_nowhere(
    door: tuple[str, str, Root], brought: str, name: str | None
) -> None:
    target, token, root = door
    for address in (Address(target, brought), Address(target, token[:-1]), Address(target, token + "0")):
        with pytest.raises(StrangerError, match="does not know who calls") as caught:
            await asyncio.to_thread(ask, address, name)
        assert caught.value.exit_code == 6
    assert root.asked == 0


async def test_a_stranger_is_refused_whatever_is_called(door: tuple[str, str, Root]) -> None:
    async with grpc.aio.insecure_channel(door[0]) as channel:
        for call in (
            channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
            channel.stream_stream("/no.such/Service"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(iter([b""])).read()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await vm_pb2_grpc.VmServiceStub(channel).List(vm_pb2.ListVmsRequest())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_token_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(MultirootError, match="no token in"):
        read_token(file)
    make_token(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        make_token(file)
    file.chmod(0o604)
    with pytest.raises(MultirootError, match="others may read"):
        read_token(file)
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(MultirootError, match="not a token"):
        read_token(file)
