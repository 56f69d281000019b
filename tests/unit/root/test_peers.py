# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers are found alive, lost and back again by their heartbeats, and named as people name them."""

from __future__ import annotations

import asyncio
import mmap
from dataclasses import dataclass, field

import pytest

from multiroot.device.control import ControlPage
from multiroot.device.uapi import CONTROL_SIZE, PeerIndex
from multiroot.errors import PeerLostError
from multiroot.root.peers import GONE_NS, LOST_NS, Peers, Role, SideState


@dataclass
class FakeSide:
    state: int = SideState.ABSENT
    root: int = 0
    heartbeat: int = 0
    heartbeat_tsc: int = 0
    ready_tsc: int = 0
    attached_tsc: int = 0
    release: str = ""


@dataclass
class FakePage:
    mine: FakeSide = field(default_factory=FakeSide)
    theirs: FakeSide = field(default_factory=FakeSide)


class FakeClock:
    now = 0

    def __call__(self) -> int:
        return self.now


def test_a_root_that_says_it_is_ready_and_never_beats_is_lost() -> None:
    clock = FakeClock()
    peers, _ = make(2, Role.CHILD, clock)
    child = peers.get(Role.CHILD)
    assert child is not None
    clock.now += LOST_NS + 1
    child.beat(7)
    assert child.lost


def make(root: int, role: Role, clock: FakeClock) -> tuple[Peers, FakePage]:
    peers = Peers(tsc=lambda: 7, clock=clock)
    page = FakePage(theirs=FakeSide(state=SideState.READY, root=root))
    peers.attach(role, page)
    return peers, page


def test_a_peer_is_lost_when_its_heartbeat_stands_still_and_found_when_it_goes_on() -> None:
    clock = FakeClock()
    peers, page = make(2, Role.CHILD, clock)
    child = peers.get(Role.CHILD)
    assert child is not None
    child.beat(7)
    assert page.mine.heartbeat == 1
    assert page.mine.heartbeat_tsc == 7
    assert not child.lost  # never seen to beat: not up yet, which is not lost
    page.theirs.heartbeat = 5
    child.beat(7)
    clock.now += LOST_NS
    child.beat(7)
    assert child.ready
    clock.now += 1
    child.beat(7)
    assert child.lost
    assert not child.gone
    clock.now += GONE_NS
    child.beat(7)
    assert child.gone
    assert child.view().state == "lost"
    page.theirs.heartbeat = 6
    child.beat(7)
    assert child.ready
    assert child.view().state == "ready"


def test_a_parked_peer_is_lost_at_once() -> None:
    peers, page = make(2, Role.CHILD, FakeClock())
    page.theirs.state = SideState.PARKED
    child = peers.get(Role.CHILD)
    assert child is not None
    child.beat(1)
    assert child.lost
    assert child.view().state == "parked"


@pytest.mark.parametrize(
    ("role", "mine", "theirs", "my_name", "their_name"),
    [(Role.CHILD, 1, 2, "old", "new"), (Role.PARENT, 2, 1, "new", "old")],
)
def test_names(role: Role, mine: int, theirs: int, my_name: str, their_name: str) -> None:
    peers, _ = make(theirs, role, FakeClock())
    assert peers.is_me(my_name, mine)
    assert peers.is_me(str(mine), mine)
    assert not peers.is_me(their_name, mine)
    assert not peers.is_me(str(theirs), mine)
    assert peers.by_name(their_name).root == theirs
    assert peers.by_name(str(theirs)).root == theirs
    with pytest.raises(PeerLostError, match="no root 9 beside"):
        peers.by_name("9")


async def test_waiting_ends_with_the_doorbell_and_with_time() -> None:
    peers, page = make(2, Role.CHILD, FakeClock())
    page.theirs.state = SideState.STARTED
    waiting = asyncio.create_task(peers.wait(lambda: page.theirs.state == SideState.ATTACHED, 30))
    await asyncio.sleep(0)
    page.theirs.state = SideState.ATTACHED
    peers.notify()
    assert await waiting
    assert not await peers.wait(lambda: False, 0.01)


def test_whatever_a_peer_writes_into_the_page_the_beat_goes_on() -> None:
    memory = mmap.mmap(-1, CONTROL_SIZE)
    page = ControlPage(memory, PeerIndex.CHILD)
    page.theirs.root, page.theirs.state = 2, SideState.READY
    peers = Peers(tsc=lambda: 7, clock=FakeClock())
    child = peers.attach(Role.CHILD, page)
    memory[:] = b"\xff" * CONTROL_SIZE
    child.beat(7)
    assert page.mine.heartbeat == 0
    assert (child.state, child.ready) == (SideState.ABSENT, False)
    assert (child.root, child.view().address) == (2, "10.77.0.2:7700")
    assert child.view().state == "absent"
