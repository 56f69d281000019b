# SPDX-License-Identifier: GPL-2.0-or-later
"""Joins what the agents of all roots tell into one stream of facts of the whole machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from multiroot.errors import MultirootError
from multiroot.net.addresses import MAX_ROOT
from multiroot.rpc.client import AGENT_SOCKET, Address
from multiroot.rpc.v1 import watch_pb2
from multiroot.watch.decode import from_json, to_json
from multiroot.watch.events import Change, Event, Point, Points, Say, State
from multiroot.watch.facts import Facts, RootState, Stage, StreamFacts
from multiroot.watch.hub import Hub
from multiroot.watch.join import OVER, Memory, Telling, join
from multiroot.watch.patch import applied, difference
from multiroot.watch.ticks_seen import SETTLE_NS, TicksSeen, gap_of
from multiroot.watch.told import Seen, from_proto
from multiroot.watch.view import View
from multiroot.watch.ways import LATE_S, SILENT_S, Open, Way, opener

CHECK_S = 0.05
DEAF_S = 0.1  # so late this program's own event loop is when it has not listened
CATCH_UP_S, CATCH_UP_MOST_S = 0.25, 0.75
WAYS = 4  # at most, beside the one to the address itself
LOOK_S = 0.5  # for what nobody tells: the lab's account of its machine
_DRIFT_NS = 20_000  # what two clocks may part between two messages
TICKS, FRAMES = "ticks", "frames"

# What else is known of the machine is put into the facts by this, now and then.
Add = Callable[[Facts], None]
Look = Callable[[], Awaitable[Add]]


@dataclass
class _Root:
    """One root's agent as it is heard."""

    way: Way
    document: dict[str, Any] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    told: float = 0.0  # when it told something, seconds on our clock
    heard: float = 0.0  # the same, or since when its neighbour knows that its heart has beaten
    heard_ns: int = 0  # on the machine's
    starved: float = 0.0  # how long its machine had been kept from running when it told something, s
    fresh: bool = True

    def is_heard(self, now: float, starved: float) -> bool:
        """Whether it is not silent. A machine that does not run says nothing, and nothing happens in it."""
        patience = SILENT_S + starved - self.starved
        return now - self.heard <= patience and now - self.told <= LATE_S


class Collector:
    """Watches all agents that it can reach; use as an async context manager, in one event loop.

    `view` is what is known now, `events()` the stream. `say` and `measure` put more into it.
    """

    def __init__(
        self,
        address: Address,
        look: Look | None = None,
        *,
        starved: Callable[[], float] = float,
        open_stream: Open | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`address` is that of any agent; through it all others are reached. `look` adds what agents do not
        know. `starved` says for how many seconds in all the machine was kept from running, if anybody knows.
        `open_stream` and `clock` (seconds) are for tests.
        """
        self.view = View()
        self._hub: Hub[Event] = Hub(self.view)
        self._open = open_stream or opener(address)
        self._clock = clock
        self._look = look
        self._starved = starved
        self._add: Add = lambda _: None
        self._memory = Memory()
        self._ticks = TicksSeen()
        self._roots: dict[int, _Root] = {}
        self._ways: dict[int | None, Way] = {}
        self._offset_ns: int | None = None  # the machine's clock less ours
        self._measured: dict[str, StreamFacts] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    async def __aenter__(self) -> Self:
        self._add_way(None)
        if self._look is not None:
            self._add = await self._look()
            self._mind(asyncio.create_task(self._look_again(self._look)))
        self._mind(asyncio.create_task(self._check()))
        self._update()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._hub.close()

    async def events(self) -> AsyncGenerator[Event, None]:
        """What is known, a State first, and then what happens. For any number of callers."""
        async with aclosing(self._hub.watch()) as events:
            async for event in events:
                yield event
        if self._error is not None:
            raise self._error

    @property
    def trouble(self) -> MultirootError | None:
        """Why nothing is heard, if nothing is."""
        return self._ways[None].error

    async def tried(self) -> None:
        """Until an agent has been heard, or it is known that none was at the first try."""
        await self._ways[None].tried.wait()

    def now_ns(self) -> int:
        """The machine-wide clock, as far as it is known; never less than what was told already."""
        ours = int(self._clock() * 1e9)
        return max(self.view.at, 1 if self._offset_ns is None else ours + self._offset_ns)

    def at(self, clock_s: float) -> int:
        """A moment of this program's monotonic clock (seconds) on the machine-wide one; 0 if not known."""
        return 0 if self._offset_ns is None else int(clock_s * 1e9) + self._offset_ns

    def say(self, text: str) -> None:
        """Show a text to the audience."""
        self._hub.publish(Say(self.now_ns(), text))

    def measure(self, stream: StreamFacts, points: Iterable[Point]) -> None:
        """Put points that somebody has measured into the strip `KIND/VM`: pings, a web server's answers."""
        name = f"{stream.kind}/{stream.vm}"
        if self._measured.get(name) != stream:
            self._measured[name] = stream
            self._update()
        self._hub.publish(Points(self.now_ns(), {name: list(points)}))

    async def wait(self, condition: Callable[[Facts], bool]) -> Facts:
        """Until the facts are so; who wants to wait only so long uses asyncio.timeout."""
        async with aclosing(self.events()) as events:
            async for _ in events:
                if condition(self.view.facts):
                    break
        return self.view.facts

    def _hear(self, asked: int | None, message: watch_pb2.WatchEvent) -> None:
        """Raises BadRequestError for what makes no sense; its way begins again then."""
        way, number = self._ways[asked], message.root
        told = from_proto(message)
        root = self._roots.get(number)
        if root is None or (root.way is not way and asked is None):
            # The agent at the address itself is the shortest way to it.
            root = self._roots[number] = _Root(way, *((root.document, root.facts) if root else ()))
        if root.way is not way:
            return
        root.told = root.heard = self._clock()
        root.starved = self._starved()
        root.fresh = True
        self._take_time(message.at_ns, root)
        self._take_beats(message.neighbours)
        match told:
            case State(_, document):
                root.document, root.facts = document, from_json(document)
            case Change(_, patch):
                root.document = applied(root.document, patch)
                root.facts = from_json(root.document)
            case Seen(_, vm, stretch) if not self._ticks.knows(vm, number, stretch):
                strips = {
                    f"{TICKS}/{vm}": self._ticks.take(vm, number, stretch),
                    f"{FRAMES}/{vm}": self._ticks.take_frames(vm, number, stretch),
                }
                self._update()
                if strips := {name: points for name, points in strips.items() if points}:
                    self._hub.publish(Points(self.now_ns(), strips))
                self._find_gaps(vm)
                return
        self._update()

    def _take_time(self, at_ns: int, root: _Root) -> None:
        """A message that came sooner than others says more of how far the clocks are apart."""
        sample = at_ns - int(root.heard * 1e9)
        if self._offset_ns is None:
            self._offset_ns = sample
        self._offset_ns = max(sample, self._offset_ns - _DRIFT_NS)
        root.heard_ns = self.at(root.heard)

    def _take_beats(self, beats: Iterable[watch_pb2.HeartBeat]) -> None:
        """Of the neighbours of one who tells."""
        for beat in beats:
            root = self._roots.get(beat.root)
            if root is not None and self._offset_ns is not None:
                at = (beat.at_ns - self._offset_ns) / 1e9
                if root.heard < at <= self._clock():
                    root.heard, root.heard_ns = at, self.at(at)

    def _find_gaps(self, vm: str) -> None:
        """The guest's own gap, as soon as it has ticked again, until no more ticks tell of it."""
        strip, changed = self.view.strips.get(f"{TICKS}/{vm}"), False
        for handoff in self._memory.handoffs.values() if strip else ():
            settled = strip is not None and strip[-1][0] > handoff.resumed_ns + SETTLE_NS
            if handoff.vm == vm and handoff.stage is Stage.DONE and not (settled and handoff.gap_ns):
                found = gap_of(handoff, tuple(strip or ()))
                changed = changed or found != handoff.gap_ns
                handoff.gap_ns = found
        if changed:
            self._update()

    async def _check(self) -> None:
        """Notices who has fallen silent, and who has not after all, and goes to new roots."""
        listening = Listening()
        while True:
            await asyncio.sleep(CHECK_S)
            if listening.well(asyncio.get_running_loop().time()):
                now, starved = self._clock(), self._starved()
                changed = [each for each in self._roots.values() if each.fresh != each.is_heard(now, starved)]
                for root in changed:
                    root.fresh = not root.fresh
                if changed:
                    self._update()
            await self._mind_ways()

    async def _mind_ways(self) -> None:
        """One way to each root that lives; the one to the address itself is any root's."""
        facts = self.view.facts
        near = {number for number, root in self._roots.items() if root.way is self._ways[None] and root.fresh}
        # Who is still starting has no agent to ask.
        ready = {
            number
            for each in self._roots.values()
            for number, root in each.facts.roots.items()
            if root.state in (RootState.ALIVE, RootState.UNKNOWN)
        }
        living = [int(each) for each in ready if each in facts.roots and facts.roots[each].state not in OVER]
        # Two live at a time. An agent may say anything.
        wanted = {number for number in sorted(living)[-WAYS:] if 1 <= number <= MAX_ROOT} - near
        for number in [each for each in self._ways if each is not None and each not in wanted]:
            await self._ways.pop(number).close()
        for number in wanted - self._ways.keys():
            self._add_way(number)

    def _add_way(self, root: int | None) -> None:
        way = self._ways[root] = Way(self._open, root, partial(self._hear, root), self._ticks.since)
        self._mind(way.task)

    def _mind(self, task: asyncio.Task[None]) -> None:
        """Whoever watches learns that a task has failed by a bug, and which."""
        self._tasks.add(task)
        task.add_done_callback(self._note_failure)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
            self._hub.close()

    async def _look_again(self, look: Look) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._add = await look()
            self._update()

    def _update(self) -> None:
        """Join what is known, and publish what has changed."""
        tellings = [
            Telling(number, each.facts, each.fresh, each.heard_ns) for number, each in self._roots.items()
        ]
        facts = join(tellings, self._memory)
        for vm, newest in self._ticks.newest.items():
            if vm in facts.vms:
                facts.vms[vm].ticks = newest
                facts.streams[f"{TICKS}/{vm}"] = StreamFacts(TICKS, vm, "count")
        for vm, account in self._ticks.frames.items():
            if vm in facts.vms:
                facts.vms[vm].frames = account
                facts.streams[f"{FRAMES}/{vm}"] = StreamFacts(FRAMES, vm, "count")
        facts.streams |= {name: each for name, each in self._measured.items() if each.vm in facts.vms}
        self._add(facts)
        self._forget_ended(facts)
        if not self.view.document:
            facts.clock.ns = self.now_ns()
            self._hub.publish(State(self.now_ns(), to_json(facts)))
            return
        facts.clock.ns = self.view.facts.clock.ns
        if patch := difference(self.view.document, to_json(facts)):
            self._hub.publish(Change(self.now_ns(), patch))

    def _forget_ended(self, facts: Facts) -> None:
        """What a root has told that has ended is remembered by `join`, as far as it matters."""
        for number in [each for each in self._roots if not self._roots[each].fresh]:
            root = facts.roots.get(str(number))
            if root is None or root.state in (RootState.ENDED, RootState.CRASHED):
                del self._roots[number]


class Listening:
    """Whether this program has listened well enough to call anybody silent.

    One that got no CPU for a while finds much that was said meanwhile. It reads that first, but not for ever.
    """

    def __init__(self) -> None:
        self._before: float | None = None
        self._resumes: tuple[float, float] | None = None  # when it may judge again, and when at the latest

    def well(self, now: float) -> bool:
        """Called every CHECK_S, with the event loop's time, s."""
        before, self._before = self._before, now
        if before is not None and now - before > CHECK_S + DEAF_S:
            latest = self._resumes[1] if self._resumes else now + CATCH_UP_MOST_S
            self._resumes = (min(now + CATCH_UP_S, latest), latest)
        if self._resumes and now < self._resumes[0]:
            return False
        self._resumes = None
        return True


def of_this_root() -> Collector:
    """For a program in a root: its agent, and by that the others."""
    return Collector(Address(f"unix:{AGENT_SOCKET}"))
