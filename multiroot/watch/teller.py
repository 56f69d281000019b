# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells whoever watches an agent what that knows: all of it, then what changes.

Nothing runs as long as nobody watches. Nothing is looked at while a guest stands still: what happens then is
told afterwards, with its own times.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from multiroot.errors import MultirootError
from multiroot.vm.ticks import Stretch
from multiroot.watch.decode import to_json
from multiroot.watch.events import Change, State
from multiroot.watch.facts import Facts
from multiroot.watch.hub import Hub
from multiroot.watch.kept_ticks import KeptTicks
from multiroot.watch.patch import applied, difference
from multiroot.watch.signal import Signal
from multiroot.watch.told import Beat, Seen, Told

log = logging.getLogger("multirootd")

LOOK_S = 0.5  # for what changes without a word: owner words, CPUs
TICKS_S, TICKS_MOST_S = 0.2, 0.4  # the longer, the longer it takes to tell them
BEAT_S = 0.25
LATE_S = 0.1  # after it should have woken up: there is little CPU to be had
QUIET_S = 0.2  # a blackout is over sooner, as a rule
REST, REST_MOST_S = 3.0, 1.5  # times as long as a look took, until the next
GATHER_S = 0.03  # what happens at once is told at once
# Whoever watched through a root that has ended needs some time to come back; so long nothing is forgotten.
RESUME_S = 120.0
NO_TICKS: Mapping[str, int] = {}

Look = Callable[[], Facts]


class Ticks(Protocol):
    """What guests have ticked."""

    def restart(self) -> None:
        """Leave out what was ticked until now."""

    def read(self) -> Iterable[tuple[str, Stretch]]:
        """What was ticked since the last call, by VM."""


class Known:
    """The document as it was told last."""

    def __init__(self) -> None:
        self.at = 0
        self.document: dict[str, Any] = {}

    def apply(self, event: Told) -> None:
        """Take in what is told."""
        self.at = event.at
        match event:
            case State(_, document):
                self.document = document
            case Change(_, patch):
                self.document = applied(self.document, patch)

    def snapshot(self) -> list[Told]:
        """All of it."""
        return [State(self.at, self.document)]


class Teller:
    """One for each agent. `look` makes the facts as they are, `ticks` has what guests have said since."""

    def __init__(self, look: Look, ticks: Ticks, clock: Callable[[], int], signal: Signal) -> None:
        """`clock` is the machine-wide one; `signal` is rung by what changes something."""
        self._look = look
        self._ticks = ticks
        self._clock = clock
        self._signal = signal
        self._known = Known()
        self._hub: Hub[Told] = Hub(self._known)
        self._running: asyncio.Task[None] | None = None
        self._told_s = 0.0  # loop time of what was told last
        self._left_s: float | None = None  # loop time when the last watcher went
        self._kept = KeptTicks()
        self._complaint = ""

    async def tell(self, since: Mapping[str, int] = NO_TICKS) -> AsyncGenerator[Told, None]:
        """A State first, and then what comes, for as long as the caller likes. One that has been here before
        says `since` when it lacks guests' ticks (TSC clock, ns, by VM), and may hear some twice.
        """
        if self._running is None:
            self._begin()
        try:
            async with aclosing(self._hub.watch()) as events:
                async for told in events:
                    yield told
                    break
                for seen in self._kept.since(since):
                    yield seen
                async for told in events:
                    yield told
        finally:
            if not self._hub.watched:
                self._left_s = asyncio.get_running_loop().time()
                await self.close()

    def _begin(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._left_s is None or now - self._left_s > RESUME_S:
            self._ticks.restart()
            self._kept.clear()
        self._tell_changes()
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Tell no more, until somebody watches again."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait({running})

    async def end(self) -> None:
        """The agent ends: so does what it tells, at once."""
        self._hub.close()
        await self.close()

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        looked, rest_until, news, pace = now(), 0.0, False, TICKS_S
        while True:
            quiet = self._signal.quiet()
            rung = await self._signal.wait(QUIET_S if quiet else pace)
            news = news or rung
            if self._signal.quiet():
                if rung:
                    self._signal.ring()
                self._beat(now())
                continue
            woke = now()
            if woke - self._told_s >= max(pace, BEAT_S) + LATE_S:
                # It woke up late, and what follows may take long, too: that it lives is told first.
                self._publish(Beat(self._clock()))
                await asyncio.sleep(0)
            if rung:
                await asyncio.sleep(GATHER_S)
            began = now()
            if began >= rest_until and (news or began - looked >= LOOK_S):
                looked, news = began, False
                self._tell_changes()
                # Where this takes long, as in a root that gets little CPU, it is done less often: what says
                # that this agent is alive, and all else that the loop does, must not wait for it.
                rest_until = now() + min(REST * (now() - began), REST_MOST_S)
            # Never later than this: a console goes soon after its VM was handed over.
            self._tell_ticks()
            self._beat(now())
            pace = min(TICKS_S + now() - woke, TICKS_MOST_S)

    def _tell_changes(self) -> None:
        try:
            document = to_json(self._look())
        except MultirootError as error:
            # A damaged arena, say. What was known stays; those who ask by a call are told why.
            self._complain(str(error))
            return
        self._complaint = ""
        if not self._known.document:
            self._publish(State(self._clock(), document))
        elif patch := difference(self._known.document, document):
            self._publish(Change(self._clock(), patch))

    def _tell_ticks(self) -> None:
        for vm, stretch in self._ticks.read():
            seen = Seen(self._clock(), vm, stretch)
            self._kept.add(seen)
            self._publish(seen)

    def _beat(self, now_s: float) -> None:
        if now_s - self._told_s >= BEAT_S - TICKS_S / 2:
            self._publish(Beat(self._clock()))

    def _publish(self, told: Told) -> None:
        self._told_s = asyncio.get_running_loop().time()
        self._hub.publish(told)

    def _complain(self, message: str) -> None:
        """Once for each reason."""
        if message != self._complaint:
            log.warning("what is told to those who watch is incomplete: %s", message)
        self._complaint = message
