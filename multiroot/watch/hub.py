# SPDX-License-Identifier: GPL-2.0-or-later
"""One stream of events for any number of watchers, of which none can slow down another or fill the memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from multiroot.watch.events import Event
from multiroot.watch.view import View

MOST = 256  # events that may wait for a watcher


class Hub:
    """Gives what is published to all who watch. For one event loop."""

    def __init__(self, view: View | None = None, most: int = MOST) -> None:
        """A watcher that lets `most` events wait gets all that `view` knows in their place."""
        self.view = view or View()
        self._most = most
        self._watchers: set[_Watcher] = set()
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    def publish(self, event: Event) -> None:
        """Tell all watchers."""
        self.view.apply(event)
        for watcher in self._watchers:
            watcher.put(event)

    async def watch(self) -> AsyncIterator[Event]:
        """All that is known, a State first, then what is published, until the hub is closed."""
        watcher = _Watcher(self._most)
        self._watchers.add(watcher)
        try:
            while True:
                if watcher.behind:
                    watcher.catch_up()
                    for event in self.view.snapshot():
                        yield event
                while watcher.waiting:
                    yield watcher.waiting.popleft()
                if self._closed and not watcher.behind:
                    return
                await watcher.wait()
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """Everybody gets what is left, and no more."""
        self._closed = True
        for watcher in self._watchers:
            watcher.wake()


class _Watcher:
    """What waits for one watcher. It is `behind` at first, and when too much has waited."""

    def __init__(self, most: int) -> None:
        self.waiting: deque[Event] = deque()
        self.behind = True
        self._most = most
        self._news = asyncio.Event()

    def put(self, event: Event) -> None:
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
        """Until there is something; at once if there is by now."""
        if not self.waiting and not self.behind:
            await self._news.wait()
        self._news.clear()
