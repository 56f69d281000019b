# SPDX-License-Identifier: GPL-2.0-or-later
"""One stream of events for any number of watchers, of which none can slow down another or fill the memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
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

    def wake(self) -> None:
        self._news.set()

    async def wait(self) -> None:
        """Until something is published, or the hub is closed."""
        await self._news.wait()
        self._news.clear()
