# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent tells, put together from its parts: root, peers, update, handoffs, a new kernel's lines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multiroot.agent.watching import Watching
from multiroot.coordinator.adoption import AdoptionState
from multiroot.coordinator.coordinator import Coordinator
from multiroot.coordinator.join import Console
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.states import STEPS, Edge
from multiroot.device.uapi import CpuState, Info, Ledger, LedgerCpu
from multiroot.phases import Phases
from multiroot.root.identity import Identity
from multiroot.root.peers import Peers, Role, SideState
from multiroot.watch.facts import RootState
from multiroot.watch.handoff_log import HandoffLog
from multiroot.watch.signal import Signal


class Page:
    """A control page shared with a root that is up."""

    def __init__(self, root: int) -> None:
        self.mine = SimpleNamespace(heartbeat=0, heartbeat_tsc=0)
        self.theirs = SimpleNamespace(
            root=root, state=int(SideState.READY), heartbeat=1, release="7.0", ready_tsc=0, attached_tsc=0
        )


class World:
    """One root; `page` is what it shares with the next one."""

    def __init__(self, tmp_path: Path) -> None:
        self.now = 10**18
        self.news = Signal()
        self.phases = Phases("root 1", lambda: self.now)
        self.peers = Peers(lambda: 1, lambda: self.now, self.news.ring)
        self.journal = Journal(tmp_path / "journal", "boot", self.news.ring)
        self.page = Page(2)
        self.console = Console()
        self.adoption = SimpleNamespace(state=AdoptionState.NONE, error="")
        cpus = {0: LedgerCpu(1, CpuState.ONLINE), 1: LedgerCpu(2, CpuState.STARTED)}
        device = SimpleNamespace(
            ledger=lambda: Ledger(3, 2, 0, (), cpus),
            info=lambda: Info(1, False, False, True, True, 1, 0, 1, 0, 0, 0, 1 << 30, 1 << 29, 0, 0),
        )
        root = SimpleNamespace(
            me=Identity(1, "6.12", "boot"),
            device=device,
            clock=lambda: self.now,
            peers=self.peers,
            phases=self.phases,
            news=self.news,
        )
        guests = SimpleNamespace(manager_or_none=None)
        coordinator = Coordinator(self.journal, {}, self.phases)
        updates = SimpleNamespace(coordinator=coordinator, adoption=self.adoption, console=self.console)
        self.handoffs = SimpleNamespace(log=HandoffLog(1, lambda: self.now, self.news.ring))
        self.watching = Watching(
            cast(Any, root), cast(Any, guests), cast(Any, updates), cast(Any, self.handoffs)
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_root_alone(world: World) -> None:
    facts = world.watching.look()
    (root,) = facts.roots.values()
    assert (root.number, root.role, root.state, root.kernel_release) == (1, "old", RootState.ALIVE, "6.12")
    assert 0 < root.booted_ns < world.now
    assert facts.update.order == list(STEPS)
    assert facts.update.no_return == "commit"
    assert [name for name, step in facts.update.steps.items() if not step.undo] == ["commit", "retire"]
    assert facts.machine.cpus == 2
    assert facts.vms == {}


def test_an_update_and_its_new_root(world: World) -> None:
    world.journal.write("plan", Edge.WANTED)
    world.journal.write("plan", Edge.BEGIN)
    assert world.watching.look().update.steps["plan"].edge == "begin"
    for step in ("plan", "carve", "offline", "load", "start"):
        world.journal.write(step, Edge.BEGIN)
        world.journal.write(step, Edge.DONE)
    world.peers.attach(Role.CHILD, cast(Any, world.page))
    world.page.theirs.state = int(SideState.STARTED)
    world.watching.look()
    world.console.say("[    0.0] Linux version 7.0")
    facts = world.watching.look()
    assert facts.roots["2"].state is RootState.STARTING
    assert facts.roots["2"].console == ["[    0.0] Linux version 7.0"]
    assert facts.update.state == "started"
    assert [(each.root, each.kind.value) for each in facts.memory.values() if each.start == 1 << 30] == [
        (2, "carve")
    ]
    world.page.theirs.state = int(SideState.READY)
    assert world.watching.look().roots["2"].state is RootState.ALIVE
    # It ends, and nobody has asked it to.
    world.page.theirs.state = int(SideState.PARKED)
    assert world.watching.look().roots["2"].state is RootState.CRASHED


def test_a_new_root_that_is_taken_back_has_ended(world: World) -> None:
    world.journal.write("start", Edge.BEGIN)
    world.journal.write("start", Edge.DONE)
    world.peers.attach(Role.CHILD, cast(Any, world.page))
    assert world.watching.look().roots["2"].state is RootState.ALIVE
    world.journal.write("start", Edge.UNDO)
    world.page.theirs.state = int(SideState.PARKED)
    assert world.watching.look().roots["2"].state is RootState.ENDED


def test_a_parent_that_retires_has_ended_and_one_that_just_ends_has_crashed(tmp_path: Path) -> None:
    for state, seen in (
        (AdoptionState.WAITING, RootState.ENDED),
        (AdoptionState.NONE, RootState.CRASHED),
    ):
        world = World(tmp_path)
        world.peers.attach(Role.PARENT, cast(Any, world.page))
        assert world.watching.look().roots["1"].role == "new"
        world.adoption.state = state
        world.page.theirs.state = int(SideState.PARKED)
        facts = world.watching.look()
        assert facts.roots["2"].state is seen
        assert facts.update.taking_over == ("" if state is AdoptionState.NONE else "waiting for the old root")


def test_handoffs_and_phases(world: World) -> None:
    world.handoffs.log.begin("web", 2, 3)
    with world.phases.phase("prepare", vm="web"):
        facts = world.watching.look()
    assert [each.name for each in facts.phases.values()] == ["prepare"]
    assert facts.handoffs["web/4"].taker == 2


async def test_all_that_changes_something_rings(world: World) -> None:
    for change in (
        lambda: world.journal.write("plan", Edge.BEGIN),
        lambda: world.peers.notify(),
        lambda: world.handoffs.log.begin("web", 2, 3),
        lambda: world.phases.phase("x").__enter__(),
    ):
        await world.news.wait(0)
        change()
        assert await world.news.wait(0)
