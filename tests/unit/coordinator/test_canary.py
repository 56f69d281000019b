# SPDX-License-Identifier: GPL-2.0-or-later
"""The canary: whatever goes wrong with it is told in one line, and nothing of it is left anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from multiroot.coordinator import canary
from multiroot.coordinator.canary import (
    DEFINITION,
    ENOUGH_TICKS,
    HINT,
    REGION,
    REPORT_TICKS,
    Canary,
    CanaryVm,
)
from multiroot.errors import ConflictError, MultirootError
from multiroot.handoff.errors import OverdueError
from multiroot.handoff.terms import USUAL
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases
from multiroot.vm.ticks import Report, Stretch, Tick

A_TICK = REGION // REPORT_TICKS  # bytes that the guest checks


class World:
    """Two roots and a guest that ticks whenever somebody waits for it.

    `broken` has by what is done what goes wrong with it, `spoil` changes a tick as it is seen.
    """

    def __init__(self) -> None:
        self.where = ""  # "here", "there"; "" if there is none
        self.said: dict[str, list[Tick]] = {"here": [], "there": []}
        self.count = 0
        self.done: list[str] = []
        self.broken: dict[str, Callable[[], Awaitable[object]]] = {}
        self.spoil: Callable[[Tick, str], list[Tick]] = lambda tick, where: [tick]
        self.phases = Phases("root 1")
        self.canary = Canary(
            CanaryVm(
                run=self._run,
                hand_over=lambda terms: self._move("hand over", "here", "there"),
                hand_back=lambda: self._move("hand back", "there", "here"),
                ticks_here=lambda count: self._ticks("here", count),
                ticks_there=lambda count: self._ticks("there", count),
                stop=self._stop,
            ),
            self.phases,
        )

    async def _note(self, what: str) -> None:
        self.done.append(what)
        if broken := self.broken.get(what):
            await broken()

    async def _run(self) -> None:
        assert not self.where, "two of one name"
        await self._note("run")
        self.where, self.count, self.said["here"] = "here", 0, []

    async def _move(self, what: str, giver: str, taker: str) -> None:
        assert self.where == giver
        self._tick(7)
        await self._note(what)
        self.where, self.said[taker] = taker, []

    async def _ticks(self, where: str, count: int) -> Stretch:
        if count:
            await self._note(f"tick {where}")
            assert self.where == where
            self._tick(count)
        return Stretch(b"", 0, tuple(self.said[where]))

    def _tick(self, times: int) -> None:
        for _ in range(times):
            self.count += 1
            report = Report(self.count, "boot", 0, 0, self.count * A_TICK, 0, 0)
            tick = Tick(self.count, 0, None if self.count % REPORT_TICKS else report)
            self.said[self.where] += self.spoil(tick, self.where)

    async def _stop(self) -> None:
        await self._note("stop")
        self.where = ""


def failing(error: MultirootError, times: int = 1) -> Callable[[], Awaitable[object]]:
    left = [error] * times

    async def fail() -> None:
        if left:
            raise left.pop()

    return fail


async def forever() -> None:
    await asyncio.Event().wait()


async def fails(world: World) -> MultirootError:
    with pytest.raises(MultirootError) as failed:
        await world.canary.prove(USUAL)
    assert world.where == "", "nothing is left"
    assert "`multiroot update resume --no-canary`" in failed.value.hint
    assert "`multiroot update abort`" in failed.value.hint
    return failed.value


async def test_it_goes_there_and_back_and_is_gone() -> None:
    world = World()
    await world.canary.prove(USUAL)
    assert world.done == [
        "stop", "run", "tick here", "hand over", "tick there", "hand back", "tick here", "stop",
    ]  # fmt: skip
    assert world.where == ""
    (phase,) = world.phases.finished
    assert (phase.name, phase.ok) == (PhaseName.CANARY, True)
    assert phase.attrs["ticks"] == world.count == REPORT_TICKS + 7 + ENOUGH_TICKS + 7 + ENOUGH_TICKS


async def test_it_boots_while_the_new_root_comes_up() -> None:
    world = World()
    booted = asyncio.Event()
    world.broken["tick here"] = booted.wait
    world.canary.boot_ahead()
    world.canary.boot_ahead()
    while "tick here" not in world.done:
        await asyncio.sleep(0)
    proving = asyncio.create_task(world.canary.prove(USUAL))
    await asyncio.sleep(0)
    assert world.done == ["stop", "run", "tick here"]
    booted.set()
    await proving
    assert world.done[3:] == ["hand over", "tick there", "hand back", "tick here", "stop"]
    await world.canary.prove(USUAL)
    assert world.done.count("run") == 2


@pytest.mark.parametrize("what", ["stop", "run", "tick here"])
async def test_one_that_does_not_boot_ahead_boots_when_it_is_needed(what: str) -> None:
    world = World()
    world.broken[what] = failing(ConflictError("no luck"))
    world.canary.boot_ahead()
    await world.canary.prove(USUAL)
    assert world.where == ""
    assert world.done[-5:] == ["hand over", "tick there", "hand back", "tick here", "stop"]


async def test_one_that_boots_ahead_is_removed_with_the_new_root() -> None:
    world = World()
    world.broken["tick here"] = forever
    world.canary.boot_ahead()
    while "tick here" not in world.done:
        await asyncio.sleep(0)
    await world.canary.remove()
    assert world.where == ""
    assert world.done == ["stop", "run", "tick here", "stop"]


async def test_one_that_boots_ahead_is_cancelled_when_it_is_waited_for() -> None:
    world = World()
    world.broken["tick here"] = forever
    world.canary.boot_ahead()
    assert not world.canary.cancel(), "nobody waits for it yet"
    proving = asyncio.create_task(world.canary.prove(USUAL))
    while not world.canary.cancel():
        await asyncio.sleep(0)
    with pytest.raises(MultirootError, match="it was cancelled"):
        await proving
    assert world.where == ""


async def test_one_that_is_on_its_way_goes_no_further() -> None:
    """It has come to the new root and is not waited for there."""
    world = World()
    world.canary.stay()  # nothing is under way
    moving, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        moving.set()
        await go_on.wait()

    world.broken["hand over"] = slow
    world.broken["tick there"] = forever
    proving = asyncio.create_task(fails(world))
    await moving.wait()
    world.canary.stay()
    go_on.set()
    assert (await proving).message.endswith(": it was cancelled")
    assert world.where == ""


async def test_one_that_stood_still_for_too_long_says_how_vms_may_for_longer() -> None:
    world = World()

    async def overdue() -> None:
        raise OverdueError("it stood still for 300 ms", limit_ms=300)

    world.broken["hand over"] = overdue
    error = await fails(world)
    assert error.hint.startswith("`multiroot update resume --downtime-limit 600` lets VMs stand still")
    assert error.hint.endswith(HINT)


def test_its_vm_is_one_that_any_root_runs() -> None:
    assert DEFINITION.checked() == replace(DEFINITION, cards=DEFINITION.checked().cards)
    assert (DEFINITION.cpus, DEFINITION.guest) == (1, "ticker")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("run", "the canary could not be started: no luck"),
        ("hand over", "the canary did not go to the new root: no luck"),
        ("tick there", "the canary did not run on in the new root: no luck"),
        ("hand back", "the canary did not come back from the new root: no luck"),
    ],
)
async def test_what_fails_is_told_and_the_vm_is_ended(what: str, says: str) -> None:
    world = World()
    world.broken[what] = failing(ConflictError("no luck", "buy a ticket"))
    error = await fails(world)
    assert (error.message, type(error)) == (says, ConflictError), "its exit code says what is in the way"
    assert world.done[-2:] == [what, "stop"]
    await world.canary.prove(USUAL)


@pytest.mark.parametrize(
    ("what", "seconds", "says"),
    [
        ("hand over", "MOVE_S", "the canary did not go to the new root within 0.05 s"),
        ("tick there", "TICKS_S", "the canary did not run on in the new root within 0.05 s"),
    ],
)
async def test_what_takes_too_long_is_given_up(
    monkeypatch: pytest.MonkeyPatch, what: str, seconds: str, says: str
) -> None:
    monkeypatch.setattr(canary, seconds, 0.05)
    world = World()
    world.broken[what] = forever
    assert (await fails(world)).message == says


def lost(tick: Tick, where: str) -> list[Tick]:
    return [] if where == "there" and tick.counter % 50 == 0 else [tick]


def twice(tick: Tick, where: str) -> list[Tick]:
    return [tick, tick] if where == "there" and tick.counter % 50 == 0 else [tick]


def bad(tick: Tick, where: str) -> list[Tick]:
    damaged = where == "there" and tick.report
    return [replace(tick, report=replace(damaged, bad_bytes=8))] if damaged else [tick]


def rebooted(tick: Tick, where: str) -> list[Tick]:
    return [replace(tick, report=replace(tick.report, boot_id=where))] if tick.report else [tick]


def idle(tick: Tick, where: str) -> list[Tick]:
    return [replace(tick, report=replace(tick.report, checked_bytes=5))] if tick.report else [tick]


def dumb(tick: Tick, where: str) -> list[Tick]:
    return [replace(tick, report=None)] if where == "there" else [tick]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lost, "ticks are missing: 2"),
        (twice, "ticks came twice: 2"),
        (bad, "bytes of its memory are bad: 8"),
        (rebooted, "it booted again: 1"),
        (idle, f"bytes of its memory that it has not checked: {REGION}"),
        (dumb, "the guest does not tell of its memory"),
    ],
)
async def test_a_guest_that_came_to_harm_is_seen_in_the_new_root(
    spoil: Callable[[Tick, str], list[Tick]], says: str
) -> None:
    world = World()
    world.spoil = spoil
    assert (await fails(world)).message == f"the canary did not run on in the new root: {says}"
    assert "hand back" not in world.done


async def test_harm_on_the_way_back_is_seen_here() -> None:
    world = World()
    home: list[int] = []

    def spoil(tick: Tick, where: str) -> list[Tick]:
        home.extend([tick.counter] if where == "here" and "hand back" in world.done else [])
        return [] if home and tick.counter == home[0] else [tick]

    world.spoil = spoil
    says = "the canary did not run on in this root after it had come back: ticks are missing: 1"
    assert (await fails(world)).message == says


async def test_a_guest_that_is_silent_while_it_boots_gets_another_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.broken["tick here"] = failing(ConflictError("it is stopped"))
    await world.canary.prove(USUAL)
    assert world.done[:5] == ["stop", "run", "tick here", "stop", "run"]
    monkeypatch.setattr(canary, "BOOT_S", 0.05)
    world.broken["tick here"] = forever
    world.done.clear()
    assert (await fails(world)).message == "the canary did not boot in this root within 0.05 s"
    assert world.done.count("run") == canary.BOOTS


async def test_what_an_earlier_attempt_left_is_ended_first() -> None:
    world = World()
    world.where = "there"
    await world.canary.prove(USUAL)
    world.where = "there"
    await world.canary.remove()
    assert world.where == ""


async def test_a_call_that_is_cancelled_leaves_nothing() -> None:
    world = World()
    reached = asyncio.Event()

    async def wait() -> None:
        reached.set()
        await forever()

    world.broken["hand back"] = wait
    proving = asyncio.create_task(world.canary.prove(USUAL))
    await reached.wait()
    proving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await proving
    assert world.where == ""


@pytest.mark.parametrize("what", ["tick here", "tick there"])
async def test_one_that_is_waited_for_can_be_cancelled(what: str) -> None:
    world = World()
    assert not world.canary.cancel()
    reached = asyncio.Event()

    async def wait() -> None:
        reached.set()
        await forever()

    world.broken[what] = wait
    proving = asyncio.create_task(fails(world))
    await reached.wait()
    assert world.canary.cancel()
    assert (await proving).message.endswith(": it was cancelled")
    assert world.done.count("run") == 1
    assert not world.canary.cancel()
    del world.broken[what]
    await world.canary.prove(USUAL)


async def test_one_that_does_not_end_is_told_to_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "AGAIN_S", 0.01)
    world = World()
    ended = asyncio.Event()
    refusals = 3

    async def refuse() -> None:
        nonlocal refusals
        if "hand over" not in world.done:
            return
        refusals -= 1
        if refusals >= 0:
            raise MultirootError("root 2's agent does not answer")
        ended.set()

    world.broken = {"stop": refuse, "tick there": failing(MultirootError("no luck"))}
    with pytest.raises(MultirootError, match="did not run on in the new root: no luck"):
        await world.canary.prove(USUAL)
    assert world.where == "there"
    async with asyncio.timeout(10):
        await ended.wait()
        await world.canary.remove()
    assert world.where == ""


async def test_one_that_was_left_and_does_not_end_holds_the_next_one_off() -> None:
    world = World()
    world.broken["stop"] = failing(MultirootError("root 2's agent does not answer"))
    says = "the canary of an earlier attempt did not end: root 2's agent does not answer"
    with pytest.raises(MultirootError, match=says):
        await world.canary.prove(USUAL)
    assert world.done == ["stop"]


async def test_one_that_is_cancelled_while_it_starts_ahead_leaves_nothing() -> None:
    """What has begun to start it goes on for a while, and it is there only then."""
    world = World()

    async def slow() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            for _ in range(9):
                await asyncio.sleep(0)
            world.where = "here"
            raise

    world.broken["run"] = slow
    world.canary.boot_ahead()
    proving = asyncio.create_task(fails(world))
    while not world.canary.cancel():
        await asyncio.sleep(0)
    assert (await proving).message.endswith(": it was cancelled")
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.where == ""
