# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors cross the wire whole, calls that name another root reach it."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from multiroot import errors
from multiroot.errors import BadRequestError, ConflictError, MultirootError, PeerLostError
from multiroot.rpc.client import connect
from multiroot.rpc.server import listen_locally, make_server, parse_root_name
from multiroot.rpc.status import translated
from multiroot.rpc.v1 import root_pb2, root_pb2_grpc

ERRORS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MultirootError)
]


class FakeRoot(root_pb2_grpc.RootServiceServicer):
    def __init__(self, release: str, error: MultirootError | None = None) -> None:
        self.release, self.error = release, error

    async def GetStatus(self, request, context):
        if self.error:
            raise self.error
        return root_pb2.RootStatus(kernel_release=self.release)


async def serve(path: Path, root: FakeRoot, name: str, peers: dict[str, grpc.aio.Channel]) -> grpc.aio.Server:
    def channel_to(wanted: str) -> grpc.aio.Channel:
        parse_root_name(wanted)
        if wanted not in peers:
            raise PeerLostError(f"there is no {wanted} root")
        return peers[wanted]

    server = make_server(lambda wanted: wanted == name, channel_to)
    root_pb2_grpc.add_RootServiceServicer_to_server(root, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    return server


def status(target: str, root: str | None = None) -> root_pb2.RootStatus:
    with connect(target, root=root) as channel, translated("the agent"):
        return root_pb2_grpc.RootServiceStub(channel).GetStatus(root_pb2.GetStatusRequest(), timeout=10)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
async def test_errors_arrive_as_they_were_raised(tmp_path: Path, kind: type[MultirootError]) -> None:
    server = await serve(
        tmp_path / "s", FakeRoot("a", kind("CPU 0 is the boot CPU — no", "take 2-3")), "old", {}
    )
    try:
        with pytest.raises(MultirootError) as caught:
            await asyncio.to_thread(status, f"unix:{tmp_path}/s")
        assert type(caught.value) is kind
        assert (caught.value.message, caught.value.hint) == ("CPU 0 is the boot CPU — no", "take 2-3")
    finally:
        await server.stop(None)


async def test_a_call_that_names_the_other_root_reaches_it_and_its_errors_come_back(tmp_path: Path) -> None:
    new_root = FakeRoot("new kernel")
    new = await serve(tmp_path / "new", new_root, "new", {})
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/new") as channel:
        old = await serve(tmp_path / "old", FakeRoot("old kernel"), "old", {"new": channel})
        target = f"unix:{tmp_path}/old"
        try:
            assert (await asyncio.to_thread(status, target)).kernel_release == "old kernel"
            assert (await asyncio.to_thread(status, target, "old")).kernel_release == "old kernel"
            assert (await asyncio.to_thread(status, target, "new")).kernel_release == "new kernel"
            with pytest.raises(PeerLostError, match="no 7 root"):
                await asyncio.to_thread(status, target, "7")
            with pytest.raises(BadRequestError, match="not a root"):
                await asyncio.to_thread(status, target, "newest")
            new_root.error = ConflictError("busy", "wait")
            with pytest.raises(ConflictError, match="busy"):
                await asyncio.to_thread(status, target, "new")
        finally:
            await old.stop(None)
            await new.stop(None)


async def test_an_agent_that_is_gone_is_a_lost_peer(tmp_path: Path) -> None:
    with pytest.raises(PeerLostError, match="the agent does not answer"):
        await asyncio.to_thread(status, f"unix:{tmp_path}/nobody")


async def test_the_local_socket_is_its_owners_alone_from_the_moment_it_is_there(tmp_path: Path) -> None:
    socket, modes = tmp_path / "run" / "agent.sock", []

    class Server:
        """Looks at the socket as soon as it is made, as a stranger would who waits for it."""

        def add_insecure_port(self, address: str) -> int:
            port: int = real.add_insecure_port(address)
            modes.append(stat.S_IMODE(socket.stat().st_mode))
            return port

    real = make_server(lambda _: True, lambda _: cast(Any, None))
    before = os.umask(0)
    try:
        listen_locally(cast(Any, Server()), socket)
        assert os.umask(0) == 0, "the process has its umask back"
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    await real.stop(None)
