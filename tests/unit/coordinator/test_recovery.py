# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent that is killed at any moment of an update, and again while its successor cleans up.

A fake world stands in for the machine: what was taken, whether the new root runs, who owns which VM. An agent
dies before or after each thing that a step does, and before or after each line of the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import pytest

from multiroot.coordinator.coordinator import Coordinator, Data, Undoing
from multiroot.coordinator.journal import Journal
from multiroot.coordinator.outlook import next_step
from multiroot.coordinator.states import LAUNCH, UPDATE, Edge, Entry, Standing, State, advance
from multiroot.errors import BadRequestError, ConflictError
from multiroot.phases import Phases

TAKES = ("carve", "offline", "load")


class Killed(BaseException):
    """The agent's process ends here: nothing of ours may catch it."""


class World:
    """The machine. `kill_at` is the moment of this agent's end, counted from its start; 0: never."""

    def __init__(self) -> None:
        self.standing = Standing()  # by the journal
        self.taken: set[str] = set()
        self.child = False
        self.owners = {"web": "old", "db": "old"}
        self.lost: list[str] = []
        self.door_shut = False
        self.services = True
        self.ended = False
        self.kill_at = 0
        self.moments = 0

    def moment(self) -> None:
        self.moments += 1
        if self.moments == self.kill_at:
            raise Killed

    def of(self, root: str) -> list[str]:
        return [name for name, owner in self.owners.items() if owner == root]

    def there(self) -> list[str]:
        return self.of("new") if self.child else []

    def move(self, name: str, to: str) -> None:
        assert self.child
        assert to == "new" or not self.door_shut
        self.moment()
        self.owners[name] = to
        self.moment()

    def agent(self, kill_at: int = 0) -> Coordinator:
        """A new agent of the old root."""
        self.kill_at, self.moments = kill_at, 0
        self.door_shut = False
        steps = {name: FakeStep(name, self) for name in (*LAUNCH, *UPDATE)}
        return Coordinator(cast(Journal, DyingJournal(self)), steps, Phases("test"), self.there)

    def check(self) -> None:
        """Each VM has an owner that lives, or somebody has accepted its loss."""
        for name, owner in self.owners.items():
            assert owner == "old" or self.child or name in self.lost, name

    async def recovered(self, kill_at: int = 0) -> Coordinator:
        """The successor of an agent that was killed, as agent/updates.py starts it."""
        coordinator = self.agent(kill_at)
        if "commit" in coordinator.begun:
            self.door_shut = True
        await coordinator.recover(alive=self.child)
        return coordinator


class DyingJournal:
    """A Journal whose agent may die before or after a line. The lines are the world's."""

    problem = None

    def __init__(self, world: World) -> None:
        self._world = world

    def check(self) -> None:
        """It can be read."""

    def write(self, step: str, edge: Edge, **data: object) -> None:
        self._world.moment()
        self._world.standing = advance(self._world.standing, Entry(step, edge, 1, data))
        self._world.moment()

    def standing(self) -> Standing:
        return self._world.standing

    def reset(self) -> None:
        self._world.standing = Standing()


class FakeStep:
    def __init__(self, name: str, world: World) -> None:
        self.name, self.world = name, world

    async def do(self, data: Mapping[str, Data]) -> Data:
        world = self.world
        world.moment()
        if self.name in TAKES:
            world.taken.add(self.name)
        elif self.name == "start":
            world.child = True
        elif self.name == "join":
            assert world.child
        elif self.name == "handover":
            for name in world.of("old"):
                world.move(name, "new")
        elif self.name == "commit":
            world.door_shut = True
            self.refuse_with_vms()
        elif self.name == "retire":
            self.refuse_with_vms()
            world.services = False
            world.moment()
            world.ended = True
            raise Killed
        world.moment()
        return {"made": self.name}

    def refuse_with_vms(self) -> None:
        if self.world.of("old"):
            raise ConflictError("this root still owns VMs")

    async def undo(self, data: Mapping[str, Data], how: Undoing) -> None:
        world = self.world
        world.moment()
        if self.name in TAKES:
            assert not world.child, f"a root that runs needs {self.name}"
            world.taken.discard(self.name)
        elif self.name == "start":
            self.end_child(how)
        elif self.name == "handover":
            for name in world.there() if how.hand_back else ():
                world.move(name, "old")
        elif self.name == "commit":
            world.door_shut = False
        elif self.name == "retire":
            world.services = True
        world.moment()

    def end_child(self, how: Undoing) -> None:
        """As load.reclaim does."""
        names = self.world.there()
        if names and not how.force:
            raise ConflictError(f"root 2 owns {names}")
        self.world.lost += names
        how.lost += names
        self.world.child = False


Way = Callable[[Coordinator], Awaitable[object]]


async def whole_update(c: Coordinator) -> None:
    await c.update({"request": {}}, "retire", {"verify": True})
    await c.retire()


async def there_and_back(c: Coordinator) -> None:
    await c.update({"request": {}}, "handover")
    await c.abort()


async def launched_and_released(c: Coordinator) -> None:
    await c.launch({"request": {}})
    await c.release()


async def released_by_force(c: Coordinator) -> None:
    await c.update({"request": {}}, "handover")
    await c.release(force=True)


WAYS: list[Way] = [whole_update, there_and_back, launched_and_released, released_by_force]


async def killed(world: World, way: Way, at: int) -> bool:
    """Whether the agent was killed before it was through."""
    try:
        await way(world.agent(at))
    except Killed:
        return not world.ended
    return False


async def resume(world: World, coordinator: Coordinator) -> None:
    """What `update resume` does."""
    until = coordinator.way_on()
    if until:
        if await coordinator.update({}, until) is State.COMMITTED and until == "retire":
            with pytest.raises(Killed):
                await coordinator.retire()
    else:
        await coordinator.abort(force=coordinator.standing.forced)


async def finish(world: World, coordinator: Coordinator, way: Way) -> None:
    """Do what `update show` says is next, until there is nothing; it must be a way that ends."""
    for _ in range(5):
        world.check()
        told = next_step(coordinator.standing, "", None)
        if world.ended or not told:
            break
        if "`multiroot update resume`" in told:
            await resume(world, coordinator)
        else:
            assert "--until retire" in told
            await (coordinator.release() if way is launched_and_released else coordinator.abort())
    world.check()
    if world.ended:
        assert way is whole_update
        assert world.of("new") == ["web", "db"]
        assert world.child
        return
    assert coordinator.state is State.IDLE
    assert coordinator.begun == ()
    assert not world.taken
    assert not world.child
    assert not world.door_shut
    assert world.services
    if way is not released_by_force:
        assert world.lost == []
        assert world.of("old") == ["web", "db"]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_killed_at_any_moment(way: Way) -> None:
    at = 0
    for world in iter(World, None):
        at += 1
        if not await killed(world, way, at):
            break
        await finish(world, await world.recovered(), way)
    assert at > 30


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_killed_at_any_moment_and_again_while_the_successor_starts(way: Way) -> None:
    at, again, twice = 1, 0, 0
    for world in iter(World, None):
        if not await killed(world, way, at):
            break
        again += 1
        try:
            await world.recovered(again)
        except Killed:
            twice += 1
            world.check()
            await finish(world, await world.recovered(), way)
            continue
        # It was through before it could be killed again.
        at, again = at + 1, 0
    assert twice > 30


@pytest.mark.parametrize("way", [whole_update, there_and_back], ids=lambda way: way.__name__)
async def test_killed_at_any_moment_and_again_while_the_update_is_resumed(way: Way) -> None:
    at, again, twice = 1, 0, 0
    for world in iter(World, None):
        if not await killed(world, way, at):
            break
        coordinator = await world.recovered()
        again += 1
        world.kill_at, world.moments = again, 0
        try:
            await resume(world, coordinator)
        except Killed:
            twice += 1
            world.check()
            await finish(world, await world.recovered(), way)
            continue
        except ConflictError:
            assert "resume`" not in next_step(coordinator.standing, "", None)
        at, again = at + 1, 0
    assert twice > 30


async def test_commands_given_twice_in_a_row_leave_the_same_state() -> None:
    world = World()
    coordinator = world.agent()
    with pytest.raises(ConflictError, match="no update is under way"):
        coordinator.way_on()
    for until in ("load", "handover", "handover", "commit", "commit"):
        await coordinator.update({"request": {}}, until)
        standing = coordinator.standing
        await coordinator.update({"request": {}}, until)
        assert (coordinator.state, coordinator.begun) == (standing.state, standing.begun)
        with pytest.raises(ConflictError, match="no more was asked for"):
            coordinator.way_on()
        assert coordinator.way_on("retire") == "retire"
        with pytest.raises(BadRequestError, match="there is no step 'vm0'"):
            coordinator.way_on("vm0")
    with pytest.raises(ConflictError, match="is committed"):
        await coordinator.abort()


async def test_an_update_that_is_half_taken_back_does_not_go_forward() -> None:
    world = World()
    with pytest.raises(Killed):
        await there_and_back(world.agent(kill_at=67))
    coordinator = world.agent()
    assert coordinator.standing.undoing
    assert not coordinator.joined
    with pytest.raises(ConflictError, match=r"is being taken back .*multiroot update resume"):
        await coordinator.update({"request": {}}, "join")
    assert coordinator.way_on() == ""
    await resume(world, coordinator)
    await finish(world, coordinator, there_and_back)
