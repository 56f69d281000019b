# SPDX-License-Identifier: GPL-2.0-or-later
"""Joins what the agents of all roots tell into one stream of facts of the whole machine."""

from __future__ import annotations

from collections.abc import AsyncIterator

from multiroot.rpc.client import Address
from multiroot.watch.events import Event
from multiroot.watch.hub import Hub


class Collector:
    """Watches all agents that it can reach; use as an async context manager, in one event loop.

    `hub.view` is what is known now, `events()` the stream. `say` puts a text for the audience into it.
    """

    def __init__(self, address: Address) -> None:
        self.hub = Hub()
        self._address = address

    async def __aenter__(self) -> Collector:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hub.close()

    def events(self) -> AsyncIterator[Event]:
        """What is known, a State first, and then what happens. For any number of callers."""
        return self.hub.watch()
