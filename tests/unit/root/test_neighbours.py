# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent's ties to the roots beside it: control pages, doorbells, connections, and letting go."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc.aio
import pytest

from multiroot.device.uapi import Event, PeerIndex
from multiroot.errors import PeerLostError
from multiroot.root.identity import Identity
from multiroot.root.neighbours import Neighbours
from multiroot.root.peers import Peers, Role, SideState
from multiroot.rpc.keys import Keys, make_pair
from multiroot.rpc.server import make_server
from multiroot.rpc.v1 import root_pb2, root_pb2_grpc

OURS, THEIRS = make_pair()
OTHERS, _ = make_pair()
BOOT_ID = "01234567-89ab-cdef-0123-456789abcdef"


class Module:
    """/dev/multiroot with a parent (root 1) and a child (root 3), whose doorbells a test rings."""

    def __init__(self, *, has_parent: bool = True) -> None:
        self.has_parent = has_parent
        self.pages = {PeerIndex.PARENT: self._page(1), PeerIndex.CHILD: self._page(3)}
        self.doorbells: dict[PeerIndex, int] = {}
        self.rung: list[tuple[PeerIndex, Event]] = []
        self.closed: list[PeerIndex] = []

    @staticmethod
    def _page(root: int) -> Any:
        theirs = SimpleNamespace(root=root, state=SideState.READY, heartbeat=1)
        return SimpleNamespace(theirs=theirs, mine=SimpleNamespace(state=SideState.ATTACHED))

    def info(self) -> Any:
        return SimpleNamespace(has_parent=self.has_parent)

    def control(self, index: PeerIndex) -> Any:
        return self.pages[index]

    def close_control(self, index: PeerIndex) -> None:
        self.closed.append(index)

    def doorbell(self, index: PeerIndex, fd: int, mask: Event) -> None:
        self.doorbells[index] = os.dup(fd) if fd >= 0 else -1

    def ring(self, index: PeerIndex, events: Event) -> None:
        self.rung.append((index, events))


Make = Callable[..., tuple[Neighbours, Peers, Module]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(**options: bool) -> tuple[Neighbours, Peers, Module]:
        module, peers = Module(**options), Peers(lambda: 7, lambda: 1)
        keys = tmp_path / "keys"
        return Neighbours(cast(Any, module), peers, Identity(2, "6.12", BOOT_ID), keys), peers, module

    return make


async def test_the_parent_is_told_who_we_are_once_our_agent_answers(make: Make) -> None:
    neighbours, peers, module = make()
    neighbours.attach_parent()
    parent = peers.get(Role.PARENT)
    assert parent is not None
    assert parent.root == 1
    mine = module.pages[PeerIndex.PARENT].mine
    assert mine.state is SideState.ATTACHED, "an agent that does not answer yet is not ready"
    neighbours.announce_ready(42)
    assert (mine.state, mine.ready_tsc) == (SideState.READY, 42)
    assert mine.boot_id.hex() == BOOT_ID.replace("-", "")
    assert module.rung == [(PeerIndex.PARENT, Event.STATE)]
    await neighbours.close()


async def test_the_first_root_has_no_parent_and_tells_nobody(make: Make) -> None:
    neighbours, peers, module = make(has_parent=False)
    neighbours.attach_parent()
    neighbours.announce_ready(42)
    assert peers.all() == []
    assert module.rung == []
    with pytest.raises(PeerLostError, match="no old root"):
        neighbours.channel("old")


async def test_a_doorbell_wakes_who_waits_for_a_change(make: Make) -> None:
    neighbours, peers, module = make()
    child = await neighbours.attach_child()
    waiting = asyncio.create_task(peers.wait(lambda: child.state is SideState.PARKED, 60))
    await asyncio.sleep(0)
    module.pages[PeerIndex.CHILD].theirs.state = SideState.PARKED
    os.eventfd_write(module.doorbells[PeerIndex.CHILD], 1)
    assert await waiting
    await neighbours.close()


async def test_a_peer_has_one_connection_until_it_is_forgotten(make: Make) -> None:
    neighbours, peers, module = make()
    await neighbours.attach_child(OURS)
    first = neighbours.channel("new")
    assert neighbours.channel("3") is first
    await neighbours.detach_child()
    assert peers.get(Role.CHILD) is None
    assert module.closed == [PeerIndex.CHILD]
    assert module.doorbells[PeerIndex.CHILD] == -1
    with pytest.raises(PeerLostError, match="no new root"):
        neighbours.channel("new")
    await neighbours.detach_child()
    assert module.closed == [PeerIndex.CHILD], "forgetting twice does nothing"
    await neighbours.attach_child(OURS)
    assert neighbours.channel("new") is not first
    await neighbours.close()


class Root(root_pb2_grpc.RootServiceServicer):
    async def GetStatus(self, request, context):
        return root_pb2.RootStatus(root=2)


def server() -> grpc.aio.Server:
    made = make_server(lambda _: True, lambda _: cast(Any, None))
    root_pb2_grpc.add_RootServiceServicer_to_server(Root(), made)
    return made


async def is_answered(target: str, keys: Keys) -> bool:
    async with keys.channel(target) as channel:
        try:
            stub = root_pb2_grpc.RootServiceStub(channel)
            return (await stub.GetStatus(root_pb2.GetStatusRequest(), timeout=5)).root == 2
        except grpc.aio.AioRpcError:
            return False


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where agents listen for each other: on this test's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        found = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setattr("multiroot.root.neighbours.agent_target", lambda root, port: found)
    return found


async def test_the_child_that_was_started_with_the_keys_is_answered_until_it_is_forgotten(
    make: Make, target: str
) -> None:
    neighbours, _, _ = make()
    await neighbours.serve(server)
    await neighbours.attach_child(OURS)
    assert await is_answered(target, THEIRS)
    assert not await is_answered(target, OTHERS)
    await neighbours.detach_child()
    assert not await is_answered(target, THEIRS)
    await neighbours.attach_child(OTHERS)
    assert not await is_answered(target, THEIRS), "the next child has other keys"
    await neighbours.close()


async def test_a_restarted_agent_answers_its_child_with_the_same_keys(make: Make, target: str) -> None:
    before, _, _ = make()
    await before.attach_child(OURS)
    await before.close()
    after, _, _ = make()
    await after.attach_child()
    await after.serve(server)
    assert await is_answered(target, THEIRS)
    assert after.channel("new") is not None
    await after.detach_child()
    await after.attach_child()
    with pytest.raises(PeerLostError, match="no keys for root 3"):
        after.channel("new")
    await after.close()
