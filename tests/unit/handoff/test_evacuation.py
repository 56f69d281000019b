# SPDX-License-Identifier: GPL-2.0-or-later
"""Several VMs at once: who goes when, who stays, and what puts an end to it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from operator import le
from typing import Any

import pytest

from multiroot.arena import switch as switching
from multiroot.errors import BadRequestError, ConflictError, MultirootError, WaitTimeoutError
from multiroot.handoff.errors import OverdueError
from multiroot.handoff.evacuation import Outcome, check
from multiroot.handoff.terms import PATIENT, Terms
from multiroot.phase_names import PhaseName
from multiroot.phases import Phases

from .memory_vmm import MemoryVmm, MemoryVmms
from .several import NAMES, Two


def begun(phases: Phases, what: PhaseName) -> Callable[[], list[str]]:
    """Names of the VMs for which it began, in order, as they come."""
    seen: list[str] = []
    phases.subscribe(lambda phase: seen.append(str(phase.attrs.get("vm"))) if phase.name == what else None)
    return lambda: list(dict.fromkeys(seen))


async def test_all_go_one_by_one_and_are_told_of(two: Two) -> None:
    outcomes = await two.evacuation(Terms(PATIENT.downtime_ms, first=("c",))).run()
    assert [outcome.name for outcome in outcomes] == ["c", "a", "b"]
    assert two.told == ["c", "a", "b"]
    assert all(outcome.result and outcome.result.epoch == 2 for outcome in outcomes)
    assert (two.running(two.giver), two.running(two.taker)) == ([], NAMES)
    stops = [outcome.result.stopped_ns for outcome in outcomes if outcome.result]
    ends = [outcome.result.resumed_ns for outcome in outcomes if outcome.result]
    assert all(map(le, ends, stops[1:])), "no two stood still at once"


async def test_none_stops_before_all_are_prepared(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = 0
    original = MemoryVmm.connect

    async def connect(vmm: MemoryVmm, fd: int) -> None:
        nonlocal prepared
        await original(vmm, fd)
        prepared += 1

    async def send(vmm: MemoryVmm) -> None:
        assert prepared == len(NAMES)
        await send_original(vmm)

    send_original = MemoryVmm.send
    monkeypatch.setattr(MemoryVmm, "connect", connect)
    monkeypatch.setattr(MemoryVmm, "send", send)
    check(await two.evacuation(Terms(PATIENT.downtime_ms, preparing=2)).run(), "multiroot handoff --to new")


@pytest.mark.parametrize("preparing", [1, 2, 3])
async def test_so_many_are_prepared_at_once(
    two: Two, monkeypatch: pytest.MonkeyPatch, preparing: int
) -> None:
    now = most = 0
    original = MemoryVmm.hints

    async def hints(vmm: MemoryVmm) -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        while most < preparing:
            await asyncio.sleep(0)
        found = await original(vmm)
        now -= 1
        return found

    monkeypatch.setattr(MemoryVmm, "hints", hints)
    await two.evacuation(Terms(PATIENT.downtime_ms, preparing=preparing)).run()
    assert most == preparing


async def test_a_group_goes_at_once(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    sending: set[str] = set()
    all_of_them = asyncio.Event()
    original = MemoryVmm.send

    async def send(vmm: MemoryVmm) -> None:
        sending.add(str(id(vmm)))
        if len(sending) == len(NAMES):
            all_of_them.set()
        await all_of_them.wait()
        await original(vmm)

    monkeypatch.setattr(MemoryVmm, "send", send)
    outcomes = await asyncio.wait_for(two.evacuation(Terms(PATIENT.downtime_ms, group=3)).run(), 30)
    assert all(outcome.result for outcome in outcomes)


async def test_one_that_cannot_go_stays_and_the_others_go(two: Two) -> None:
    await two.giver.manager.get("b").vmm.end()
    await two.giver.manager.get("b").ended()
    outcomes = await two.evacuation().run()
    assert (two.running(two.giver), two.running(two.taker)) == ([], ["a", "c"])
    with pytest.raises(ConflictError, match=r"1 of 3 VMs stay: b: b does not run") as caught:
        check(outcomes, "multiroot handoff --to new")
    assert "`multiroot handoff --to new b`" in caught.value.hint


async def test_a_state_that_is_refused_keeps_that_vm_alone(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two.of(two.giver, "a")._factory.state = b"nonsense"
    outcomes = await two.evacuation(names=["a"]).run()
    two.of(two.giver, "a")._factory.state = MemoryVmms().state
    assert [outcome.result for outcome in outcomes] == [None]
    assert two.running(two.giver) == NAMES
    with pytest.raises(MultirootError, match="no state of mine"):
        check(outcomes, "multiroot handoff --to new")


async def test_one_is_cancelled_while_it_waits_for_its_turn(two: Two) -> None:
    going = two.evacuation()
    running = asyncio.create_task(going.run())
    await going.legs["c"].prepared.wait()
    going.legs["c"].cancelled.set()
    outcomes = {outcome.name: outcome for outcome in await running}
    assert "the handoff of c was cancelled; it goes on in root 1" in str(outcomes["c"].error)
    assert (two.running(two.giver), two.running(two.taker)) == (["c"], ["a", "b"])
    check([outcome for name, outcome in outcomes.items() if name != "c"], "")
    check(await two.evacuation(names=["c"]).run(), "multiroot handoff --to new")


async def test_a_vm_that_stands_still_too_long_goes_on_where_it_was(two: Two, monkeypatch: Any) -> None:
    """The taker hangs while it loads: nothing but the limit puts an end to it."""
    loaded = asyncio.Event()
    loop = asyncio.get_running_loop()
    original = MemoryVmm.take
    go_on = threading.Event()

    def take(vmm: MemoryVmm, switch: switching.Switch, until: switching.Step) -> switching.Outcome:
        original(vmm, switch, switching.Step.HEARD)
        loop.call_soon_threadsafe(loaded.set)
        go_on.wait()
        return original(vmm, switch, until)

    monkeypatch.setattr(MemoryVmm, "take", take)
    try:
        (outcome,) = await two.evacuation(Terms(downtime_ms=50), ["a"]).run()
    finally:
        go_on.set()
    assert isinstance(outcome.error, WaitTimeoutError)
    assert "a stood still for 50 ms and was not root 2's yet; it goes on in root 1" in outcome.error.message
    assert outcome.error.hint == "allow it more: `multiroot handoff --to new --downtime-limit 100 a`"
    assert two.of(two.giver, "a").running
    assert two.giver.manager.get("a").word.read().root == 1
    monkeypatch.undo()
    check(await two.evacuation(names=["a"]).run(), "multiroot handoff --to new")
    assert two.running(two.taker) == ["a"]


async def test_a_vm_that_was_taken_in_time_stays_taken_however_long_the_rest_takes(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiroot.vm.instance.Instance.keep", lambda vm: time.sleep(0.2))
    (outcome,) = await two.evacuation(Terms(downtime_ms=150), ["a"]).run()
    assert outcome.result
    assert two.running(two.taker) == ["a"]


async def test_what_nobody_can_mean_is_refused_before_anything_happens(two: Two) -> None:
    with pytest.raises(BadRequestError, match="named twice: a"):
        two.evacuation(names=["a", "b", "a"])
    with pytest.raises(BadRequestError, match="no VM named 'nobody'"):
        two.evacuation(names=["a", "nobody"])


async def test_a_cancelled_call_leaves_every_vm_somewhere(two: Two) -> None:
    going = two.evacuation()
    running = asyncio.create_task(going.run())
    await going.legs["a"].prepared.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(two.running(two.giver) + two.running(two.taker)) == NAMES


def test_the_error_of_a_single_vm_is_its_own() -> None:
    error = ConflictError("it is busy", "wait")
    with pytest.raises(ConflictError) as caught:
        check([Outcome("a", error=error)], "multiroot handoff --to new")
    assert caught.value is error


def test_errors_of_different_kinds_are_one_that_names_all() -> None:
    outcomes = [
        Outcome("a", error=ConflictError("busy")),
        Outcome("b", error=WaitTimeoutError("slow")),
    ]
    with pytest.raises(MultirootError, match="2 of 2 VMs stay: a: busy; b: slow") as caught:
        check(outcomes, "multiroot handoff --to old")
    assert type(caught.value) is MultirootError
    assert caught.value.hint == "try these again: `multiroot handoff --to old a b`"


def test_what_was_in_the_other_root_already_was_not_handed_over() -> None:
    outcomes = [
        Outcome("a", error=ConflictError("busy")),
        Outcome("b", error=ConflictError("b has been handed to root 2"), gone=True),
    ]
    with pytest.raises(ConflictError) as caught:
        check(outcomes, "multiroot handoff --to new")
    assert caught.value.hint == "try these again: `multiroot handoff --to new a`"


async def test_one_that_is_there_already_is_told_so(two: Two) -> None:
    await two.evacuation(names=["a"]).run()
    (outcome,) = await two.evacuation(names=["a"]).run()
    assert isinstance(outcome.error, ConflictError)
    assert outcome.error.message == "a has been handed to root 2"
    assert outcome.gone


def test_those_that_took_too_long_are_tried_again_with_more_time() -> None:
    slow = OverdueError("slow", "allow it more: ...", 300)
    outcomes = [Outcome("a", error=slow), Outcome("b", error=ConflictError("busy")), Outcome("c")]
    with pytest.raises(MultirootError) as caught:
        check(outcomes, "multiroot handoff --to new")
    again = "`multiroot handoff --to new --downtime-limit 600 a b`"
    assert caught.value.hint == f"the others were handed over; try these again: {again}"
    with pytest.raises(WaitTimeoutError, match="2 of 2 VMs stay"):
        check([Outcome("a", error=slow), Outcome("b", error=slow)], "multiroot handoff --to new")
