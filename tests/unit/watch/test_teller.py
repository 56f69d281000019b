# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent tells: all of it, changes, ticks, beats; and nothing while a guest stands still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import grpc.aio
import pytest

from multiroot.errors import ConflictError
from multiroot.rpc.client import Address
from multiroot.rpc.v1 import watch_pb2_grpc
from multiroot.vm.ticks import Stretch, Tick
from multiroot.watch import teller
from multiroot.watch.events import Change, State
from multiroot.watch.facts import Facts, RootFacts, RootState, VmFacts
from multiroot.watch.hub import MOST
from multiroot.watch.kept_ticks import KeptTicks
from multiroot.watch.signal import Signal
from multiroot.watch.teller import Teller
from multiroot.watch.told import Beat, Seen, Told, from_proto
from multiroot.watch.watch_service import WatchService
from multiroot.watch.ways import opener


class Root:
    """A root with a VM, counted how often it is looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.owner = 1
        self.quiet = False
        self.broken = False
        self.takes_s = 0.0
        self.stretches: list[tuple[str, Stretch]] = []
        self.restarts = 0
        self.signal = Signal(lambda: self.quiet)
        self.teller = Teller(self.look, self, lambda: 5, self.signal)

    def look(self) -> Facts:
        self.looks += 1
        time.sleep(self.takes_s)
        if self.broken:
            raise ConflictError("the arena is damaged")
        return Facts(
            roots={"1": RootFacts(1, "old", RootState.ALIVE)},
            vms={"vm0": VmFacts("running", self.owner, self.owner)},
        )

    def restart(self) -> None:
        self.restarts += 1

    def read(self) -> Iterator[tuple[str, Stretch]]:
        while self.stretches:
            yield self.stretches.pop(0)


@pytest.fixture
async def root(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Root, None]:
    for name, seconds in (("LOOK_S", 30), ("TICKS_S", 0.02), ("GATHER_S", 0.005), ("QUIET_S", 0.02)):
        monkeypatch.setattr(teller, name, seconds)
    monkeypatch.setattr(teller, "BEAT_S", 30)
    made = Root()
    yield made
    await made.teller.close()


async def following(events: AsyncGenerator[Told, None]) -> Told:
    return await asyncio.wait_for(anext(events), 5)


async def test_all_of_it_and_then_what_a_ring_says_has_changed(root: Root) -> None:
    events = root.teller.tell()
    first = await following(events)
    assert isinstance(first, State)
    assert first.document["vms"]["vm0"]["owner"] == 1
    assert root.restarts == 1
    looks = root.looks
    await asyncio.sleep(0.1)
    assert root.looks == looks  # nothing rang
    root.owner = 2
    root.signal.ring()
    assert await following(events) == Change(5, {"vms": {"vm0": {"owner": 2, "epoch": 2}}})
    await events.aclose()


async def test_where_a_look_takes_long_beats_come_in_between(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "LOOK_S", 0)
    monkeypatch.setattr(teller, "BEAT_S", 0)
    root.takes_s = 0.05
    events = root.teller.tell()
    await following(events)
    looks: list[int] = []
    while len(set(looks)) < 4:
        assert isinstance(await following(events), Beat)
        looks.append(root.looks)
    # Without the rest there is a look for each.
    assert len(looks) > 2 * len(set(looks))
    await events.aclose()


async def test_one_that_wakes_up_late_says_first_that_it_lives(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "BEAT_S", 0.1)
    events = root.teller.tell()
    await following(events)
    root.owner, root.takes_s = 2, 0.2
    time.sleep(0.2)  # nobody gets any CPU
    root.signal.ring()
    told = [await following(events) for _ in range(2)]
    assert isinstance(told[0], Beat)
    assert isinstance(told[1], Change)
    await events.aclose()


async def test_nothing_is_looked_at_when_nobody_watches(root: Root) -> None:
    events = root.teller.tell()
    await following(events)
    await events.aclose()
    looks = root.looks
    root.signal.ring()
    await asyncio.sleep(0.1)
    assert root.looks == looks
    # Whoever comes then gets what is true then.
    root.owner = 2
    again = root.teller.tell()
    first = await following(again)
    assert isinstance(first, State)
    assert first.document["vms"]["vm0"]["owner"] == 2
    await again.aclose()


async def test_while_a_guest_stands_still_nobody_is_woken_and_afterwards_all_is_told(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "TICKS_S", 30)
    monkeypatch.setattr(teller, "QUIET_S", 30)
    events = root.teller.tell()
    await following(events)
    await asyncio.sleep(0.05)  # it waits by now
    looks = root.looks
    root.quiet = True
    root.owner = 2
    root.signal.ring()
    await asyncio.sleep(0.1)
    assert root.looks == looks
    root.quiet = False
    root.signal.ring()
    told = await following(events)
    assert isinstance(told, Change)
    assert told.patch["vms"]["vm0"]["owner"] == 2
    await events.aclose()


async def test_in_a_long_blackout_there_are_beats_and_no_looks(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "BEAT_S", 0.03)
    events = root.teller.tell()
    await following(events)
    root.quiet = True
    looks = root.looks
    root.signal.ring()
    assert [await following(events) for _ in range(3)] == [Beat(5)] * 3
    assert root.looks == looks
    root.owner = 2
    root.quiet = False
    told = await following(events)
    while isinstance(told, Beat):
        told = await following(events)
    assert isinstance(told, Change)  # the ring was not forgotten
    await events.aclose()


async def test_ticks_are_told(root: Root) -> None:
    stretch = Stretch(b"", None, (Tick(7, 70),), b"T")
    events = root.teller.tell()
    await following(events)
    root.stretches.append(("vm0", stretch))
    assert await following(events) == Seen(5, "vm0", stretch)
    await events.aclose()


def beats(first: int, count: int) -> Stretch:
    return Stretch(b"", None, tuple(Tick(number, 10 * number) for number in range(first, first + count)))


async def test_who_comes_back_soon_gets_the_ticks_since_and_who_comes_late_none(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = root.teller.tell()
    await following(events)
    told = [beats(1, 3), beats(4, 3), beats(7, 3)]
    for stretch in told[:2]:
        root.stretches.append(("vm0", stretch))
        await following(events)
    # The second one was on its way when the stream broke. The third was ticked while nobody watched.
    await events.aclose()
    root.stretches.append(("vm0", told[2]))
    events = root.teller.tell({"vm0": 30, "vm1": 5})
    assert isinstance(await following(events), State)
    assert [await following(events) for _ in range(2)] == [Seen(5, "vm0", each) for each in told[1:]]
    assert root.restarts == 1
    await events.aclose()
    monkeypatch.setattr(teller, "RESUME_S", -1.0)
    events = root.teller.tell({"vm0": 0})
    await following(events)
    assert root.restarts == 2
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(events), 0.1)
    await events.aclose()


def test_kept_ticks_are_bounded() -> None:
    kept = KeptTicks(most=10)
    for number in range(100):
        kept.add(Seen(5, f"vm{number % 2}", beats(4 * number, 4)))
    assert [each.stretch for each in kept.since({"vm1": 0})] == [beats(4 * 99, 4)]
    assert [each.vm for each in kept.since({"vm0": 0, "vm1": 0})] == ["vm0", "vm1"]
    kept.add(Seen(5, "vm0", beats(0, 1000)))
    assert len(list(kept.since({"vm0": 0, "vm1": 0}))) == 1


async def test_facts_that_cannot_be_had_leave_those_from_before(
    root: Root, caplog: pytest.LogCaptureFixture
) -> None:
    events = root.teller.tell()
    await following(events)
    root.broken = True
    for _ in range(3):
        root.signal.ring()
        await asyncio.sleep(0.05)
    assert caplog.text.count("the arena is damaged") == 1
    root.broken, root.owner = False, 2
    root.signal.ring()
    assert isinstance(await following(events), Change)
    await events.aclose()


async def test_a_slow_reader_gets_a_state_anew(root: Root) -> None:
    slow = root.teller.tell()
    await following(slow)
    for number in range(3 * MOST):
        root.stretches.append(("vm0", Stretch(b"", None, (Tick(number, number),))))
    async with asyncio.timeout(5):
        while root.stretches:
            await asyncio.sleep(0.01)
    told = [await following(slow) for _ in range(1)]
    assert isinstance(told[0], State)
    await slow.aclose()


async def test_when_the_agent_ends_so_do_the_streams(root: Root) -> None:
    events = root.teller.tell()
    await following(events)
    await root.teller.end()
    with pytest.raises(StopAsyncIteration):
        await following(events)
    assert root.teller._running is None


async def test_over_grpc(root: Root, tmp_path: Path) -> None:
    server = grpc.aio.server()
    watch_pb2_grpc.add_WatchServiceServicer_to_server(WatchService(1, root.teller), server)
    server.add_insecure_port(f"unix:{tmp_path}/agent")
    await server.start()
    messages = opener(Address(f"unix:{tmp_path}/agent"))(None, {})
    try:
        async with asyncio.timeout(10):
            first = await anext(messages)
            assert first.root == 1
            assert isinstance(from_proto(first), State)
            root.stretches.append(("vm0", Stretch(b"a", 3, (Tick(7, 70),), b"T")))
            assert from_proto(await anext(messages)) == Seen(5, "vm0", Stretch(b"a", 3, (Tick(7, 70),), b"T"))
    finally:
        await messages.aclose()
        await server.stop(None)
