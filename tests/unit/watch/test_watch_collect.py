# SPDX-License-Identifier: GPL-2.0-or-later
"""The collector with agents that are lists: joining roots, silence, the change from one root to the next."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from multiroot.errors import PeerLostError
from multiroot.rpc.client import Address
from multiroot.rpc.v1 import watch_pb2
from multiroot.vm.ticks import Stretch, Tick
from multiroot.watch import collect, ways
from multiroot.watch.collect import Collector
from multiroot.watch.decode import to_json
from multiroot.watch.events import Event, Points
from multiroot.watch.facts import (
    CpuFacts,
    ExtentFacts,
    Facts,
    HandoffFacts,
    MemoryKind,
    RangeFacts,
    RootFacts,
    RootState,
    Stage,
    StreamFacts,
    VmFacts,
)
from multiroot.watch.told import Beat, Change, Seen, State, Told, to_proto

MS = 1_000_000
ALIVE, STARTING = RootState.ALIVE, RootState.STARTING


class World:
    """A machine with agents; time goes on by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.starved = 3.0
        self.front = 1  # the root whose agent answers at the address
        self.streams: dict[int, list[asyncio.Queue[watch_pb2.WatchEvent | None]]] = {}
        self.documents: dict[int, dict[str, Any]] = {}
        self.refused: set[int] = set()
        self.asked_since: ways.Since = {}
        monkeypatch.setattr(collect, "CHECK_S", 0.005)
        monkeypatch.setattr(ways, "AGAIN_S", 0.005)

    async def open(self, asked: int | None, since: ways.Since) -> AsyncIterator[watch_pb2.WatchEvent]:
        self.asked_since = since
        root = self.front if asked is None else asked
        queue: asyncio.Queue[watch_pb2.WatchEvent | None] = asyncio.Queue()
        if root in self.documents and root not in self.refused:
            self.streams.setdefault(root, []).append(queue)
            queue.put_nowait(to_proto(root, State(self.tsc, self.documents[root])))
        while (message := await queue.get()) is not None:
            yield message

    @property
    def tsc(self) -> int:
        return int((self.now - 900) * 1e9)

    def tell(self, root: int, told: Callable[[int], Told]) -> None:
        for queue in self.streams.get(root, ()):
            queue.put_nowait(to_proto(root, told(self.tsc)))

    def beat(self, root: int, hearts: dict[int, int]) -> None:
        """A root's agent says that it is alive, and what it has seen of its neighbours."""
        for queue in self.streams.get(root, ()):
            queue.put_nowait(to_proto(root, Beat(self.tsc), hearts))

    def facts(self, root: int, facts: Facts) -> None:
        """What a root's agent knows from now on."""
        self.documents[root] = to_json(facts)
        self.tell(root, lambda at: State(at, self.documents[root]))

    def end(self, root: int) -> None:
        """Its agent goes away, and its streams with it."""
        self.refused.add(root)
        for queue in self.streams.pop(root, []):
            queue.put_nowait(None)

    @asynccontextmanager
    async def collector(self) -> AsyncIterator[Collector]:
        made = Collector(
            Address("none"), starved=lambda: self.starved, open_stream=self.open, clock=lambda: self.now
        )
        async with made:
            yield made


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(monkeypatch)
    made.facts(1, one_root())
    return made


def one_root() -> Facts:
    return Facts(
        cpus={"0": CpuFacts(1, 0), "1": CpuFacts(1, 1)},
        memory={"0x100000": RangeFacts(0x100000, 1 << 30, MemoryKind.SYSTEM, 1, "System RAM")},
        roots={"1": RootFacts(1, "old", ALIVE, "6.12", booted_ns=5)},
        vms={"vm0": VmFacts("running", 1, 1, 1 << 28, 1, "ticker", [ExtentFacts(1 << 32, 1 << 28)])},
    )


def giver(epoch: int = 1) -> Facts:
    """Root 1 with root 2 beside it; by `epoch`, before or after the handoff."""
    facts = one_root()
    facts.roots["2"] = RootFacts(2, "new", ALIVE, "7.0")
    facts.cpus["1"] = CpuFacts(2, None)
    facts.memory["0x100000"] = RangeFacts(0x100000, 1 << 29, MemoryKind.SYSTEM, 1)
    facts.memory["0x20100000"] = RangeFacts(0x20100000, 1 << 29, MemoryKind.CARVE, 2, "carve")
    if epoch == 2:
        facts.vms["vm0"].state, facts.vms["vm0"].owner, facts.vms["vm0"].epoch = "handed", 2, 2
        facts.handoffs["vm0/2"] = HandoffFacts(
            "vm0", 1, 2, 2, Stage.DONE, 1, 100_000 * MS, 100_090 * MS, 0, 70_000, 0
        )
    return facts


def taker(epoch: int = 1, parent: RootState = ALIVE) -> Facts:
    vm = VmFacts("running", 2, 2, 1 << 28, 1, "ticker") if epoch == 2 else VmFacts("handed", 1, 1, 1 << 28)
    return Facts(
        cpus={"0": CpuFacts(1, None), "1": CpuFacts(2, 0)},
        memory={"0x20100000": RangeFacts(0x20100000, 1 << 28, MemoryKind.SYSTEM, 2)},
        roots={"1": RootFacts(1, "old", parent), "2": RootFacts(2, "new", ALIVE, "7.0", booted_ns=9)},
        vms={"vm0": vm},
    )


async def until(it: Collector, condition: Callable[[Facts], bool]) -> Facts:
    async with asyncio.timeout(5):
        return await it.wait(condition)


async def test_one_root(world: World) -> None:
    async with world.collector() as it:
        facts = await until(it, lambda f: bool(f.roots))
        assert facts.roots["1"].state is ALIVE
        assert (facts.vms["vm0"].owner, facts.vms["vm0"].epoch) == (1, 1)
        world.tell(1, lambda at: Change(at, {"vms": {"vm0": None}}))
        await until(it, lambda f: not f.vms)


async def test_two_roots_are_joined_each_believed_about_itself(world: World) -> None:
    world.facts(1, giver())
    world.facts(2, taker())
    async with world.collector() as it:
        facts = await until(it, lambda f: f.roots.get("2", RootFacts()).state is ALIVE)
        assert facts.roots["2"].booted_ns == 9
        assert facts.roots["1"].kernel_release == "6.12"
        assert facts.vms["vm0"].state == "running"
        assert facts.cpus["1"] == CpuFacts(2, 0)
        # What the new root has of its carve is in the carve already.
        assert [(each.kind, each.root) for each in facts.memory.values()] == [
            (MemoryKind.SYSTEM, 1),
            (MemoryKind.CARVE, 2),
        ]


async def test_a_root_whose_agent_has_not_spoken_yet_is_starting(world: World) -> None:
    world.facts(1, giver())
    async with world.collector() as it:
        facts = await until(it, lambda f: "2" in f.roots)
        assert facts.roots["2"].state is STARTING


async def two_with_hearts(world: World, it: Collector) -> None:
    await until(it, lambda f: f.roots.get("2", RootFacts()).state is ALIVE)


async def test_a_root_whose_neighbour_sees_its_heart_beat_is_alive_though_its_word_is_late(
    world: World,
) -> None:
    world.facts(1, giver())
    world.facts(2, taker())
    async with world.collector() as it:
        await two_with_hearts(world, it)
        for _ in range(3):
            world.now += 0.8
            world.beat(1, {2: world.tsc - 100 * MS})
            await asyncio.sleep(0.05)
            assert it.view.facts.roots["2"].state is ALIVE
        # What it told last gets old: its heart alone is not enough.
        world.now += 0.8
        world.beat(1, {2: world.tsc})
        await until(it, lambda f: f.roots["2"].state is RootState.UNKNOWN)


async def test_a_heart_that_stands_still_is_silence_within_a_second(world: World) -> None:
    world.facts(1, giver())
    world.facts(2, taker())
    async with world.collector() as it:
        await two_with_hearts(world, it)
        world.now += 0.5
        last = world.tsc
        world.beat(1, {2: last})
        await asyncio.sleep(0.05)
        world.now += ways.SILENT_S + 0.01
        world.beat(1, {2: last})
        facts = await until(it, lambda f: f.roots["2"].state is RootState.UNKNOWN)
        assert facts.roots["1"].state is ALIVE
        assert facts.roots["2"].heard_ns == pytest.approx(last, abs=MS)


async def test_what_a_neighbour_says_of_the_future_and_of_strangers_means_nothing(world: World) -> None:
    world.facts(1, giver())
    world.facts(2, taker())
    async with world.collector() as it:
        await two_with_hearts(world, it)
        world.now += ways.SILENT_S + 0.01
        world.beat(1, {2: world.tsc + 10_000 * MS, 9: world.tsc})
        facts = await until(it, lambda f: f.roots["2"].state is RootState.UNKNOWN)
        assert "9" not in facts.roots


def test_who_got_no_cpu_reads_first_and_judges_then_but_not_never() -> None:
    listening, step = collect.Listening(), collect.CHECK_S
    steps = [100.0, 100.0 + step, 102.0]
    while steps[-1] < 102.0 + collect.CATCH_UP_S:
        steps.append(steps[-1] + step)
    assert [listening.well(now) for now in steps] == [True, True, *[False] * (len(steps) - 3), True]
    # One that never gets enough of it judges now and then.
    late = [listening.well(110.0 + 0.4 * number) for number in range(10)]
    assert 2 <= sum(late) <= 5


async def test_the_time_in_which_a_machine_is_kept_from_running_is_no_silence(world: World) -> None:
    async with world.collector() as it:
        await until(it, lambda f: bool(f.roots))
        world.starved += 1.5
        world.now += 2.0
        await asyncio.sleep(0.05)
        assert it.view.facts.roots["1"].state is ALIVE
        world.now += 0.5
        await until(it, lambda f: f.roots["1"].state is RootState.UNKNOWN)
        world.tell(1, Beat)
        await until(it, lambda f: f.roots["1"].state is ALIVE)
        # What was told so long ago is old, whatever the reason.
        world.starved += 100.0
        world.now += ways.LATE_S + 0.1
        await until(it, lambda f: f.roots["1"].state is RootState.UNKNOWN)


async def test_a_silent_agent_is_unknown_within_a_second_and_back_when_it_speaks(world: World) -> None:
    async with world.collector() as it:
        await until(it, lambda f: bool(f.roots))
        heard_ns = world.tsc
        world.now += ways.SILENT_S - 0.01
        world.tell(1, Beat)
        await asyncio.sleep(0.05)
        assert it.view.facts.roots["1"].state is ALIVE
        world.now += ways.SILENT_S + 0.01
        facts = await until(it, lambda f: f.roots["1"].state is RootState.UNKNOWN)
        assert facts.vms["vm0"].state == "unknown"
        assert facts.roots["1"].heard_ns >= heard_ns
        assert it.view.at - facts.roots["1"].heard_ns < 1e9
        world.tell(1, Beat)
        facts = await until(it, lambda f: f.roots["1"].state is ALIVE)
        assert facts.vms["vm0"].state == "running"


async def test_the_owner_word_flips_once_whoever_tells_it_first(world: World) -> None:
    world.facts(1, giver())
    world.facts(2, taker())
    owners: list[tuple[int, int]] = []
    async with world.collector() as it:
        await until(it, lambda f: f.roots.get("2", RootFacts()).state is ALIVE)

        async def watch() -> None:
            async for _ in it.events():
                vm = it.view.facts.vms["vm0"]
                if not owners or owners[-1] != (vm.owner, vm.epoch):
                    owners.append((vm.owner, vm.epoch))

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        world.facts(2, taker(2))
        await until(it, lambda f: f.vms["vm0"].epoch == 2)
        world.facts(1, giver(2))
        facts = await until(it, lambda f: "vm0/2" in f.handoffs)
        watching.cancel()
    assert owners == [(1, 1), (2, 2)]
    assert facts.vms["vm0"].state == "running"
    assert facts.handoffs["vm0/2"].stopped_ns == 100_000 * MS


async def test_the_old_root_ends_and_the_new_one_goes_on(world: World) -> None:
    world.facts(1, giver(2))
    world.facts(2, taker(2))
    async with world.collector() as it:
        await until(it, lambda f: f.roots.get("2", RootFacts()).state is ALIVE)
        world.end(1)
        world.front = 2
        world.now += 1.0
        world.facts(2, taker(2, parent=RootState.ENDED))
        facts = await until(it, lambda f: f.roots["1"].state is RootState.ENDED)
        assert facts.roots["2"].state is ALIVE
        assert facts.handoffs["vm0/2"].device_state_bytes == 70_000
        assert all(each.root == 2 for each in facts.memory.values())
        # The next root appears, and is heard.
        third = taker(2, parent=RootState.ENDED)
        third.roots["3"] = RootFacts(3, "new", ALIVE)
        world.facts(3, Facts(roots={"3": RootFacts(3, "new", ALIVE, "7.1")}))
        world.facts(2, third)
        facts = await until(it, lambda f: f.roots.get("3", RootFacts()).kernel_release == "7.1")
        assert set(facts.roots) == {"1", "2", "3"}
        async with asyncio.timeout(5):
            # There is one way to each: nothing is told twice.
            while [len(world.streams.get(root, [])) for root in (2, 3)] != [2, 1] or 2 in it._ways:
                await asyncio.sleep(0.01)


async def test_a_root_that_crashes_is_told_so_and_its_vms_are_lost(world: World) -> None:
    world.facts(1, giver(2))
    world.facts(2, taker(2))
    async with world.collector() as it:
        await until(it, lambda f: f.roots.get("2", RootFacts()).state is ALIVE)
        world.end(2)
        after = giver(2)
        after.roots["2"].state = RootState.CRASHED
        world.facts(1, after)
        world.now += 1.0
        world.tell(1, Beat)
        facts = await until(it, lambda f: f.roots["2"].state is RootState.CRASHED)
        facts = await until(it, lambda f: f.vms["vm0"].state == "lost")
        assert facts.roots["1"].state is ALIVE


def ticks(first: int, count: int, start_ns: int, head: bytes = b"", tail: bytes = b"") -> Stretch:
    seen = tuple(Tick(first + n, start_ns + n * 10 * MS) for n in range(count))
    return Stretch(head, start_ns - 10 * MS if head else None, seen, tail)


async def test_the_guests_gap_is_found_also_when_a_ticks_line_was_cut(world: World) -> None:
    world.facts(1, giver(2))
    world.facts(2, taker(2))
    async with world.collector() as it:
        await until(it, lambda f: f.roots.get("2", RootFacts()).state is ALIVE)
        # The last tick but one came 10 ms before the guest stopped, the next line was cut by the handoff.
        before = ticks(1, 120, 100_000 * MS - 1_200 * MS, tail=b"T 7")
        world.tell(1, lambda at: Seen(at, "vm0", before))
        after = ticks(122, 150, 100_110 * MS, head=b"9")
        world.tell(2, lambda at: Seen(at, "vm0", after))
        facts = await until(it, lambda f: bool(f.handoffs["vm0/2"].gap_ns))
        assert facts.handoffs["vm0/2"].gap_ns == 110 * MS
        assert facts.vms["vm0"].ticks is not None
        assert facts.vms["vm0"].ticks.counter == 271
        counters = [point[1] for point in it.view.strips["ticks/vm0"]]
        assert sorted(counters) == list(range(1, 272))


async def test_when_a_root_ends_its_vms_lose_no_tick_on_the_way(world: World) -> None:
    """The streams through a root break when it ends. What was on its way then is asked for again."""
    world.facts(1, giver(2))
    world.facts(2, taker(2))
    async with world.collector() as it:
        await until(it, lambda f: f.roots.get("2", RootFacts()).state is ALIVE)
        first, second = ticks(1, 50, 100_200 * MS), ticks(51, 50, 100_700 * MS)
        world.tell(2, lambda at: Seen(at, "vm0", first))
        await until(it, lambda f: f.vms["vm0"].ticks is not None and f.vms["vm0"].ticks.counter == 50)
        world.front = 2
        world.end(1)
        world.end(2)  # for its stream went through root 1
        world.refused.clear()
        world.refused.add(1)
        world.facts(2, taker(2, RootState.ENDED))
        async with asyncio.timeout(5):
            while not world.streams.get(2):
                await asyncio.sleep(0.01)
        assert world.asked_since == {"vm0": first.ticks[-1].seen_ns}
        # The first one comes twice, as it may.
        for stretch in (first, second):
            world.tell(2, partial(Seen, vm="vm0", stretch=stretch))
        await until(it, lambda f: f.vms["vm0"].ticks is not None and f.vms["vm0"].ticks.counter == 100)
        assert [point[1] for point in it.view.strips["ticks/vm0"]] == list(range(1, 101))


async def test_what_others_measure_and_say_is_part_of_the_stream(world: World) -> None:
    heard: list[Event] = []
    async with world.collector() as it:
        await until(it, lambda f: bool(f.roots))
        it.measure(StreamFacts("ping", "vm0", "ns"), [(it.at(world.now), 1_500)])
        it.say("look")
        assert it.view.said == "look"
        assert it.view.facts.streams["ping/vm0"].unit == "ns"
        async with asyncio.timeout(5):
            async for event in it.events():
                heard.append(event)
                if isinstance(event, Points):
                    break
    assert isinstance(heard[-1], Points)
    assert heard[-1].points == {"ping/vm0": [(100_000 * MS, 1_500)]}


@pytest.mark.parametrize("text", ["x", "[1]", json.dumps({"roots": {"one": {}}}), '{"vms": 7}'])
async def test_what_makes_no_sense_is_not_believed_and_the_way_begins_again(world: World, text: str) -> None:
    async with world.collector() as it:
        await until(it, lambda f: bool(f.roots))
        for queue in world.streams.pop(1):
            queue.put_nowait(watch_pb2.WatchEvent(root=1, at_ns=world.tsc, state=text))
        async with asyncio.timeout(5):
            while not world.streams.get(1):
                await asyncio.sleep(0.01)
        assert it.view.facts.roots["1"].state is ALIVE


async def test_a_bug_in_what_is_added_reaches_those_who_watch(world: World) -> None:
    calls = 0

    async def look() -> Callable[[Facts], None]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise PeerLostError("the lab is gone")
        return lambda _: None

    async def watch() -> None:
        async with Collector(Address("none"), look, open_stream=world.open, clock=lambda: world.now) as it:
            async for _ in it.events():
                pass

    with pytest.raises(PeerLostError, match="the lab is gone"):
        await asyncio.wait_for(watch(), 5)
