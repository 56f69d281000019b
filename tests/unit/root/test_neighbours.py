# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent's ties to the roots beside it: control pages, doorbells, connections, and letting go."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multiroot.device.uapi import Event, PeerIndex
from multiroot.errors import PeerLostError
from multiroot.root.identity import Identity
from multiroot.root.neighbours import Neighbours
from multiroot.root.peers import Peers, Role, SideState

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


def make(**options: bool) -> tuple[Neighbours, Peers, Module]:
    module, peers = Module(**options), Peers(lambda: 7, lambda: 1)
    return Neighbours(cast(Any, module), peers, Identity(2, "6.12", BOOT_ID)), peers, module


async def test_the_parent_is_told_who_we_are_once_our_agent_answers() -> None:
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


async def test_the_first_root_has_no_parent_and_tells_nobody() -> None:
    neighbours, peers, module = make(has_parent=False)
    neighbours.attach_parent()
    neighbours.announce_ready(42)
    assert peers.all() == []
    assert module.rung == []
    with pytest.raises(PeerLostError, match="no old root"):
        neighbours.channel("old")


async def test_a_doorbell_wakes_who_waits_for_a_change() -> None:
    neighbours, peers, module = make()
    child = neighbours.attach_child()
    waiting = asyncio.create_task(peers.wait(lambda: child.state is SideState.PARKED, 60))
    await asyncio.sleep(0)
    module.pages[PeerIndex.CHILD].theirs.state = SideState.PARKED
    os.eventfd_write(module.doorbells[PeerIndex.CHILD], 1)
    assert await waiting
    await neighbours.close()


async def test_a_peer_has_one_connection_until_it_is_forgotten() -> None:
    neighbours, peers, module = make()
    neighbours.attach_child()
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
    neighbours.attach_child()
    assert neighbours.channel("new") is not first
    await neighbours.close()
