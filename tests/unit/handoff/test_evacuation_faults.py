# SPDX-License-Identifier: GPL-2.0-or-later
"""What may go wrong at a bad moment while VMs are handed over, and what is said of each then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from multiroot.errors import CommandError, ConflictError
from multiroot.failpoints import FailPoint
from multiroot.handoff.evacuation import check
from multiroot.handoff.giver import Attempt, attempt
from multiroot.handoff.takeover import Takeover
from multiroot.handoff.terms import PATIENT, Terms
from multiroot.phases import Phase
from multiroot.rpc.v1 import handoff_pb2, handoff_pb2_grpc
from multiroot.vm.instance import Instance, VmState
from multiroot.vm.process import Urgency
from multiroot.vm.vmm import Saved, VmmGoneError

from .harness import target
from .memory_vmm import MemoryVmm
from .several import NAMES, Two


async def test_the_limit_is_over_while_the_old_vmm_is_ended(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The taker runs the guest and has said so: nothing is late."""
    original = MemoryVmm.end

    async def end(vmm: MemoryVmm) -> None:
        await asyncio.sleep(0.3)  # longer than the limit
        await original(vmm)

    async def stopped(_: MemoryVmm) -> int:
        raise AssertionError("nobody asks a VMM that has been let go")

    monkeypatch.setattr(MemoryVmm, "end", end)
    monkeypatch.setattr(MemoryVmm, "stopped", stopped)
    (outcome,) = await two.evacuation(Terms(downtime_ms=150), ["a"]).run()
    assert outcome.result
    assert two.running(two.taker) == ["a"]


@pytest.mark.parametrize("moment", ["owned", "answered"])
async def test_cancelled_too_late_it_is_handed_over(
    two: Two, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The taker owns it already, and has or has not answered yet."""
    going = two.evacuation(names=["a"])
    if moment == "owned":

        def keep(vm: Instance) -> None:
            going.legs["a"].cancelled.set()

        monkeypatch.setattr(Instance, "keep", keep)
    else:
        original = MemoryVmm.end

        async def end(vmm: MemoryVmm) -> None:
            going.legs["a"].cancelled.set()
            await asyncio.sleep(0.1)
            await original(vmm)

        monkeypatch.setattr(MemoryVmm, "end", end)
    (outcome,) = await going.run()
    assert outcome.result, outcome.error
    assert outcome.result.resumed_ns
    assert two.running(two.taker) == ["a"]


async def test_cancelled_at_the_moment_in_which_it_is_taken(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the giver looked, it was its own; when it raised the word, it was not any more."""
    going = two.evacuation(names=["a"])
    give_up = MemoryVmm.send

    async def send(vmm: MemoryVmm) -> None:
        going.legs["a"].cancelled.set()
        await give_up(vmm)

    settle = Attempt.settle

    async def late(self: Attempt, error: BaseException) -> Any:
        while two.giver.host.arena.find("a").owner.root == 1:
            await asyncio.sleep(0.01)
        return await settle(self, error)

    monkeypatch.setattr(MemoryVmm, "send", send)
    monkeypatch.setattr(Attempt, "settle", late)
    monkeypatch.setattr("multiroot.handoff.taker.Taker.abort", _nothing)
    monkeypatch.setattr("multiroot.handoff.incoming.Incoming.abandon", lambda self: False)
    (outcome,) = await going.run()
    assert outcome.result, outcome.error
    # The giver knows by the owner word, which changes before the guest goes on there.
    while two.running(two.taker) != ["a"]:
        await asyncio.sleep(0.01)


async def test_a_vm_that_ends_while_it_waits_for_its_turn_is_not_thought_frozen(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It powers off. The others go on, and nothing of it is left in the taker."""
    going = two.evacuation()
    original = MemoryVmm.hints

    async def hints(vmm: MemoryVmm) -> bytes:
        if vmm is two.giver.manager.get("c").vmm:
            await going.legs["b"].prepared.wait()
            await two.of(two.giver, "b").end()
            await two.giver.manager.get("b").ended()
        return await original(vmm)

    monkeypatch.setattr(MemoryVmm, "hints", hints)
    outcomes = {outcome.name: outcome for outcome in await going.run()}
    assert isinstance(outcomes["b"].error, ConflictError)
    assert outcomes["b"].error.message == "b does not run, it is stopped"
    assert two.giver.manager.get("b").state is VmState.STOPPED
    assert two.running(two.taker) == ["a", "c"]
    assert two.taker.manager.find("b") is None
    await two.giver.manager.stop("b")


async def test_a_vm_that_ends_just_before_it_stands_still_is_not_thought_frozen(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is noticed while the taker makes ready."""
    original = MemoryVmm.take_hints

    async def take_hints(vmm: MemoryVmm, hints: bytes) -> None:
        await two.of(two.giver, "a").end()
        await two.giver.manager.get("a").ended()
        await original(vmm, hints)

    monkeypatch.setattr(MemoryVmm, "take_hints", take_hints)
    (outcome,) = await two.evacuation(names=["a"]).run()
    assert outcome.error
    assert two.giver.manager.get("a").state is VmState.STOPPED


async def test_no_agent_stays_urgent_for_a_vm_whose_vmm_ended_while_it_stood_still(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    urgent: dict[str, bool] = {}

    def need(self: Urgency, who: str, needed: bool) -> None:
        urgent[f"{who} {self is two.giver.host.agent}"] = needed

    async def send(vmm: MemoryVmm) -> None:
        await vmm.end()
        await two.giver.manager.get("a").ended()

    monkeypatch.setattr(Urgency, "need", need)
    monkeypatch.setattr(MemoryVmm, "send", send)
    (outcome,) = await two.evacuation(names=["a"]).run()
    assert outcome.error
    assert two.taker.manager.find("a") is None
    assert urgent == {"a True": False, "a False": False}


async def test_what_fails_here_after_the_taker_has_answered_keeps_no_vm(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def saved(vmm: MemoryVmm) -> Saved:
        raise VmmGoneError("it went away")

    monkeypatch.setattr(MemoryVmm, "saved", saved)
    (outcome,) = await two.evacuation(names=["a"]).run()
    assert outcome.result, outcome.error
    assert two.running(two.taker) == ["a"]


async def test_one_that_fails_by_a_bug_cuts_no_other_short(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of the others is told, and then the bug."""
    original = MemoryVmm.end

    async def hints(vmm: MemoryVmm) -> bytes:
        if vmm is two.giver.manager.get("a").vmm:
            raise ZeroDivisionError
        return b""

    async def end(vmm: MemoryVmm) -> None:
        await asyncio.sleep(0.1)
        await original(vmm)

    monkeypatch.setattr(MemoryVmm, "hints", hints)
    monkeypatch.setattr(MemoryVmm, "end", end)
    with pytest.raises(ZeroDivisionError):
        await two.evacuation().run()
    assert two.told == ["b", "c"]
    assert (two.running(two.giver), two.running(two.taker)) == (["a"], ["b", "c"])
    monkeypatch.setattr(MemoryVmm, "hints", _no_hints)
    check(await two.evacuation(names=["a"]).run(), "multiroot handoff --to new")


async def test_what_cannot_be_prepared_leaves_no_connection(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails before the taker has answered."""
    made: list[int] = []
    original = MemoryVmm.connect

    async def hints(vmm: MemoryVmm) -> bytes:
        raise VmmGoneError("it went away")

    async def connect(vmm: MemoryVmm, fd: int) -> None:
        made.append(fd)
        await original(vmm, fd)

    monkeypatch.setattr(MemoryVmm, "hints", hints)
    monkeypatch.setattr(MemoryVmm, "connect", connect)
    (outcome,) = await two.evacuation(names=["a"]).run()
    assert outcome.error
    assert not any("Attempt._connect" in str(task.get_coro()) for task in asyncio.all_tasks())
    assert not made


async def test_what_fails_in_the_taker_behind_the_point_of_no_return_is_not_said_to_stay(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs there, and handing it over again would fail."""

    original = Takeover._settle_in

    async def settle_in(takeover: Takeover, vm: Instance) -> list[Phase]:
        if vm.name == "b":
            raise CommandError("no such bridge")
        return await original(takeover, vm)

    monkeypatch.setattr(Takeover, "_settle_in", settle_in)
    outcomes = await two.evacuation().run()
    assert two.running(two.taker) == NAMES
    with pytest.raises(CommandError, match=r"^in the other root already: b: no such bridge") as caught:
        check(outcomes, "multiroot handoff --to new")
    assert caught.value.hint == "see `multiroot vm list`"


async def test_the_same_command_a_second_time_says_where_they_are(two: Two) -> None:
    check(await two.evacuation(names=["a", "b"]).run(), "multiroot handoff --to new")
    going = two.evacuation()
    with pytest.raises(ConflictError, match=r"^in the other root already: a: .*; b: b has been handed"):
        check(await going.run(), "multiroot handoff --to new")


async def test_handed_over_again_at_once_it_does_not_meet_what_is_left_in_the_taker(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VMM takes its time to end: its folder must not go when the next one lives in it."""
    send, end = MemoryVmm.send, MemoryVmm.end
    going = two.evacuation(names=["a"])
    discarded = asyncio.Event()

    async def give_up(vmm: MemoryVmm) -> None:
        going.legs["a"].cancelled.set()
        await asyncio.Event().wait()

    async def end_slowly(vmm: MemoryVmm) -> None:
        slow = vmm in two.taker.manager.host.vmm.made and not discarded.is_set()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3 if slow else 0)
        await end(vmm)
        if slow:
            discarded.set()

    monkeypatch.setattr(MemoryVmm, "send", give_up)
    monkeypatch.setattr(MemoryVmm, "end", end_slowly)
    (outcome,) = await going.run()
    assert outcome.error
    monkeypatch.setattr(MemoryVmm, "send", send)
    check(await two.evacuation(names=["a"]).run(), "multiroot handoff --to new")
    await discarded.wait()
    await asyncio.sleep(0)
    assert two.running(two.taker) == ["a"]
    assert two.taker.manager.get("a").folder.read(), "the next agent has to find it"


async def test_a_giver_that_dies_when_the_taker_is_ready_leaves_nothing_there(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its call ends before the taker has begun to wait for the state, and it sends no Abort."""
    ready, gone = asyncio.Event(), asyncio.Event()

    async def reach(point: FailPoint, name: str) -> None:
        if point is FailPoint.TAKER_READY:
            ready.set()
            await asyncio.Event().wait()

    monkeypatch.setattr("multiroot.handoff.handoff_service.reach", reach)
    manager = two.taker.manager
    monkeypatch.setattr(Urgency, "need", lambda _, who, needed: None if needed else gone.set())
    with attempt(two.giver.manager, "a", target(two.taker), two.phases, PATIENT) as going:
        await going.prepare()
        stub = handoff_pb2_grpc.HandoffServiceStub(two.taker.channel)
        call = stub.Transfer(handoff_pb2.TransferRequest(name="a"))
        waiting = asyncio.create_task(call.read())
        await ready.wait()
        call.cancel()
        await asyncio.wait({waiting})
        async with asyncio.timeout(10):
            await gone.wait()
    assert manager.find("a") is None
    await two.taker.taker.close()


async def test_a_taker_that_aborts_when_it_has_said_ready_says_so(two: Two) -> None:
    taker = two.taker.taker
    with attempt(two.giver.manager, "a", target(two.taker), two.phases, PATIENT) as going:
        await going.prepare()
        await taker.ready("a")
        await taker.abort_all()
        with pytest.raises(ConflictError, match="the handoff of a was aborted"):
            await taker.transfer("a")


async def _no_hints(_: MemoryVmm) -> bytes:
    return b""


async def _nothing(*_: object) -> None: ...


@pytest.mark.parametrize("moment", ["hints", "send"])
async def test_a_vmm_that_is_missed_before_its_end_is_seen(
    two: Two, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A killed process needs a while to end. What is said of its VM is why it ended."""

    async def asked(vmm: MemoryVmm) -> bytes:
        vmm.fate = "killed by SIGKILL"
        raise VmmGoneError("QEMU went away during query-status")

    async def cancel(vmm: MemoryVmm) -> str:
        raise VmmGoneError("QEMU went away")

    monkeypatch.setattr(MemoryVmm, moment, asked)
    monkeypatch.setattr(MemoryVmm, "cancel", cancel)
    (outcome,) = await two.evacuation(names=["a"]).run()
    assert isinstance(outcome.error, ConflictError), outcome.error
    assert outcome.error.message == "a does not run, it is failed"
    assert outcome.error.hint == "killed by SIGKILL"
    assert (two.running(two.giver), two.running(two.taker)) == (["b", "c"], [])
