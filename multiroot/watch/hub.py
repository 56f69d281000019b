# SPDX-License-Identifier: GPL-2.0-or-later
"""One stream of events for any number of watchers, of which none can slow down another or fill the memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

E = TypeVar("E")

MOST = 256  # events that may wait for a watcher


class Knowing(Protocol[E]):
    """Takes in events, and can tell all of it again (`view.View`)."""

    def apply(self, event: E) -> None: ...

    def snapshot(self) -> Sequence[E]: ...


class Hub(Generic[E]):
    """Gives what is published to all who watch. For one event loop."""

    def __init__(self, view: Knowing[E], most: int = MOST) -> None:
        """A watcher that lets `most` events wait gets all that `view` knows in their place."""
        self._view = view
        self._most = most
        self._watchers: set[_Watcher[E]] = set()
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    def publish(self, event: E) -> None:
        """Tell all watchers."""
        self._view.apply(event)
        for watcher in self._watchers:
            watcher.put(event)

    async def watch(self) -> AsyncGenerator[E, None]:
        """All that is known, then what is published, until the hub is closed."""
        watcher: _Watcher[E] = _Watcher(self._most)
        self._watchers.add(watcher)
        try:
            while True:
                if watcher.behind:
                    watcher.catch_up()
                    for event in self._view.snapshot():
                        yield event
                while watcher.waiting:
                    yield watcher.waiting.popleft()
                if watcher.behind:
                    continue
                if self._closed:
                    return
                await watcher.wait()
        finally:
            self._watchers.discard(watcher)

    async def bundles(self, pause_s: float, idle_s: float) -> AsyncGenerator[list[E], None]:
        """As `watch`, but what is published within `pause_s` seconds comes together, which costs less where
        many watch. An empty list: nothing was published for `idle_s` seconds.
        """
        watcher: _Watcher[E] = _Watcher(self._most)
        self._watchers.add(watcher)
        try:
            while True:
                if told := self._taken(watcher):
                    yield told
                elif self._closed:
                    return
                elif not await watcher.heard(idle_s):
                    yield []
                elif not self._closed:
                    await asyncio.sleep(pause_s)
        finally:
            self._watchers.discard(watcher)

    def _taken(self, watcher: _Watcher[E]) -> list[E]:
        """All that there is for a watcher now."""
        if watcher.behind:
            watcher.catch_up()
            return list(self._view.snapshot())
        return watcher.take()

    def close(self) -> None:
        """Everybody gets what is left, and no more."""
        self._closed = True
        for watcher in self._watchers:
            watcher.wake()


class _Watcher(Generic[E]):
    """What waits for one watcher. It is `behind` at first, and when too much has waited."""

    def __init__(self, most: int) -> None:
        self.waiting: deque[E] = deque()
        self.behind = True
        self._most = most
        self._news = asyncio.Event()

    def put(self, event: E) -> None:
        if not self.behind:
            self.waiting.append(event)
            if len(self.waiting) > self._most:
                self.waiting.clear()
                self.behind = True
        self.wake()

    def catch_up(self) -> None:
        self.waiting.clear()
        self.behind = False

    def take(self) -> list[E]:
        told = list(self.waiting)
        self.waiting.clear()
        return told

    def wake(self) -> None:
        self._news.set()

    async def wait(self) -> None:
        """Until something is published, or the hub is closed."""
        await self._news.wait()
        self._news.clear()

    async def heard(self, idle_s: float) -> bool:
        """The same for so many seconds at most; False when there is no news."""
        with suppress(TimeoutError):
            async with asyncio.timeout(idle_s):
                await self.wait()
            return True
        return False
